"""Prompts of the world of `scene.py`: a specification put into words, in many phrasings, and read back from words."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from models.shapes.scene import WORLD, Item, Spec

_USUAL = 0.75  # how often the usual word is taken where there are several
_OPEN = ("shape", "figure", "thing")  # stands where a prompt leaves the shape open


def _word(table: str, name: str, rng: random.Random) -> str:
    words: list[str] = WORLD[table][name]["words"]
    return words[0] if rng.random() < _USUAL else rng.choice(words)


def _look(group: str, background: bool = False) -> dict[str, str]:
    """word -> name."""
    tables = [WORLD[group]] + ([WORLD["backgrounds"]] if background else [])
    return {word: name for table in tables for name, row in table.items() for word in row["words"]}


def _plurals(row: dict[str, list[str]]) -> list[str]:
    return row.get("plural", [word + "s" for word in row["words"]])


def _noun(item: Item, rng: random.Random) -> str:
    size = [_word("sizes", item.size, rng)] if item.size else []
    color = [_word("colors", item.color, rng)] if item.color else []
    if item.count > 1:
        rows = _plurals(WORLD["shapes"][item.shape]) if item.shape else [f"{_OPEN[0]}s"]
        return " ".join([_word("counts", str(item.count), rng), *size, *color, rng.choice(rows)])
    shape = _word("shapes", item.shape, rng) if item.shape else rng.choice(_OPEN)
    words = [*size, *color, shape]
    article = rng.choices(["a", "one", "the", ""], [86, 3, 3, 8])[0]
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    return " ".join([article, *words]).strip()


def say(spec: Spec, rng: random.Random) -> str:
    """A prompt that says just this; empty for the empty specification. `read` gives the specification back."""
    if not spec.items and not spec.background:
        return ""
    nouns = [_noun(item, rng) for item in spec.items]
    if spec.relation:
        verb = rng.choices([" ", " is ", ", "], [90, 5, 5])[0] if spec.relation != "inside" else " "
        text = f"{nouns[0]}{verb}{_word('relations', spec.relation, rng)} {nouns[1]}"
    elif len(nouns) > 1:
        text = rng.choice([", ".join(nouns[:-1]) + " and ", ", ".join(nouns[:-1]) + ", "]) + nouns[-1]
        text = text if len(nouns) > 2 or rng.random() < 0.5 else f"{nouns[0]} and {nouns[1]}"
    else:
        text = nouns[0] if nouns else ""
        if spec.items and spec.items[0].position:
            text += rng.choices([" ", ", "], [85, 15])[0] + _word("positions", spec.items[0].position, rng)
    if spec.background:
        table = "colors" if spec.background in WORLD["colors"] else "backgrounds"
        ground = _word(table, spec.background, rng)
        article = "an" if ground[0] in "aeiou" else "a"
        form = rng.choices(["on {a} {g} background", "on {g}", "with {a} {g} background", "{g} background"], [60, 15, 15, 10])[
            0
        ]
        phrase = form.format(a=article, g=ground)
        text = f"{text}{', ' if form.startswith('{g}') else ' '}{phrase}"
    opening = rng.choices(["", "a picture of ", "a drawing of "], [94, 3, 3])[0]
    text = opening + text
    text = text[0].upper() + text[1:] if rng.random() < 0.12 else text
    return text + ("." if rng.random() < 0.06 else "")


def _either(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_NOUNS = {word: name for name, row in WORLD["shapes"].items() for word in row["words"] + _plurals(row)}
_NOUNS |= {form: "" for word in _OPEN for form in (word, f"{word}s")}
_COUNTS = {word: int(name) for word, name in _look("counts").items()}
_COLORS, _GROUNDS, _SIZES = _look("colors"), _look("colors", background=True), _look("sizes")
_RELATIONS, _POSITIONS = _look("relations"), _look("positions")
_PHRASE = (
    rf"(?:(?:a|an|one|the|(?P<count{{0}}>{_either(_COUNTS)})) )?(?:(?P<size{{0}}>{_either(_SIZES)}) )?"
    rf"(?:(?P<color{{0}}>{_either(_COLORS)}) )?(?P<shape{{0}}>{_either(_NOUNS)})"
)
_GROUND = re.compile(
    rf"(?:,? (?:on|with|against)(?: an?)? (?P<a>{_either(_GROUNDS)})(?: background)?|, (?P<b>{_either(_GROUNDS)}) background)$"
)
_ONE = re.compile(_PHRASE.format(0) + rf"(?:,? (?P<position>{_either(_POSITIONS)}))?")
_TWO = re.compile(_PHRASE.format(0) + rf"(?: is|,)? (?P<relation>{_either(_RELATIONS)}) " + _PHRASE.format(1))
_LIST = re.compile(
    _PHRASE.format(0) + r"(?:, and |, | and )" + _PHRASE.format(1) + r"(?:(?:, and |, | and )" + _PHRASE.format(2) + ")?"
)


def _item(found: re.Match[str], index: int, position: str | None = None) -> Item:
    part = {key: found.group(f"{key}{index}") for key in ("count", "size", "color", "shape")}
    return Item(
        _NOUNS[part["shape"]] or None,
        _COLORS[part["color"]] if part["color"] else None,
        _SIZES[part["size"]] if part["size"] else None,
        _POSITIONS[position] if position else None,
        _COUNTS[part["count"]] if part["count"] else 1,
    )


def read(prompt: str) -> Spec:
    """The specification that a prompt of this world states; ValueError for any other prompt."""
    text = re.sub(r"^an? (?:picture|drawing) of ", "", re.sub(r"\s+", " ", prompt.strip().lower().rstrip(".")))
    background = None
    if ground := _GROUND.search(text):
        background = _GROUNDS[ground.group("a") or ground.group("b")]
        text = text[: ground.start()]
    if not text:
        return Spec((), background=background)
    if found := _TWO.fullmatch(text):
        return Spec((_item(found, 0), _item(found, 1)), _RELATIONS[found.group("relation")], background)
    if found := _ONE.fullmatch(text):
        return Spec((_item(found, 0, found.group("position")),), background=background)
    if found := _LIST.fullmatch(text):
        numbers = (0, 1, 2) if found.group("shape2") else (0, 1)
        return Spec(tuple(_item(found, number) for number in numbers), background=background)
    raise ValueError(f"not a prompt of this world: {prompt!r}")
