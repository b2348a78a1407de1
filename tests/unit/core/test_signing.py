"""Which signatures count."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from sdrun.core.signing import SignaturePolicy, at_midnight, moment_text, parse_moment

MAY = datetime(2026, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-06", MAY),
        ("2026-05-06T00:00:00Z", MAY),
        ("2026-05-06T02:00:00+02:00", MAY),
        ("2026-05-06T00:00:00", MAY),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment
    assert moment_text(moment) == "2026-05-06T00:00:00Z"
    assert at_midnight(date(2026, 5, 6)) == MAY


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "06.05.2026"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="must be a date"):
        parse_moment(text)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"key": "k", "identity": "i", "issuer": "o"},
        {"identity": "i"},
        {"key": "k", "issuer": "o"},
    ],
)
def test_policies_that_cannot_be(words: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must name"):
        SignaturePolicy(**words)  # type: ignore[arg-type]


def test_a_date_withdraws_what_was_signed_before() -> None:
    assert SignaturePolicy(key="k").too_old(None) is None
    policy = SignaturePolicy(identity="i", issuer="o", not_before=MAY)
    assert policy.too_old(MAY) is None
    assert "before 2026-05-06" in str(policy.too_old(datetime(2026, 5, 5, 23, 59, 59, tzinfo=UTC)))
    assert "does not say when" in str(policy.too_old(None))
