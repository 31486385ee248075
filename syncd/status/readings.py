"""What the server knows at this moment, read at most once a second however many ask."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from syncd.errors import SyncdError
from syncd.mirror import measures
from syncd.mirror.measures import PassTotals, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from syncd.clock import Clock
    from syncd.mirror.database import Database
    from syncd.status.pulse import Pulse
    from syncd.status.wal import WalWatch

FRESH_SECONDS = 1.0
PATIENCE = 4.0
"""Seconds that an answer waits for the database; probes give up soon after."""


class NotReadError(SyncdError):
    """The database did not give a snapshot."""


@dataclass
class Readings:
    """The daemon's measures: a cached snapshot of the mirror, and what the daemon itself knows.

    Parameters
    ----------
    refused : Callable[[], bool]
        Whether Albert refuses the credentials.
    pass_interval : float
        Seconds between the starts of passes.
    """

    database: Database
    clock: Clock
    pulse: Pulse
    wal: WalWatch
    refused: Callable[[], bool]
    pass_interval: float
    totals: PassTotals = field(default_factory=PassTotals)
    _last: Snapshot | None = None
    _read_at: float = float("-inf")
    _reading: asyncio.Task[Snapshot] | None = None

    async def latest(self) -> Snapshot:
        """Return a snapshot that is a second old at most.

        Raises
        ------
        NotReadError
            The database cannot be read, its schema is not at head, or it takes too long.
        """
        if self._last is not None and self.clock.monotonic() - self._read_at < FRESH_SECONDS:
            return self._last
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            # its error is for whoever still waits; when all have gone, for nobody
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        reading = self._reading
        # not awaited itself: whoever asks may leave, the read goes on for the others
        await asyncio.wait({reading}, timeout=PATIENCE)
        if not reading.done():
            raise NotReadError("the database does not answer in time")
        try:
            return reading.result()
        except SyncdError as error:
            raise NotReadError(str(error)) from error
        except Exception as error:  # a bug, or a database in a state that nobody foresaw: not ready
            raise NotReadError(f"the database cannot be read ({type(error).__name__})") from error

    async def aclose(self) -> None:
        """Wait for a read that is under way."""
        if self._reading is not None:
            with suppress(Exception):
                await self._reading

    async def _read(self) -> Snapshot:
        now = self.clock.now()
        self._last = await self.database.read(lambda connection: measures.snapshot(connection, self.totals, now))
        self._read_at = self.clock.monotonic()
        return self._last

    def wal_bytes(self) -> int | None:
        """Return the size of the write-ahead log; None where there is none."""
        return measures.wal_bytes(self.database)
