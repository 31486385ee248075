"""A claim reads as many rows as it claims, however many operations are blocked, on hold, waiting or finished."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.mirror.db import raw
from syncd.mirror.db.database import Connection, Database
from syncd.mirror.db.dialects import as_lists
from syncd.mirror.schema import migrate, tables
from syncd.mirror.store import operation_statements, operations
from syncd.records.enums import OperationState
from tests.helpers.databases import current_url
from tests.helpers.sqlite_steps import steps

pytestmark = pytest.mark.both_databases

NOW = datetime(2031, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
ROWS = 5_000
SLOTS = 16
CREATE = {"kind": "create", "name": "n"}
DEAD = {**CREATE, "source_session_id": "dead", "state": "dead", "finished_at": NOW}


def fresh(count: int, **values: Any) -> list[dict[str, Any]]:
    return [{**CREATE, "source_session_id": f"s-{number}", **values} for number in range(count)]


CROWDS: dict[str, list[dict[str, Any]]] = {
    "blocked": [{**CREATE, "source_session_id": "dead"} for _ in range(ROWS)],
    "on hold": fresh(ROWS, on_hold_at=NOW),
    "not due": fresh(ROWS, next_attempt_at=LATER, not_before=LATER),
    "succeeded": fresh(ROWS, state="succeeded", finished_at=NOW),
    "dead": fresh(ROWS, state="dead", finished_at=NOW),
    "fresh": fresh(ROWS),
    "due again": fresh(ROWS, next_attempt_at=NOW, clock_at=NOW),
}
"""What else may be in the queue, in numbers."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = current_url() or f"sqlite+aiosqlite:///{tmp_path / 'syncd.db'}"
    async with Database.create(sa.make_url(url), busy_timeout=5) as database:
        await database.write(migrate.migrate)
        yield database


async def insert(database: Database, rows: list[dict[str, Any]]) -> None:
    if rows[0]["source_session_id"] == "dead":
        await database.write(lambda c: c.execute(sa.insert(tables.operations), [DEAD]).close())
    await database.write(lambda c: c.execute(sa.insert(tables.operations), rows).close())


def claim(connection: Connection) -> int:
    claimed = operations.claim(connection, now=NOW, owner="me", lease=60, limit=SLOTS)
    assert not claimed.more
    return len(claimed.operations)


@pytest.mark.sqlite
@pytest.mark.parametrize("crowd", CROWDS)
async def test_claim_takes_as_many_steps_in_a_long_queue_as_in_a_short_one_on_sqlite(
    database: Database, crowd: str
) -> None:
    async def cost() -> int:
        await insert(database, fresh(SLOTS, requested_by="me"))
        return await database.write(lambda c: steps(c, lambda c: (claim(c), operations.next_due(c, after=NOW))))

    alone = await cost()
    await database.write(lambda c: c.exec_driver_sql("DELETE FROM operations"))
    await insert(database, CROWDS[crowd])
    assert await cost() <= alone * 1.5 + 5


@pytest.mark.parametrize("crowd", CROWDS)
async def test_blocked_operation_is_not_claimed_and_others_are(database: Database, crowd: str) -> None:
    await insert(database, CROWDS[crowd])
    await insert(database, [{**CREATE, "source_session_id": "another"}])
    assert await database.write(claim) == (SLOTS if crowd in {"fresh", "due again"} else 1)


def statements(ids: Sequence[int]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return what a claim on PostgreSQL runs, with parameters; the claim itself is of some operations."""
    at = utc_text(NOW)
    postgresql = operation_statements._Postgresql
    held = as_lists([list(ids), *([value] * len(ids) for value in ("running", "1", "1"))])
    return [
        (postgresql.DUE[OperationState.PENDING], (at, SLOTS)),
        (postgresql.DUE[OperationState.UNKNOWN], (at, SLOTS)),
        (postgresql.BLOCKED, (0, 0, 0, SLOTS)),
        (postgresql.OVERTAKEN, (at, 100)),
        (operation_statements._POSTGRESQL_CLAIM, (at, "me", at, *held, list(ids))),
    ]


@pytest.mark.sqlite  # the fixture names the database
@pytest.mark.parametrize("crowd", CROWDS)
async def test_every_statement_reads_in_the_order_of_an_index_on_postgresql(postgres_url: str, crowd: str) -> None:
    async with Database(sa.make_url(postgres_url), busy_timeout=5) as database:
        await insert(database, CROWDS[crowd])
        plans = await explained_with_others(database, "new")
        await database.write(lambda c: c.exec_driver_sql("ANALYZE operations").close())
        plans += await explained_with_others(database, "newer")
    for plan in plans:
        reads = [node for node in _nodes(plan) if node.get("Relation Name") == "operations"]
        assert [node["Node Type"] for node in reads if node["Node Type"] == "Seq Scan"] == []
        discarded = sum(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in reads)
        read = sum(node["Actual Rows"] * node["Actual Loops"] for node in reads)
        assert discarded + read <= 10 * SLOTS, json.dumps(plan, indent=1)


async def explained_with_others(database: Database, name: str) -> list[dict[str, Any]]:
    """Queue some more operations, and return the plans of their claim."""
    others = [{**CREATE, "source_session_id": f"{name}-{number}"} for number in range(SLOTS)]
    ids = await database.write(lambda c: operations.enqueue(c, others))
    return await database.write(lambda c: explained(c, ids))


def explained(connection: Connection, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Run what a claim runs, and return the plans with what they read."""
    asked = (
        connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", values).scalar_one()
        for text, values in statements(ids)
    )
    return [(json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"] for answer in asked]


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]


@pytest.mark.sqlite
async def test_every_statement_of_a_claim_uses_an_index_on_sqlite(database: Database) -> None:
    await insert(database, fresh(1000))
    traced: list[str] = []

    def work(connection: Connection) -> list[str]:
        driver = raw.sqlite(connection)
        driver.set_trace_callback(traced.append)
        claim(connection)
        operations.next_due(connection, after=NOW)
        operations.recheck(connection, None)
        operations.rebase(connection, now=NOW)
        driver.set_trace_callback(None)
        selects = [statement for statement in traced if statement.lstrip().startswith(("SELECT", "UPDATE"))]
        return [row[3] for text in selects for row in driver.execute(f"EXPLAIN QUERY PLAN {text}")]

    plan = await database.write(work)
    assert [step for step in plan if step.startswith("SCAN") and step.split()[1] in tables.metadata.tables] == []
    assert sum("ix_operations_due" in step for step in plan) == 6  # two reads for each state, and two of the next due
