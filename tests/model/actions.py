"""The random actions of a schedule: other users change Albert, programs enqueue, the operator decides, faults begin.

`Simulation` inherits them. All random numbers come from the seed, in a fixed order.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import anyio
import sqlalchemy as sa

from syncd.mirror.store import holds, operation_decisions
from syncd.mirror.store.operation_decisions import Operator
from syncd.records.enums import HoldState
from syncd.records.ids import OperationId, PassId
from tests.model.albert import AFTER, BEFORE, GATEWAY_BODIES, GATEWAYS, Tenant
from tests.model.clocks import Clocks
from tests.model.daemon import DaemonRun
from tests.model.invariants import Checker
from tests.model.loop import VirtualLoop
from tests.model.plan import plan
from tests.model.store import Store

SOURCES = tuple(f"src-{number}" for number in range(3))
GATEWAY = 0.15
"""The chance that a change of the faults contains a gateway that answers 404."""
FIRST_MISDATED = 1_000_000
"""Schedules from this seed on may contain wrong dates. Older seeds stay as they were when they found something."""
FIRST_READ_AHEAD = 2_000_000
"""In schedules from this seed on, passes may request pages before their keys are given."""
READ_AHEAD = (0, 1, 2, 5)
HOSTILE = ("a/../../../users/USR1", "nul\u0001", "ü?#&", "x" * 2000)


def reads_ahead(seed: int) -> bool:
    """Whether the passes of a schedule request pages before their keys are given."""
    return seed >= FIRST_READ_AHEAD and READ_AHEAD[seed % len(READ_AHEAD)] > 0


class Actions:
    """The state of a schedule, and everything that happens besides the daemon."""

    def __init__(self, seed: int, store: Store, loop: VirtualLoop) -> None:
        self.rng = Random(seed)  # noqa: S311 - not for secrets
        self.plan = plan(self.rng)
        if seed >= FIRST_READ_AHEAD:
            self.plan.pull = replace(self.plan.pull, read_ahead=READ_AHEAD[seed % len(READ_AHEAD)])
        misdates = seed >= FIRST_MISDATED and seed % 4 == 0
        self.dates = Random(f"dates {seed}") if misdates else None  # noqa: S311 - not for secrets
        self.store = store
        self.loop = loop
        self.clocks = Clocks(loop, alone=store.alone, skews=self.plan.skews)
        self.clock = self.clocks.server
        self.tenant = Tenant(self.rng, self.plan.habits, loop.time)
        self.tenant.latest_late = self.plan.late
        self.tenant.renames, self.tenant.finds_both = self.plan.renames, self.plan.finds_both
        self.checker = Checker(store, self.tenant, self.plan.guard)
        self.events: list[str] = []
        self.daemon_run: DaemonRun | None = None

    async def _act_until_cancelled(self, scope: anyio.CancelScope) -> None:
        actions = (
            self._create, self._create, self._change, self._change, self._move, self._delete, self._recreate,
            *[self._enqueue] * 5, self._operate, self._decide, self._change_faults, self._change_faults,
            self._know, self._step, self._hide,
        )  # fmt: skip
        with scope:
            while True:
                await anyio.sleep(self.rng.choice((0.0, 0.01, 0.3, 1.0, 4.0)))
                for _ in range(self.rng.choice((1, 2, 4))):
                    self.rng.choice(actions)()

    def _some(self) -> str | None:
        there = list(self.tenant.store.truth.by_id)
        return self.rng.choice(there) if there else None

    def _name(self) -> str:
        return f"name {self.loop.turns} {self.rng.random()}"

    def _create(self) -> None:
        new = f"new-{self.loop.turns}"
        source = self.rng.choice(SOURCES) if self.rng.random() < 0.1 else new
        self.tenant.create({"sourceSessionId": source, "name": self._name()})

    def _change(self) -> None:
        if (session_id := self._some()) is not None:
            self.tenant.update(session_id, {"name": self._name()} | self._wrong_date(session_id))

    def _wrong_date(self, session_id: str) -> dict[str, Any]:
        """Return a wrong time of a change, in some schedules: of 2099, or of before a tenant was restored."""
        if self.dates is None or self.dates.random() < 0.5:
            return {}
        self.tenant.served.misdated.add(session_id)
        return {"Updated": {"at": self.dates.choice(("2099-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z"))}}

    def _move(self) -> None:
        if (session_id := self._some()) is not None:
            self.tenant.update(session_id, {"parentId": self.rng.choice(("FOL1", "FOL2", None)), "name": self._name()})

    def _delete(self) -> None:
        if (session_id := self._some()) is not None:
            self.tenant.served.foreign.add(self.tenant.store.truth.by_id[session_id].source)
            self.tenant.store.delete(session_id)

    def _recreate(self) -> None:
        if (session_id := self._some()) is not None:
            source = self.tenant.store.truth.by_id[session_id].source
            self.tenant.store.delete(session_id)
            wire = {"sourceSessionId": source, "name": self._name()}
            self.tenant.create(wire | ({"id": session_id} if self.rng.random() < 0.3 else {}))

    def _hide(self) -> None:
        """Leave one session more out of the listing, or list all again."""
        session_id, unlisted = self._some(), self.tenant.habits.unlisted
        if session_id is None or self.rng.random() < 0.3:
            unlisted.clear()
        elif session_id not in unlisted:
            unlisted.append(session_id)

    def _write(self, work: Any) -> Any:
        """Write to the database as another program does."""
        result = self.store.write(work)
        self.checker.look()
        if self.daemon_run is not None:
            self.daemon_run.set()
        return result

    def _enqueue(self) -> None:
        draw = self.rng.random()
        source = self.rng.choice(SOURCES if draw < 0.95 else HOSTILE)
        name, session_id = f"ours {self.loop.turns} {self.rng.random()}", self._some()
        row: tuple[str, str | None, str | None, str | None, str | None] = ("create", source, None, name, None)
        if draw < 0.15:
            row = ("delete", source, None, None, None)
        elif draw < 0.3 and session_id is not None:
            row = ("delete", None, session_id, None, None)
        elif draw < 0.4:
            row = ("update", source, None, name, self.rng.choice((None, "FOL9", "")))
        elif draw < 0.5 and session_id is not None:
            row = ("update", None, session_id, name, None)
        insert = (
            "INSERT INTO operations (kind, source_session_id, session_id, name, parent_id) VALUES (?, ?, ?, ?, ?) "
            "RETURNING id"
        )
        self._write(lambda c: c.exec_driver_sql(insert, row).scalar())

    def _operate(self) -> None:
        decision = self.rng.choice((operation_decisions.retry, operation_decisions.cancel))
        number = self.rng.randint(1, 12)
        self.checker.operator = {number}
        self._write(lambda c: decision(c, OperationId(number), Operator("model", self.clock.now())))

    def _decide(self) -> None:
        """Approve or reject a hold, or change the decision; an approval follows a check of the sessions in Albert."""
        if self.tenant.faults.other_tenant:
            return

        def work(connection: sa.Connection) -> None:
            for hold in holds.listed(connection, (HoldState.OPEN, HoldState.REJECTED)):
                rows = holds.session_rows(connection, hold.hold_id, limit=10**6)
                gone = not any(row["id"] in self.tenant.store.truth.by_id for row in rows)
                decision = HoldState.APPROVED if gone and self.rng.random() < 0.5 else HoldState.REJECTED
                if decision is not hold.state:
                    self._decided(connection, hold.last_pass_id, decision)

        self._write(work)

    def _decided(self, connection: sa.Connection, pass_id: int, decision: HoldState) -> None:
        holds.decide(connection, PassId(pass_id), decision, by="the operator", now=self.clock.now())

    def _know(self) -> None:
        source = self.rng.choice((*SOURCES, "stranger-1", "stranger-2"))
        statement = "INSERT INTO source_sessions (source_session_id) VALUES (?) ON CONFLICT DO NOTHING"
        self._write(lambda c: c.exec_driver_sql(statement, (source,)))

    def _step(self) -> None:
        """Set the clock of a host or of the server, as often as the plan says."""
        if self.plan.steps:
            self.rng.choice((*self.clocks.hosts, self.clocks.server)).step(self.plan.steps.pop())

    def _change_faults(self) -> None:
        faults = self.tenant.faults
        faults.chance = self.rng.choice((0.0, 0.05, 0.3, 0.7))
        faults.kinds = self.rng.choice((BEFORE, AFTER, BEFORE + AFTER, (self.rng.choice(BEFORE + AFTER),)))
        faults.refused = self.rng.random() < 0.05
        faults.outage = self.rng.random() < 0.05
        faults.forbidden = self.rng.random() < 0.05
        faults.gateway = self.rng.choice(tuple(GATEWAYS)) if self.rng.random() < GATEWAY else None
        faults.gateway_body = self.rng.choice(GATEWAY_BODIES)
        faults.broken = self.rng.choice((0.0, 0.0, 0.1))
