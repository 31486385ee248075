"""One attempt at a claimed operation: what it needs, and the checks before a request that changes Albert.

`flow` creates attempts, `runner` runs them, `kinds` sends their requests. The database is only read during an attempt,
except for its lease, and for the id of the session that an operation by source id was found to mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from syncd.mirror.store import operations
from syncd.mirror.store.operation import LeaseLostError, Operation
from syncd.push import leases
from syncd.push.outcomes import Effect, Outcome, Retry, RetryReason, Unknown, UnknownReason

if TYPE_CHECKING:
    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.lookups import Lookups
    from syncd.mirror.db.database import Database
    from syncd.push.leases import Lease
    from syncd.push.settling import Recency
    from syncd.records.ids import SessionId


@dataclass(kw_only=True)
class Attempt:
    """A claimed operation in flight.

    Attributes
    ----------
    lease : Lease | None
        How long the claim is valid; None when it was lost.
    sent : bool
        A create was sent and its answer is not known.
    delete_sent : bool
        A delete was sent and its answer is not known.
    created : Effect | None
        The session that a create made, although with another source id than requested.
    awaiting_commit : bool
        All requests are done, and only the outcome has to be committed.
    """

    operation: Operation
    albert: ChatSessionCollection
    lookups: Lookups
    database: Database
    clock: Clock
    recency: Recency
    lease: Lease | None
    sent: bool = field(default=False)
    delete_sent: bool = field(default=False)
    created: Effect | None = field(default=None)
    awaiting_commit: bool = field(default=False)

    async def before_change(self) -> None:
        """Check, right before a request that changes Albert, that the claim is valid and still in the database.

        Raises
        ------
        LeaseLostError
            The lease has ended, or another daemon or an operator has taken the operation.
        DatabaseUnusableError
            The lease cannot be renewed, or the database with the claim has been replaced or removed.
        """
        if self.lease is not None and not self.lease.has_ended(self.clock) and not self.lease.is_confirmed(self.clock):
            renewed = await leases.renew(self.database, self.clock, [self.operation], self.lease.seconds)
            self.lease = renewed.get(self.operation.id)
            if self.lease is None:
                raise LeaseLostError(f"the claim of operation {self.operation.id} was lost before its request was sent")
        if self.lease is None or self.lease.has_ended(self.clock):
            raise LeaseLostError(f"the lease of operation {self.operation.id} ended before its request was sent")
        self.database.check_identity()

    async def keep_target(self, session_id: SessionId) -> None:
        """Store the session that an operation by source id means, so that later attempts mean the same one.

        Raises
        ------
        LeaseLostError
            The claim is not valid any more.
        DatabaseUnusableError
            The id cannot be written.
        """
        await self.database.write(lambda c: operations.write(c, self.operation, target_session_id=session_id))

    def interrupted(self) -> Outcome:
        """Return the outcome of an attempt that is cancelled at this moment."""
        if self.created is not None:
            text = "the daemon stopped before Albert found the session under the requested source id"
            return Unknown(UnknownReason.OTHER_SOURCE, text, effect=self.created)
        if self.sent:
            return Unknown(UnknownReason.STOPPED, "the daemon stopped before the answer arrived")
        return Retry(RetryReason.RETURNED, "the daemon stopped during the attempt", may_be_deleted=self.delete_sent)
