"""The model card says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.shapes.card import CARD, RECORD, SHIPPED_CARD, cards, recorded, short_table, table, updated


@pytest.mark.parametrize("card", [CARD, SHIPPED_CARD], ids=lambda path: path.name)
def test_the_table_is_that_of_the_recorded_figures(card: Path) -> None:
    """`python -m models.shapes.card` writes both."""
    assert cards(json.loads(RECORD.read_text())["figures"])[card] == card.read_text()


def test_a_measurement_is_recorded_and_shown_in_percent() -> None:
    row = {"pictures": 3.0, "ok": 2 / 3, "color": 1.0}
    record = recorded({"f16": {"all": row}, "q4_0": {"all": row | {"ok": 1 / 3}}}, "a device")
    assert record["figures"]["f16"]["all"] == {"pictures": 3, "ok": 66.7, "color": 100.0}
    card = updated("x\n<!-- accuracy -->\nold\n<!-- /accuracy -->\ny\n", table(record["figures"]))
    assert "| all | 3 | 66.7 | 33.3 |  | 100.0 |" in card
    assert "old" not in card
    assert (card[:2], card[-2:]) == ("x\n", "y\n")


def test_refuses_a_card_without_a_place_for_the_table() -> None:
    with pytest.raises(ValueError, match="has no <!-- accuracy -->"):
        updated("nothing here", "")


def test_the_short_table_has_a_column_for_each_kind() -> None:
    figures = json.loads(RECORD.read_text())["figures"]
    head, _, shipped, whole = short_table(figures).splitlines()
    assert head.count("|") == shipped.count("|") == len(figures["q4_0"]) + 2
    assert shipped.endswith(f"| {figures['q4_0']['all']['ok']:.1f} |")
    assert whole.strip().startswith(f"| f16 | {figures['f16']['single']['ok']:.1f} |")
