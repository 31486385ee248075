"""The one clock by which all daemons of a database judge leases, due times, settle times and graces.

On SQLite there is one daemon, and the clock is that of its host. On PostgreSQL it is the server's clock: the clocks of
replicas differ, so a time that one replica wrote must not be compared with the clock of another one. Between two
readings the server's time is the last reading and the monotonic time since. `Database.clock` is the shared clock, and
`Database.now` reads it inside a transaction.

A wall clock can be set, so that two of its times differ by more or less than the moments do. `SharedClock.span` is the
largest difference between the times of two moments that are a number of seconds apart, and `set_back` says by how much
a time of the last seconds can be in the future.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from syncd.clock import Clock, read_utc_text
from syncd.mirror.db.dialects import by_dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection


STEP = 0.05
"""Seconds of a step that is recorded: less than a twentieth of any settle time, and more than readings differ by."""
WRITTEN_AFTER = 60.0
"""Seconds for which an answer may wait until it is written: the mirror compares it with its rows only then."""
LONGEST = 100_000.0
"""Seconds for which steps are remembered: longer than a day, the longest grace in use."""

MOST_STEPS = 500
"""Steps that are kept one by one. If there are more, the older half is reduced to its smallest and largest lead."""


@dataclass
class Steps:
    """How far a wall clock was set lately, measured by a monotonic clock of the same process.

    Transactions in threads note readings too. They replace the tuple; a reading that is lost that way is noted again.
    """

    _ahead: tuple[tuple[float, float], ...] = ()
    """From which monotonic second on the wall clock was ahead of it by how much, within `STEP`."""

    def note(self, wall: datetime, monotonic: float) -> None:
        """Note a reading of both clocks."""
        ahead, noted = wall.timestamp() - monotonic, self._ahead
        if noted and abs(ahead - noted[-1][1]) <= STEP:
            return
        kept = [*noted, (monotonic, ahead)]
        while len(kept) > 1 and kept[1][0] < monotonic - LONGEST:
            del kept[0]
        if len(kept) > MOST_STEPS:
            oldest, kept = kept[: MOST_STEPS // 2], kept[MOST_STEPS // 2 :]
            leads = [lead for _, lead in oldest]
            kept[:0] = [(oldest[-1][0], min(leads)), (oldest[-1][0], max(leads))]
        self._ahead = tuple(kept)

    def note_step(self, seconds: float) -> None:
        """Note that the clock was set, forward or back, before the first reading, at an unknown moment."""
        noted = self._ahead
        if noted and abs(seconds) > STEP:
            self._ahead = ((float("-inf"), noted[0][1] - seconds), *noted)

    def forward(self, monotonic: float, seconds: float) -> float:
        """Return by how much the clock is further ahead than it was at some time in the last seconds."""
        during = self._during(monotonic - seconds)
        return during[-1] - min(during) if during else 0.0

    def back(self, monotonic: float, seconds: float) -> float:
        """Return by how much the clock is less far ahead than it was at some time in the last seconds."""
        during = self._during(monotonic - seconds)
        return max(during) - during[-1] if during else 0.0

    def _during(self, begin: float) -> list[float]:
        """Return how far the clock was ahead from a monotonic second on until now."""
        noted = self._ahead
        later = [number for number, (since, _) in enumerate(noted) if since > begin]
        first = max((later[0] if later else len(noted)) - 1, 0)
        return [ahead for _, ahead in noted[first:]]


class SharedClock(Clock, Protocol):
    """A clock that can be read inside a transaction."""

    def span(self, seconds: float) -> float:
        """Return the seconds by which this clock may have advanced during the last real seconds.

        They are more than `seconds` if the clock was set forward meanwhile, as far as this process has seen it.
        """
        ...

    def set_back(self, seconds: float) -> float:
        """Return the seconds by which this clock was set back in the last real seconds, 0.0 if it was not."""
        ...

    def note_step(self, seconds: float) -> None:
        """Note that the clock was set by some seconds, forward or back, before this process read it first."""
        ...

    def read(self, connection: Connection) -> datetime:
        """Return the current time, aware, in UTC; the caller is in a transaction of the connection."""
        ...


class HostClock:
    """The clock of the host, which is the shared clock where one daemon is alone."""

    def __init__(self, host: Clock) -> None:
        self._host = host
        self._steps = Steps()

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        now = self._host.now()
        self._steps.note(now, self._host.monotonic())
        return now

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._host.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        await self._host.sleep(seconds)

    def read(self, _connection: Connection) -> datetime:
        """Return the current time, aware, in UTC."""
        return self.now()

    def span(self, seconds: float) -> float:
        """Return the seconds by which this clock may have advanced during the last real seconds."""
        self.now()  # a HostClock notes a step here; a DatabaseClock notes it in `read`
        return seconds + self._steps.forward(self.monotonic(), seconds + WRITTEN_AFTER)

    def set_back(self, seconds: float) -> float:
        """Return the seconds by which this clock was set back in the last real seconds, 0.0 if it was not."""
        self.now()  # as in `span`
        return self._steps.back(self.monotonic(), seconds)

    def note_step(self, seconds: float) -> None:
        """Note that the clock was set by some seconds, forward or back, before this process read it first."""
        self._steps.note_step(seconds)


class DatabaseClock(HostClock):
    """The clock of the database server, read in transactions and continued by the host's monotonic clock.

    Parameters
    ----------
    host : Clock
        Its wall clock is used until the first reading, and never after it.
    source : Callable[[Connection], datetime]
        Reads the server's clock.
    """

    def __init__(self, host: Clock, source: Callable[[Connection], datetime]) -> None:
        super().__init__(host)
        self._source = source
        self._reading: datetime | None = None
        self._read_at = 0.0

    def now(self) -> datetime:
        """Return the last reading plus the monotonic time since. Only `read` notes steps of the server's clock."""
        if self._reading is None:
            return self._host.now()
        return self._reading + timedelta(seconds=self.monotonic() - self._read_at)

    def read(self, connection: Connection) -> datetime:
        """Read the server's clock, and continue from the reading."""
        before = self.monotonic()
        reading = self._source(connection)
        self._reading, self._read_at = reading, (before + self.monotonic()) / 2
        self._steps.note(reading, self._read_at)
        return reading


def _read_server_clock(connection: Connection) -> datetime:
    """Read PostgreSQL's clock: the real time, not that of the beginning of the transaction."""
    return read_utc_text(connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one())


def _read_host_clock(_connection: Connection) -> datetime:
    """Read the clock of the host, on which SQLite's file and its daemon are."""
    return datetime.now(UTC)


read_clock = by_dialect(sqlite=_read_host_clock, postgresql=_read_server_clock)
"""Returns the time by the shared clock, for a command that is in a transaction and has no `Database` at hand."""
