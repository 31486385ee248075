"""Statements that run all the time read a few rows, however many sessions, source ids and operations there are.

SQLite never has statistics here. A PostgreSQL that was just loaded has none either, until its first autoanalyze.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pyroaring import BitMap64

from syncd.clock import utc_text
from syncd.mirror.db.database import Connection, Database
from syncd.mirror.read import views
from syncd.mirror.schema import migrate, tables
from syncd.mirror.store import contradictions, established, operations, sources, witnesses
from syncd.mirror.store.holds import Decisions
from syncd.records.ids import PassId, SessionId
from tests.helpers.databases import current_url
from tests.helpers.sqlite_steps import steps

pytestmark = pytest.mark.both_databases

NOW = datetime(2031, 1, 1, tzinfo=UTC)
ROWS = 5_000
MOST_STEPS = 60
"""Hundreds of instructions of SQLite's virtual machine; each statement takes more than that if it reads a table."""


def session(number: int) -> dict[str, Any]:
    return {
        "id": f"SES{number}", "name": "n", "source_session_id": f"s-{number}", "version": 1, "change": "created",
        "valid_from": NOW, "first_seen_at": NOW, "seq": number,
    }  # fmt: skip


def operation(number: int) -> dict[str, Any]:
    return {
        "kind": "create", "name": "n", "source_session_id": f"s-{number}", "state": "succeeded", "finished_at": NOW,
    }  # fmt: skip


def load(connection: Connection) -> None:
    for table, make in ((tables.sessions, session), (tables.operations, operation)):
        connection.execute(sa.insert(table), list(map(make, range(1, ROWS + 1))))
    hold = {
        "id": 1, "pass_id": 1, "last_pass_id": 1, "state": "open", "reason": "too_many_gone", "detail": "d",
        "opened_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    connection.execute(sa.insert(tables.holds), hold)
    held = [{"hold_id": 1, "session_key": key} for key in range(1, ROWS // 2)]
    connection.execute(sa.insert(tables.hold_sessions), held)
    # each operation has inserted its source id
    connection.execute(sa.update(tables.source_sessions).values(state="linked", session_id="SES1"))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = current_url() or f"sqlite+aiosqlite:///{tmp_path / 'syncd.db'}"
    async with Database.create(sa.make_url(url), busy_timeout=5) as database:
        await database.write(migrate.migrate)
        await database.write(load)
        yield database


UNDECIDED = Decisions(BitMap64(), BitMap64(), BitMap64(), frozenset())
STEADY: dict[str, Callable[[Connection], Any]] = {
    "deletes lately": lambda c: operations.any_deleted_since(c, utc_text(NOW - timedelta(days=1))),
    "deletes of sessions": lambda c: operations.deleted_since(c, [SessionId("SES1")], utc_text(NOW)),
    "contradicted deletes": lambda c: contradictions.queue_again(
        c, [SessionId("SES1")], pass_id=PassId(1), asked_at=NOW, now=NOW, grace=60
    ),
    "witnesses": lambda c: witnesses.candidates(c, place=0.6, limit=5),
    "first requests": lambda c: established.to_request(c, UNDECIDED, NOW, limit=5),
    "carried source ids": sources.any_carried,
    "source ids to ask": lambda c: sources.to_ask(c, checked_before=NOW, limit=500),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("name", STEADY)
async def test_statement_reads_few_rows_on_sqlite(database: Database, name: str) -> None:
    assert await database.write(lambda c: steps(c, STEADY[name])) <= MOST_STEPS


@pytest.mark.sqlite
async def test_counts_by_state_group_only_rows_in_unusual_states_on_sqlite(database: Database) -> None:
    def work(connection: Connection) -> tuple[int, dict[str, Any]]:
        return steps(connection, views.overview), views.overview(connection)

    cost, overview = await database.write(work)
    assert cost <= MOST_STEPS
    assert (overview["operations"]["succeeded"], overview["sources"]["linked"]) == (ROWS, ROWS)


async def test_counts_by_state_are_those_of_the_tables(database: Database) -> None:
    def work(connection: Connection) -> dict[str, Any]:
        connection.execute(sa.update(tables.operations).where(tables.operations.c.id <= 3).values(state="dead"))
        source = tables.source_sessions
        for number, state in enumerate(("missing", "conflict", "unresolved")):
            connection.execute(
                sa.update(source).where(source.c.source_session_id == f"s-{number + 1}").values(state=state)
            )
        return views.overview(connection)

    overview = await database.write(work)
    rest = {"pending": 0, "running": 0, "unknown": 0, "cancelled": 0}
    assert overview["operations"] == rest | {"succeeded": ROWS - 3, "dead": 3}
    assert overview["sources"] == {"linked": ROWS - 3, "missing": 1, "conflict": 1, "unresolved": 1}


@pytest.mark.sqlite  # the fixture names the database
async def test_witnesses_are_read_in_the_order_of_their_keys_on_postgresql(postgres_url: str) -> None:
    async with Database(sa.make_url(postgres_url), busy_timeout=5) as database:

        def work(connection: Connection) -> str:
            load(connection)
            statement = witnesses._FROM.format(witnesses._NOT_HELD).replace("?", "2500", 1).replace("?", "5")
            return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}"))

        plan = await database.write(work)
        assert "pk_sessions" in plan, plan
        assert "Seq Scan on sessions" not in plan, plan
        assert "Seq Scan on hold_sessions" not in plan, plan
