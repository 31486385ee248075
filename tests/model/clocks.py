"""The wall clocks of the model: one for each host and one for the database server, which differ and are set.

Time itself is that of the virtual loop: monotonic clocks and sleeps follow it. On SQLite the daemon's host has the one
clock that counts. On PostgreSQL each replica is a host of its own, and the server's clock counts.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from syncd.mirror.db.shared_clock import DatabaseClock, HostClock, SharedClock
from tests.model.loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


class WallClock:
    """A wall clock: the loop's virtual time and an offset."""

    def __init__(self, loop: VirtualLoop, offset: float = 0.0) -> None:
        self._loop = loop
        self.offset = offset
        self.set_back = False
        """Whether it has ever been set to an earlier time."""

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.moment + self.offset)

    def monotonic(self) -> float:
        return self._loop.moment

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(seconds, 0.0))

    def step(self, seconds: float) -> None:
        """Set the clock, forward or back."""
        self.offset += seconds
        self.set_back = self.set_back or seconds < 0


class Clocks:
    """All wall clocks of a schedule.

    Parameters
    ----------
    alone : bool
        The daemons are on the host of their database, one at a time.
    skews : Sequence[float]
        Seconds by which the clock of each replica's host differs from the server's.
    """

    def __init__(self, loop: VirtualLoop, *, alone: bool, skews: Sequence[float]) -> None:
        self.server = WallClock(loop)
        """The clock by which the daemons must judge: that of the host, or of the database server."""
        self.hosts = [self.server for _ in skews] if alone else [WallClock(loop, skew) for skew in skews]
        self._alone = alone

    def of_daemon(self, number: int) -> SharedClock:
        """Return the shared clock as a daemon that starts on a host has it."""
        host = self.hosts[number]
        return HostClock(host) if self._alone else DatabaseClock(host, lambda _: self.server.now())
