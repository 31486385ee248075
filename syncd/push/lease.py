"""How long a claim may be used: a rule on two clocks, for the holder of the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from syncd.mirror.store import operations
from syncd.mirror.store.operations import CONFIRMED_FOR

if TYPE_CHECKING:
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.operation import Operation, OperationId


@dataclass(frozen=True, slots=True)
class Lease:
    """The time for which a claim is valid, by the shared clock and by the monotonic clock of its holder.

    Either clock ends it. The shared clock may be set back, and the monotonic clock does not count a suspended machine.
    If the shared clock is set forward, another replica may take the operation while the holder believes in its lease.
    So the holder confirms the claim in the database before it sends a request that changes Albert, unless it did so
    less than `CONFIRMED_FOR` seconds ago. `operations.recover` counts with these seconds.

    Parameters
    ----------
    seconds : float
        The length of the lease.
    until : datetime
        Its end by the shared clock.
    began_at : float
        The monotonic clock before the claim, or its renewal, was written.
    """

    seconds: float
    until: datetime
    began_at: float

    @classmethod
    def begin(cls, seconds: float, *, now: datetime, monotonic: float) -> Self:
        """Return the lease of a claim that is written at `now`, a reading that is not before `monotonic`."""
        return cls(seconds, now + timedelta(seconds=seconds), monotonic)

    def is_over(self, clock: Clock) -> bool:
        """Return whether another daemon may hold the operation."""
        return clock.now() >= self.until or clock.monotonic() - self.began_at >= self.seconds

    def is_confirmed(self, clock: Clock) -> bool:
        """Return whether the claim was written so lately that a request may be sent without another look."""
        return clock.monotonic() - self.began_at < CONFIRMED_FOR


async def renew(
    database: Database, clock: Clock, held: Sequence[Operation], seconds: float
) -> dict[OperationId, Lease]:
    """Prolong the leases of claimed operations; return the new leases of those that are still held."""

    def work(connection: Connection) -> dict[OperationId, Lease]:
        monotonic = clock.monotonic()
        now = database.now(connection)
        kept = operations.renew(connection, held, now=now, lease=seconds)
        return dict.fromkeys(kept, Lease.begin(seconds, now=now, monotonic=monotonic))

    return await database.write(work)
