"""The one clock by which all daemons of a database judge leases, due times, settle times and graces.

On SQLite there is one daemon, and the clock is that of its host. On PostgreSQL it is the server's clock: the clocks of
replicas differ, so a time that one replica wrote must not be compared with the clock of another one. Between two
readings the server's time is the last reading and the monotonic time since. `Database.clock` is the shared clock, and
`Database.now` reads it inside a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from syncd.clock import Clock, read_utc_text
from syncd.mirror.db.dialects import by_dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection


class SharedClock(Clock, Protocol):
    """A clock that can be read inside a transaction."""

    def read(self, connection: Connection) -> datetime:
        """Return the current time, aware, in UTC; the caller is in a transaction of the connection."""
        ...


class HostClock:
    """The clock of the host, which is the shared clock where one daemon is alone."""

    def __init__(self, host: Clock) -> None:
        self._host = host

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return self._host.now()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._host.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        await self._host.sleep(seconds)

    def read(self, _connection: Connection) -> datetime:
        """Return the current time, aware, in UTC."""
        return self._host.now()


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
        """Return the last reading plus the monotonic time since."""
        if self._reading is None:
            return super().now()
        return self._reading + timedelta(seconds=self.monotonic() - self._read_at)

    def read(self, connection: Connection) -> datetime:
        """Read the server's clock, and continue from the reading."""
        before = self.monotonic()
        reading = self._source(connection)
        self._reading, self._read_at = reading, (before + self.monotonic()) / 2
        return reading


def _read_server_clock(connection: Connection) -> datetime:
    """Read PostgreSQL's clock: the real time, not that of the beginning of the transaction."""
    return read_utc_text(connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one())


def _read_host_clock(_connection: Connection) -> datetime:
    """Read the clock of the host, on which SQLite's file and its daemon are."""
    return datetime.now(UTC)


read_clock = by_dialect(sqlite=_read_host_clock, postgresql=_read_server_clock)
"""Returns the time by the shared clock, for a command that is in a transaction and has no `Database` at hand."""
