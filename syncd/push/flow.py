"""The push flow: applies queued operations to Albert. `app` creates it, the daemon and `once` run it.

::

    claim (durable) ──► attempt: look up, send one request ──► record: effect on the mirror and final state,
      lease, fence        `runner`, `kinds`, `targets`           in one transaction, by the holder of the fence

`Push` keeps operations in flight, as many as it may, and claims more when slots become free. `leases` renews the
claims. `brake` decides how many operations may run, and when the queue rests.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from syncd.aio import AutoResetEvent, task_group
from syncd.clock import machine_boot
from syncd.mirror.store import operations, passes
from syncd.mirror.store.operation import Claimed, Operation
from syncd.push.attempt import Attempt
from syncd.push.brake import Brake
from syncd.push.leases import Lease, Leases
from syncd.push.probe import Probe
from syncd.push.record import RetryPolicy
from syncd.push.runner import Runner
from syncd.push.settling import Recency
from syncd.push.upkeep import Upkeep

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.lookups import Lookups
    from syncd.mirror.db.database import Connection, Database
    from syncd.records.ids import OperationId
    from syncd.tenant import TenantCheck

NEVER = datetime.min.replace(tzinfo=UTC)
"""Before every time at which an operation may be due."""
AHEAD = 4
"""One of this many operations is claimed ahead of its turn, so that no slot waits for the commit of a claim."""
SHORTEST_RENEWAL = 1.0
"""Seconds; the shortest time between two renewals of all leases."""
SHORTEST_IDLE = 0.005
"""Seconds; the shortest time between two claims when the last one found nothing."""
IN_DOUBT_SECONDS = 1.0
"""Seconds between two checks whether Albert is the mirror's tenant."""


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """How the queue is worked; `lease` is in seconds."""

    concurrency: int
    lease: float
    retry_policy: RetryPolicy


