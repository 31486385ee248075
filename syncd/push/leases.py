"""Holds the leases of the operations in flight, and finds operations whose holder is gone. `flow` runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.mirror.store import operations
from syncd.push.attempt import Attempt, Lease

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database


@dataclass(kw_only=True)
class Leases:
    """The leases of one process.

    Attributes
    ----------
    seconds : float
        How long a lease is.
    in_flight : dict[int, Attempt]
        The attempts whose leases are held; `flow` adds and removes them.
    on_recovered : Callable[[], None]
        Called when there is something to look up.
    """

    database: Database
    clock: Clock
    log: FilteringBoundLogger
    seconds: float
    in_flight: dict[int, Attempt]
    on_recovered: Callable[[], None]

    async def hold(self) -> None:
        """Renew the leases long before they end, until it is cancelled."""
        while True:
            await self.clock.sleep(self.seconds / 3)
            await self.renew()
            await self.recover(abandoned=False)

    async def renew(self) -> None:
        """Renew all leases. An attempt whose claim was lost sends nothing more."""
        attempts = list(self.in_flight.values())
        if not attempts:
            return

        def work(connection: Connection) -> tuple[Lease, set[int]]:
            lease = Lease.begin(self.clock, self.seconds)
            held = [attempt.operation for attempt in attempts]
            return lease, operations.renew(connection, held, until=lease.until)

        lease, held = await self.database.write(work)
        for attempt in attempts:
            attempt.lease = lease if attempt.operation.id in held else None

    async def recover(self, *, abandoned: bool) -> None:
        """Make operations whose holder is gone `unknown`.

        Parameters
        ----------
        abandoned : bool
            No other daemon exists, so that every claim in the database is without a holder.
        """

        def work(connection: Connection) -> list[tuple[int, str | None]]:
            return operations.recover(connection, now=self.clock.now(), abandoned=abandoned)

        recovered = await self.database.write(work)
        for operation_id, source_id in recovered:
            self.log.warning(
                "operation.unknown",
                operation_id=operation_id,
                source_session_id=source_id,
                error="its daemon stopped before the answer arrived",
            )
        if recovered:
            self.on_recovered()
