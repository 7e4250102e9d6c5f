"""When the market is open."""

from dataclasses import dataclass
from datetime import datetime, time
from typing import Final
from zoneinfo import ZoneInfo

EVERY_DAY: Final = frozenset(range(7))
MIDNIGHT: Final = time(0)


@dataclass(frozen=True, slots=True)
class Market:
    """Trading hours: open while ``opens_at <= local time < closes_at`` on one of ``days``.

    ``days`` are weekdays with Monday as 0. ``closes_at`` 00:00 means the end of the day, so
    00:00-00:00 is a market that never closes. Source: the challenge's rule "closed market"
    (06:00-15:00 in Mexico City).
    """

    opens_at: time = time(6)
    closes_at: time = time(15)
    zone: ZoneInfo = ZoneInfo("America/Mexico_City")
    days: frozenset[int] = EVERY_DAY

    def __post_init__(self) -> None:
        """Refuse hours that no instant could meet."""
        if self.opens_at.tzinfo or self.closes_at.tzinfo:
            raise ValueError("market hours are local times of its zone, without an offset")
        if self.closes_at != MIDNIGHT and self.opens_at >= self.closes_at:
            raise ValueError(f"market opens at {self.opens_at} but closes at {self.closes_at}")
        if not self.days or not self.days <= EVERY_DAY:
            raise ValueError("market days are weekdays 0 (Monday) to 6 (Sunday), at least one")

    def is_open(self, instant: datetime) -> bool:
        """Tell whether the market is open at ``instant`` (aware)."""
        try:
            local = instant.astimezone(self.zone)
        except OverflowError:  # the calendar's first or last day: no local time to trade at
            return False
        if local.weekday() not in self.days:
            return False
        clock = local.time()
        if clock < self.opens_at:
            return False
        return self.closes_at == MIDNIGHT or clock < self.closes_at

    def __str__(self) -> str:
        """Write the hours in one line, as they are recorded beside each decision."""
        days = "".join(str(day) for day in sorted(self.days))
        return f"{self.opens_at.isoformat()}-{self.closes_at.isoformat()} {self.zone.key} {days}"


def parse_market(text: str) -> Market:
    """Read what ``str(market)`` wrote.

    Raises:
        ValueError: ``text`` has another shape.
    """
    hours, zone, days = text.split(" ")
    opens_at, closes_at = hours.split("-")
    return Market(
        opens_at=time.fromisoformat(opens_at),
        closes_at=time.fromisoformat(closes_at),
        zone=ZoneInfo(zone),
        days=frozenset(int(day) for day in days),
    )


ALWAYS_OPEN: Final = Market(opens_at=MIDNIGHT, closes_at=MIDNIGHT)
