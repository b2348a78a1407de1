"""The two entropy coders of Zstandard: FSE tables and Huffman trees (RFC 8878 sections 4.1 and 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sdrun.fatbin.lz4 import Corrupt

# RFC 8878 section 3.1.1.3.2.2: the predefined distributions, with their accuracy
_DEFAULTS: dict[str, tuple[int, tuple[int, ...]]] = {
    "literal": (6, (4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
                    -1, -1, -1, -1)),
    "match": (6, (1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                  1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1)),
    "offset": (5, (1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1)),
}  # fmt: skip
_MAX_HUFFMAN_BITS = 11


class BackwardBits:
    """A bit stream that is read from its end; its last byte's highest set bit marks the start. Bits before the first byte read
    as zero; how many were taken there shows in a negative `left`."""

    __slots__ = ("_data", "left")

    def __init__(self, data: bytes) -> None:
        if not data or not data[-1]:
            raise Corrupt("a bit stream without its end mark")
        self._data = data
        self.left = 8 * len(data) - 9 + data[-1].bit_length()

    def read(self, count: int) -> int:
        """The next `count` bits (32 at most)."""
        value = self.peek(count)
        self.left -= count
        if self.left < -64:
            raise Corrupt("a bit stream ends early")
        return value

    def peek(self, count: int) -> int:
        """As `read`, without moving on."""
        start = self.left - count
        if start < 0:
            have = max(self.left, 0)
            return (int.from_bytes(self._data[: (have + 7) // 8], "little") & (1 << have) - 1) << (count - have)
        first = start >> 3
        return int.from_bytes(self._data[first : first + 5], "little") >> (start & 7) & (1 << count) - 1


@dataclass(frozen=True, slots=True)
class FseTable:
    """A decoding table: of each state its symbol, and how many bits to add to which base for the next one."""

    log: int
    symbols: tuple[int, ...]
    widths: tuple[int, ...]
    bases: tuple[int, ...]

    def next(self, state: int, bits: BackwardBits) -> int:
        """The state after `state`."""
        return self.bases[state] + bits.read(self.widths[state])


def fse_single(symbol: int) -> FseTable:
    """The table of a stream that repeats one symbol."""
    return FseTable(0, (symbol,), (0,), (0,))


@cache
def fse_default(name: str) -> FseTable:
    """The predefined table of `literal` lengths, `match` lengths or `offset` codes."""
    return _build(*_DEFAULTS[name])


def _build(log: int, counts: tuple[int, ...]) -> FseTable:
    size = 1 << log
    symbols = [0] * size
    high = size - 1
    for symbol, count in enumerate(counts):
        if count == -1:
            symbols[high] = symbol
            high -= 1
    place, step = 0, (size >> 1) + (size >> 3) + 3
    for symbol, count in enumerate(counts):
        for _ in range(max(count, 0)):
            symbols[place] = symbol
            place = (place + step) & size - 1
            while place > high:
                place = (place + step) & size - 1
    following = [1 if count == -1 else count for count in counts]
    widths, bases = [], []
    for symbol in symbols:
        turn = following[symbol]
        following[symbol] += 1
        width = log - turn.bit_length() + 1
        widths.append(width)
        bases.append((turn << width) - size)
    return FseTable(log, tuple(symbols), tuple(widths), tuple(bases))


def read_fse(data: bytes, most: int) -> tuple[FseTable, int]:
    """The table described at the start of `data`, and how many bytes describe it. `most`: the largest accuracy allowed."""
    number = int.from_bytes(data[:256], "little")  # no description is longer
    log = (number & 15) + 5
    if log > most:
        raise Corrupt(f"an FSE table of accuracy {log}")
    at, left, counts = 4, (1 << log) + 1, list[int]()
    while left > 1 and len(counts) < 256:
        width = left.bit_length()
        small = (1 << width) - 1 - left
        value = number >> at & (1 << width) - 1
        if value & (1 << width - 1) - 1 < small:
            value &= (1 << width - 1) - 1
            at += width - 1
        else:
            value -= small if value >= 1 << width - 1 else 0
            at += width
        counts.append(value - 1)
        left -= abs(value - 1)
        while value == 1:
            more = number >> at & 3
            at += 2
            counts += [0] * more
            if more < 3 or len(counts) > 256:
                break
    used = (at + 7) // 8
    if left != 1 or len(counts) > 256 or used > len(data):
        raise Corrupt("an FSE table that does not add up")
    return _build(log, tuple(counts)), used


@dataclass(frozen=True, slots=True)
class Huffman:
    """A decoding table over `log` bits: symbol and length of the code that starts with them."""

    log: int
    symbols: bytes
    widths: bytes

    def decode(self, data: bytes, count: int) -> bytes:
        """`count` symbols from a stream of their own."""
        bits, out = BackwardBits(data), bytearray()
        for _ in range(count):
            if bits.left <= 0:
                raise Corrupt("a Huffman stream ends early")
            key = bits.peek(self.log)
            out.append(self.symbols[key])
            bits.left -= self.widths[key]
        return bytes(out)


def read_huffman(data: bytes) -> tuple[Huffman, int]:
    """The tree described at the start of `data`, and how many bytes describe it."""
    if not data:
        raise Corrupt("a Huffman tree is cut off")
    if data[0] >= 128:
        count = data[0] - 127
        used = 1 + (count + 1) // 2
        weights = [byte >> shift & 15 for byte in data[1:used] for shift in (4, 0)][:count]
    else:
        used = 1 + data[0]
        weights = _fse_weights(data[1:used])
    if used > len(data):
        raise Corrupt("a Huffman tree is cut off")
    total = sum(1 << weight - 1 for weight in weights if weight)
    log = total.bit_length()
    rest = (1 << log) - total
    if not total or log > _MAX_HUFFMAN_BITS or rest & rest - 1:
        raise Corrupt("a Huffman tree that does not add up")
    return _huffman(log, [*weights, rest.bit_length()]), used


def _huffman(log: int, weights: list[int]) -> Huffman:
    symbols, widths = bytearray(), bytearray()
    for weight in range(1, log + 1):
        for symbol in (symbol for symbol, own in enumerate(weights) if own == weight):
            symbols += bytes([symbol]) * (1 << weight - 1)
            widths += bytes([log + 1 - weight]) * (1 << weight - 1)
    if len(symbols) != 1 << log:
        raise Corrupt("a Huffman tree that does not add up")
    return Huffman(log, bytes(symbols), bytes(widths))


def _fse_weights(data: bytes) -> list[int]:
    table, used = read_fse(data, 6)
    bits = BackwardBits(data[used:])
    states = [bits.read(table.log), bits.read(table.log)]
    weights: list[int] = []
    while len(weights) < 254:
        for turn in (0, 1):
            weights.append(table.symbols[states[turn]])
            if bits.left < table.widths[states[turn]]:  # the stream is used up: the other state's symbol is the last
                weights.append(table.symbols[states[1 - turn]])
                return weights
            states[turn] = table.next(states[turn], bits)
    raise Corrupt("a Huffman tree of more than 255 weights")
