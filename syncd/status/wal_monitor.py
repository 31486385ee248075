"""Warns once if SQLite cannot reuse its write-ahead log, and the log grows, because a reader never ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.mirror.db.database import Database
    from syncd.status.watchdog import Watchdog

THRESHOLD = 64 * 1024 * 1024
"""Bytes; the log is checkpointed at 4 MB, and a large transaction of syncd's own stays far below this."""
LONGEST_GROWTH = 60.0
"""Seconds that the log must have been above the threshold, and have gone on growing."""
HUGE = 4
"""Times the threshold; a log of that size that still grows is reported immediately."""
LOOK_SECONDS = 15.0


@dataclass(kw_only=True)
class WalWatch:
    """Checks the size of the log four times a minute. It writes nothing and takes no lock.

    SQLite does not report how old the oldest reader is. It is at least as old as the growth that it causes: that is
    `growing_seconds`.
    """

    database: Database
    clock: Clock
    log: FilteringBoundLogger
    threshold: int = THRESHOLD
    _above_since: float | None = None
    _size_then: int = 0
    _size: int = 0
    _warned: bool = False

    async def run(self, watchdog: Watchdog) -> None:
        """Check the log forever."""
        while True:
            self.look()
            watchdog.heartbeat("wal", LOOK_SECONDS)
            await self.clock.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Check once, and warn when a reader has kept the log growing for too long."""
        size = self.database.store.wal_bytes() or 0
        if size < max(self.threshold, self._size_then):  # it was reset since, or never was large
            if self._warned:
                self.log.info("database.wal_shrunk", wal_bytes=size)
            self._above_since, self._warned = None, False
        if size >= self.threshold and self._above_since is None:
            self._above_since, self._size_then = self.clock.monotonic(), size
        elif size < self.threshold:
            self._size_then = 0
        self._size = size
        longest = LONGEST_GROWTH if size < HUGE * self.threshold else LOOK_SECONDS
        if not self._warned and self.growing_seconds() >= longest:
            self._warned = True
            self.log.warning(
                "database.wal_growing",
                wal_bytes=size,
                seconds=round(self.growing_seconds()),
                hint="a program has been reading for all that time and keeps the log from being reused; end its "
                "transaction, or let it read a copy: syncd backup FILE",
            )

    def growing_seconds(self) -> float:
        """Return for how long the log has been growing above the threshold; 0 when it does not."""
        if self._above_since is None or self._size <= self._size_then:
            return 0.0
        return self.clock.monotonic() - self._above_since
