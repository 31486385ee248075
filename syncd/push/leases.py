"""How long a claim may be used, and the task that renews the claims of the operations in flight.

`flow` runs `Leases`; `attempt` calls `renew` before a request that changes Albert.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from syncd.mirror.store import operations
from syncd.mirror.store.operations import CONFIRMED_FOR

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.operation import Abandoned, Operation
    from syncd.push.attempt import Attempt
    from syncd.push.upkeep import Upkeep
    from syncd.records.ids import OperationId

RENEWALS_PER_RECHECK = 3
"""A few blockers are rechecked once in this many renewals: about once in the length of a lease."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The time for which a claim is valid, by the shared clock and by the monotonic clock of its holder.

    Either clock ends it. The shared clock may be set back, and the monotonic clock does not count a suspended machine.
    If the shared clock is set forward, another replica may take the operation while the holder still regards its lease
    as valid. So the holder confirms the claim in the database before it sends a request that changes Albert, unless it
    did so less than `CONFIRMED_FOR` seconds ago. `operations.recover` counts with these seconds.

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

    def has_ended(self, clock: Clock) -> bool:
        """Return whether another daemon may hold the operation."""
        return clock.now() >= self.until or clock.monotonic() - self.began_at >= self.seconds

    def is_confirmed(self, clock: Clock) -> bool:
        """Return whether the claim was written so recently that a request may be sent without reading it again."""
        return clock.monotonic() - self.began_at < CONFIRMED_FOR


async def renew(
    database: Database, clock: Clock, held: Sequence[Operation], seconds: float
) -> dict[OperationId, Lease]:
    """Renew the leases of claimed operations; return the new leases of those that are still held."""

    def work(connection: Connection) -> dict[OperationId, Lease]:
        monotonic = clock.monotonic()
        now = database.now(connection)
        renewed = operations.renew(connection, held, now=now, lease=seconds)
        return dict.fromkeys(renewed, Lease.begin(seconds, now=now, monotonic=monotonic))

    return await database.write(work)


@dataclass(kw_only=True)
class Leases:
    """The leases of one process.

    Attributes
    ----------
    seconds : float
        How long a lease is.
    every : float
        Seconds between two renewals. A wait that a step of the clock made longer is corrected then.
    in_flight : dict[OperationId, Attempt]
        The attempts whose leases are held; `flow` adds and removes them.
    on_change : Callable[[], None]
        Called when operations became due that were not.
    """

    database: Database
    clock: Clock
    log: FilteringBoundLogger
    seconds: float
    every: float
    in_flight: dict[OperationId, Attempt]
    upkeep: Upkeep
    on_change: Callable[[], None]

    async def hold(self) -> None:
        """Renew the leases long before they end, until it is cancelled."""
        for turn in itertools.count(1):
            await self.clock.sleep(self.every)
            await self.renew()
            await self.recover(abandoned=False)
            if turn % RENEWALS_PER_RECHECK == 0 and await self.upkeep.recheck():
                self.on_change()

    async def renew(self) -> None:
        """Renew all leases. An attempt whose claim was lost sends nothing more."""
        attempts = list(self.in_flight.values())
        if not attempts:
            return
        renewed = await renew(self.database, self.clock, [attempt.operation for attempt in attempts], self.seconds)
        for attempt in attempts:
            attempt.lease = renewed.get(attempt.operation.id)

    async def recover(self, *, abandoned: bool) -> None:
        """Make operations whose holder is gone `unknown`, and correct waits after a step of the clock.

        Parameters
        ----------
        abandoned : bool
            No other daemon exists, so that every claim in the database is without a holder.
        """

        def work(connection: Connection) -> list[Abandoned]:
            return operations.recover(connection, now=self.database.now(connection), abandoned=abandoned)

        recovered = await self.database.write(work)
        for operation in recovered:
            self.log.warning(
                "operation.unknown",
                operation_id=operation.id,
                source_session_id=operation.source_session_id,
                error="its daemon stopped before the answer arrived",
            )
        if await self.upkeep.rebase() or recovered:
            self.on_change()
