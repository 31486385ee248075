"""Upkeep of the queue while it runs: the corrections that neither a claim nor a trigger makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from syncd.mirror.store import operations

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.operation import Blocked


@dataclass
class Upkeep:
    """Corrects waits after a step of the clock, and blockers that are not true any more."""

    database: Database
    _after: Blocked | None = field(default=None, init=False)
    """The blocked operation that was looked at last."""

    async def rebase(self) -> int:
        """Shorten waits and leases that were written before the shared clock was set back; return how many."""

        def work(connection: Connection) -> int:
            return operations.rebase(connection, now=self.database.now(connection))

        total = 0
        while changed := await self.database.write(work):
            total += changed
        return total

    async def recheck(self) -> int:
        """Correct the blockers of the next few blocked operations; return how many were not true any more."""
        blocked = await self.database.read(partial(operations.recheck, after=self._after))
        self._after = blocked[-1] if blocked else None
        if all(operation.current == operation.before for operation in blocked):
            return 0
        return await self.database.write(partial(operations.unblock, blocked=blocked))

    async def recheck_all(self) -> int:
        """Correct the blockers of all blocked operations; return how many were not true any more."""
        self._after, total = None, 0
        while True:
            total += await self.recheck()
            if self._after is None:
                return total