@dataclass(kw_only=True)
class Push:
    """The flow of operations: `run` until `stop`, or `drain` what is due.

    Parameters
    ----------
    wake_up : AutoResetEvent
        Set when the queue may contain something new.
    jitter : Callable[[], float]
        Draws a number from 0 to 1 for each wait.
    owner : str
        The name of this process in its claims.
    machine : str
        Names the machine whose monotonic clock `clock` reads: see `clock.machine_boot`.
    known_tenant : TenantCheck | None
        Whether Albert is known to be the tenant that the database mirrors; None if that is not asked.
    """

    database: Database
    lookups: Lookups
    clock: Clock
    log: FilteringBoundLogger
    settings: PushSettings
    wake_up: AutoResetEvent = field(default_factory=AutoResetEvent)
    jitter: Callable[[], float] = field(default=random.random)
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    machine: str = field(default_factory=machine_boot)
    known_tenant: TenantCheck | None = None
    _in_flight: dict[OperationId, Attempt] = field(default_factory=dict, init=False)
    _claimed_at: datetime = field(default=NEVER, init=False)
    _more_due: bool = field(default=False, init=False)
    """Whether the last claim may have left operations that are due."""
    _turn: int = field(default=0, init=False)
    _stopping: bool = field(default=False, init=False)
    _in_doubt: bool = field(default=False, init=False)
    """Whether nothing was claimed because Albert may be another tenant."""

    def __post_init__(self) -> None:
        policy = self.settings.retry_policy
        self._brake = Brake(backoff=policy.backoff, clock=self.clock, log=self.log)
        self._recency = Recency(self.clock, policy.settle)
        self._upkeep = Upkeep(self.database)
        self._leases = Leases(
            database=self.database, clock=self.clock, log=self.log, seconds=self.settings.lease,
            every=min(self.settings.lease / 3, max(policy.backoff.longest, SHORTEST_RENEWAL)),
            in_flight=self._in_flight, upkeep=self._upkeep, on_change=self._wake,
        )  # fmt: skip
        self._runner = Runner(
            database=self.database, clock=self.clock, log=self.log, retry_policy=policy,
            concurrency=self.settings.concurrency, jitter=self.jitter, brake=self._brake,
            probe=Probe(albert=self.lookups.albert, clock=self.clock), machine=self.machine,
            may_send=self._may_send, on_room=self._wake,
        )  # fmt: skip

    @property
    def refused(self) -> str | None:
        """Why the queue is paused while Albert refuses the credentials; None while it accepts them."""
        return self._brake.refused

    @property
    def in_doubt(self) -> bool:
        """Whether operations wait until Albert is known to be the mirror's tenant."""
        return self._in_doubt

    async def run(self) -> None:
        """Work the queue until `stop`, and the operations that are then in flight to their end.

        Raises
        ------
        DatabaseUnusableError
            The database is corrupt, or was replaced.
        """
        async with task_group() as group:
            group.start_soon(self._leases.hold)
            while not self._stopping:
                claimed = await self._launch(group)
                if not (claimed and self._more_due) and not self._stopping:
                    await self.wake_up.wait(await self._idle_seconds(), sleep=self.clock.sleep)
            while self._in_flight:
                await self.wake_up.wait()
            group.cancel_scope.cancel()

    async def drain(self) -> None:
        """Work the queue until nothing is due and nothing is in flight, or until Albert accepts nothing.

        Nothing is done while Albert is not known to be the mirror's tenant.

        Raises
        ------
        DatabaseUnusableError
            The database is corrupt, or was replaced.
        """
        async with task_group() as group:
            group.start_soon(self._leases.hold)
            while True:
                idle = not self._in_flight  # an operation that ends during the claim may have blocked others
                claimed = 0 if self.refused else await self._launch(group)
                if not claimed and idle:
                    if await self._upkeep.recheck_all():
                        continue
                    break
                if not claimed:
                    await self.wake_up.wait()
            group.cancel_scope.cancel()

    def stop(self) -> None:
        """Claim no more operations."""
        self._stopping = True
        self._wake()

    def note_response(self) -> None:
        """Note that Albert answered something else than an operation; see `Brake.note_response`."""
        self._brake.note_response()

    async def recover(self, *, abandoned: bool) -> None:
        """Make operations whose holder is gone `unknown`; see `Leases.recover`."""
        await self._leases.recover(abandoned=abandoned)

    def _wake(self) -> None:
        self.wake_up.set()

    def _may_send(self) -> bool:
        return not self._stopping and self._brake.rest_seconds() <= 0

    @property
    def _free(self) -> int:
        """How many more operations may be claimed: those that may send requests now, and a few that wait for a slot.

        An operation frees its slot when its requests are done, before its outcome is committed.
        """
        at_once = self.settings.concurrency
        slots = self._brake.slots(at_once + at_once // AHEAD)
        return slots - sum(not attempt.awaiting_commit for attempt in self._in_flight.values())

    async def _launch(self, group: TaskGroup) -> int:
        """Claim as many operations as there are free slots, and start them; return their number."""
        free = self._free
        if free <= 0 or self._brake.rest_seconds() > 0 or not await self._may_claim():
            return 0
        claimed, lease = await self._claim(free)
        # a held pass may be newer than the last answer: ask once more
        if self._in_doubt and self.known_tenant is not None and await self.known_tenant.may_act():
            claimed, lease = await self._claim(free)
        for operation in claimed:
            attempt = Attempt(
                operation=operation, albert=self.lookups.albert, lookups=self.lookups, database=self.database,
                clock=self.clock, recency=self._recency, lease=lease,
            )  # fmt: skip
            self._in_flight[operation.id] = attempt
            group.start_soon(self._run, attempt)
        return len(claimed)

    async def _may_claim(self) -> bool:
        """Whether Albert is known to be the mirror's tenant. It is asked only if operations wait."""
        if self.known_tenant is None or self.known_tenant.is_confirmed:
            return True
        if not await self.database.read(operations.any_waits):
            self._in_doubt = False  # nothing is kept waiting by it
            return False
        self._in_doubt = not await self.known_tenant.may_act()
        return not self._in_doubt

    async def _claim(self, limit: int) -> tuple[list[Operation], Lease]:
        """Claim operations; read on while all that are due are blocked."""
        self._turn += 1

        def work(connection: Connection) -> tuple[Claimed, datetime, float]:
            # the clocks are read inside the transaction, which may have waited for its turn: the lease begins here
            monotonic, now = self.clock.monotonic(), self.database.now(connection)
            held = passes.doubtful_pass(connection)
            self._in_doubt = held is not None and (self.known_tenant is None or self.known_tenant.doubt(held))
            if self._in_doubt:
                return Claimed([], more=False), now, monotonic
            claims = operations.claim(
                connection, now=now, owner=self.owner, lease=self.settings.lease, limit=limit,
                lookups_first=self._turn % 2 == 0,
            )  # fmt: skip
            return claims, now, monotonic

        while True:
            claimed, self._claimed_at, monotonic = await self.database.write(work)
            self._more_due = claimed.more or len(claimed.operations) == limit
            if claimed.operations or not claimed.more:
                return claimed.operations, Lease.begin(self.settings.lease, now=self._claimed_at, monotonic=monotonic)

    async def _run(self, attempt: Attempt) -> None:
        try:
            await self._runner.run(attempt)
            await self._runner.refund()
        finally:
            number = attempt.operation.id
            if self._in_flight.get(number) is attempt:  # after a lost lease this process may have claimed it again
                del self._in_flight[number]
            self._wake()

    async def _idle_seconds(self) -> float | None:
        """Return for how long there is nothing to do unless `wake_up` is set."""
        if self._free <= 0:
            return None
        if rest := self._brake.rest_seconds():
            return rest
        if self._in_doubt:
            return IN_DOUBT_SECONDS
        # operations due at the last claim and not claimed are blocked; `wake_up` is set when that changes
        due = await self.database.read(lambda c: operations.next_due(c, after=self._claimed_at))
        longest = self.settings.lease
        if due is None:
            return longest
        return min(max((due - self.clock.now()).total_seconds(), SHORTEST_IDLE), longest)
