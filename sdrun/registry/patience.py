"""How long to go on trying: waits between attempts, and what a server asks for in Retry-After."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import sleep

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Patience:
    """`attempts` in all; waits double from `first` to `most` seconds; a server that asks for more than `longest` is not waited
    for. `wait` sleeps that many seconds; `say` hears of each wait."""

    attempts: int = 5
    first: float = 0.5
    most: float = 8.0
    longest: float = 60.0
    wait: Callable[[float], object] = field(default=sleep, compare=False)
    say: Callable[[str], None] = field(default=lambda text: None, compare=False)

    def seconds(self, failures: int, asked: float | None) -> float | None:
        """How long to wait after so many failures; None: no longer."""
        if failures >= self.attempts or (asked is not None and asked > self.longest):
            return None
        usual = min(self.most, self.first * 2.0 ** (failures - 1))
        return usual if asked is None else max(asked, usual)


ONCE = Patience(attempts=1)


def retry_after(headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds that Retry-After asks for, given in seconds or as a date (RFC 9110, 10.2.3). A date is read against the server's
    own Date: this machine's clock may be wrong. None where nothing, or nothing readable, is asked."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    moment = _date(text)
    if moment is None:
        return None
    here = _date(headers.get("date", "")) or now()
    return max(0.0, (moment - here).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
