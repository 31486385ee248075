"""Whether the loops make progress. Each sends heartbeats, and one whose heartbeat is overdue counts as stalled.

A heartbeat can contain the seconds that the loop will wait, such as for its next pass or a Retry-After. No loop counts
as stalled while a database that another program holds, or room on the disk, is waited for. A request to Albert ends
within its timeout, and is progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from syncd.clock import Clock


@dataclass
class Watchdog:
    """The loops and the moments by which each must send a heartbeat.

    Parameters
    ----------
    clock : Clock
        Its `monotonic` counts.
    slack : float
        Seconds that a loop may work without a heartbeat: longer than any one request or transaction takes.
    suspended : Callable[[], bool]
        Whether no heartbeat is expected now, because the database is waited for.
    """

    clock: Clock
    slack: float
    suspended: Callable[[], bool] = bool
    _due_at: dict[str, float] = field(default_factory=dict)
    _waits: dict[str, list[float]] = field(default_factory=dict)
    """The ends of the waits of each loop, with the slack."""

    def heartbeat(self, loop: str, waits: float = 0.0) -> None:
        """Note progress of a loop, which may now wait for some seconds."""
        self._due_at[loop] = self.clock.monotonic() + waits + self.slack

    @contextmanager
    def waiting(self, loop: str, seconds: float) -> Iterator[None]:
        """Let a loop wait for some seconds, whatever heartbeats its other tasks send meanwhile."""
        self.heartbeat(loop, seconds)
        waits, until = self._waits.setdefault(loop, []), self._due_at[loop]
        waits.append(until)
        try:
            yield
        finally:
            waits.remove(until)

    def end(self, loop: str) -> None:
        """Remove a loop that has ended as it should."""
        self._due_at.pop(loop, None)

    def stalled(self) -> list[str]:
        """Return the loops that are overdue."""
        now = self.clock.monotonic()
        overdue = sorted(loop for loop, until in self._due_at.items() if now > max((until, *self._waits.get(loop, ()))))
        if overdue and self.suspended():
            for loop in overdue:
                self.heartbeat(loop)
            return []
        return overdue


@dataclass(frozen=True)
class HeartbeatClock:
    """A clock for one loop: `now` and `sleep` send heartbeats."""

    clock: Clock
    watchdog: Watchdog
    loop: str

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        self.watchdog.heartbeat(self.loop)
        return self.clock.now()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds, with heartbeats."""
        with self.watchdog.waiting(self.loop, seconds):
            await self.clock.sleep(seconds)
        self.watchdog.heartbeat(self.loop)
