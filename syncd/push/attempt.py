"""One attempt at a claimed operation: what it needs, and the checks before a request that changes Albert.

`flow` creates attempts, `runner` runs them, `kinds` sends their requests. The database is only read during an attempt,
except for the id of the session that an operation by source id was found to mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from syncd.albert.paths import segment
from syncd.mirror.store import operations
from syncd.mirror.store.operations import LeaseLostError, Operation
from syncd.push.outcomes import Outcome, Retry, RetryReason, Unknown, UnknownReason

if TYPE_CHECKING:
    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.lookups import Lookups
    from syncd.mirror.db.database import Database
    from syncd.push.evidence import Recency


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a claim is good, by both clocks of this process: the first that passes its limit ends it.

    The monotonic clock is right when the wall clock steps back. The wall clock is right when the machine was suspended.
    """

    until: datetime
    deadline: float

    @classmethod
    def begin(cls, clock: Clock, seconds: float) -> Self:
        """Begin a lease. Call it before the claim is committed, so that it never ends too late."""
        return cls(clock.now() + timedelta(seconds=seconds), clock.monotonic() + seconds)

    def has_ended(self, clock: Clock) -> bool:
        """Whether another daemon may hold the operation by now."""
        return clock.monotonic() >= self.deadline or clock.now() >= self.until


@dataclass(kw_only=True)
class Attempt:
    """A claimed operation in flight.

    Attributes
    ----------
    lease : Lease | None
        How long the claim is good; None when it was lost.
    sent : bool
        A create was sent and its answer is not known.
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
    awaiting_commit: bool = field(default=False)

    def before_change(self) -> None:
        """Check, right before a request that changes Albert, that the claim is still good and still in the database.

        Raises
        ------
        LeaseLostError
            The lease has ended: another daemon may hold the operation.
        DatabaseReplacedError
            The database with the claim has been replaced or removed.
        """
        if self.lease is None or self.lease.has_ended(self.clock):
            raise LeaseLostError(f"the lease of operation {self.operation.id} ended before its request was sent")
        self.database.check_identity()

    async def keep_target(self, session_id: str) -> None:
        """Store the session that an operation by source id means, so that later attempts mean the same one.

        Raises
        ------
        InvalidIdError
            The id cannot be sent in a request.
        LeaseLostError
            The claim is not good any more.
        """
        segment(session_id)
        await self.database.write(lambda c: operations.write(c, self.operation, target_session_id=session_id))

    def interrupted(self) -> Outcome:
        """Return the outcome of an attempt that is cancelled at this moment."""
        if self.sent:
            return Unknown(UnknownReason.STOPPED, "the daemon stopped before the answer arrived")
        return Retry(RetryReason.RETURNED, "the daemon stopped during the attempt")
