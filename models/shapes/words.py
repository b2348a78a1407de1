"""The tokens of the prompts: what the engine's Qwen tokenizer makes of each word that `grammar.py` uses.

Training needs no tokenizer, for all its words stand in `words.toml`. This module reads them (`encode`), and makes the file from
the merges in the engine's source:

    python -m models.shapes.words ENGINE/src/tokenizers/vocab/qwen.hpp
"""

from __future__ import annotations

import re
import sys
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

from models.shapes.scene import WORLD

FILE = Path(__file__).parent / "words.toml"
# The prompt template of Ovis-Image in the engine (src/conditioner.hpp), in tokens. The prompt stands between the two.
BEFORE = (151644, 872, 198, 74785, 279, 2168, 553, 44193, 279, 1894, 11, 12194, 11, 1467, 11, 6083, 11, 1379, 11, 10434, 11)
BEFORE += (27979, 11871, 315, 279, 6171, 323, 4004, 25)
AFTER = (151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271)
PADDING = 151643
FIRST = 28  # the first token whose output the transformer sees: the last of BEFORE
VOCABULARY = 151669
UNKNOWN = -1  # a piece that words.toml does not have; its row in the embedding is one that all such tokens share

_PIECE = re.compile(r"[^\r\n\w]?[^\W\d_]+|\d| ?[^\s\w]+|\s+")  # as the engine splits (src/tokenizers/tokenize_util.cpp)
_OTHERS = "a an one the is and of picture drawing background on with shape figure thing shapes , ."


@cache
def table() -> dict[str, tuple[int, ...]]:
    """piece -> tokens."""
    return {piece: tuple(tokens) for piece, tokens in tomllib.loads(FILE.read_text())["pieces"].items()}


def encode(prompt: str) -> list[int]:
    """The tokens of a prompt alone, UNKNOWN where a piece is not in the table. The engine puts a space before a prompt."""
    known = table()
    return [token for piece in _PIECE.findall(" " + prompt) for token in known.get(piece, (UNKNOWN,))]


def pieces() -> set[str]:
    """All that prompts of this world are made of."""
    rows = [
        row
        for group in ("colors", "backgrounds", "shapes", "sizes", "positions", "relations", "counts")
        for row in WORLD[group].values()
    ]
    words = {word for row in rows for text in row["words"] + row.get("plural", []) for word in text.split()}
    words |= {word + "s" for row in WORLD["shapes"].values() for word in row["words"]} | set(_OTHERS.split())
    texts = words | {word[0].upper() + word[1:] for word in words}
    return {piece for text in texts for form in (" " + text, text) for piece in _PIECE.findall(form)} | {" "}


class Tokenizer:
    """Byte-pair encoding with the merges of the engine's source."""

    def __init__(self, header: Path) -> None:
        merges = bytes(int(number, 16) for number in re.findall(r"0x([0-9a-f]{2})", header.read_text())).decode().split("\n")
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [byte for byte in range(256) if byte not in plain]
        letters = [(byte, chr(byte)) for byte in plain] + [(byte, chr(256 + index)) for index, byte in enumerate(rest)]
        self._letter = dict(letters)
        pairs = [tuple(merge.split(" ")) for merge in merges if merge.count(" ") == 1]
        self._rank = {pair: rank for rank, pair in enumerate(pairs)}
        names = [letter for _, letter in letters] + ["".join(pair) for pair in pairs]
        self._number = {name: index for index, name in enumerate(names)}

    def tokens(self, piece: str) -> list[int]:
        """The tokens of one piece."""
        parts = [self._letter[byte] for byte in piece.encode()]
        while True:
            ranked = [(self._rank.get((a, b), len(self._rank)), index) for index, (a, b) in enumerate(pairwise(parts))]
            rank, index = min(ranked, default=(len(self._rank), 0))
            if rank == len(self._rank):
                return [self._number[part] for part in parts]
            parts[index : index + 2] = ["".join(parts[index : index + 2])]


def main(header: str) -> None:
    """Writes words.toml."""
    tokenizer = Tokenizer(Path(header))
    lines = [f'"{piece}" = {tokenizer.tokens(piece)}' for piece in sorted(pieces())]
    text = (
        "# Made by words.py from the engine's vocabulary: piece of a prompt -> tokens.\n\n[pieces]\n" + "\n".join(lines) + "\n"
    )
    FILE.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
