"""The tokens of prompts: every prompt of the world has known ones, and they are the vocabulary's."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from models.shapes import words
from models.shapes.grammar import say
from models.shapes.scene import sample

ENGINE_LENGTH = 284  # tokens that the engine takes, template included


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_every_prompt_of_the_world_is_known_and_short(seed: int) -> None:
    rng = random.Random(seed)
    tokens = words.encode(say(sample(rng), rng))
    assert words.UNKNOWN not in tokens
    assert all(0 <= token < words.VOCABULARY for token in tokens)
    assert len(words.BEFORE) + len(tokens) + len(words.AFTER) <= 64 < ENGINE_LENGTH


def test_words_and_template_have_the_same_tokens() -> None:
    """The template was read off the engine, the table was made from its merges: where they share a word they agree."""
    table = words.table()
    for piece, token in {" the": 279, " of": 315, ",": 11}.items():
        assert table[piece] == (token,)
        assert token in words.BEFORE


def test_different_words_have_different_tokens() -> None:
    known = list(words.table().values())
    assert len(set(known)) == len(known)


def test_words_outside_the_table_are_unknown_and_the_rest_is_not() -> None:
    green, star = words.encode("green"), words.encode("star")
    assert words.encode("green zebra star") == [*green, words.UNKNOWN, *star]


def test_pieces_split_as_the_engine_does() -> None:
    """A space before the prompt and each word, digits alone, punctuation alone."""
    assert words.encode("a star, 3") == [
        token for piece in (" a", " star", ",", " ", "3") for token in words.table().get(piece, (words.UNKNOWN,))
    ]
    assert words.encode("a star, 3").count(words.UNKNOWN) == 0


def test_bytes_are_paired_in_the_order_of_the_merges(tmp_path: Path) -> None:
    merges = ["\u0120 r", "e d", "\u0120r ed", "a b", "b c"]
    header = tmp_path / "vocabulary.hpp"
    header.write_text(", ".join(f"0x{byte:02x}" for byte in "\n".join(merges).encode()))
    tokenizer = words.Tokenizer(header)
    assert tokenizer.tokens(" red") == [256 + merges.index("\u0120r ed")]
    assert len(tokenizer.tokens("abc")) == 2  # "ab" before "bc"
    assert tokenizer.tokens("abc")[0] == 256 + merges.index("a b")
    assert tokenizer.tokens("!") == [0]  # the first printable letter


def test_the_table_holds_all_pieces_and_is_sorted() -> None:
    pieces = list(words.table())
    assert set(pieces) == words.pieces()
    assert all(one < other for one, other in pairwise(pieces))
