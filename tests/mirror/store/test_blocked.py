"""`blocked_by` names the operation that another one waits for, also for rows that other programs insert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.store import operations
from tests.helpers.harness import Harness, open_harness
from tests.helpers.postgres_server import PostgresServer, engine_of, in_thread
from tests.push.helpers import create, effects

pytestmark = pytest.mark.both_databases

OVER = {
    "succeeded": "UPDATE operations SET state = 'succeeded', finished_at = requested_at WHERE id = ?",
    "cancelled": "UPDATE operations SET state = 'cancelled', finished_at = requested_at WHERE id = ?",
    "deleted": "DELETE FROM operations WHERE id = ?",
}
STILL_THERE = {
    "dead": "UPDATE operations SET state = 'dead', finished_at = requested_at WHERE id = ?",
    "unknown": "UPDATE operations SET state = 'unknown' WHERE id = ?",
    "running": "UPDATE operations SET state = 'running' WHERE id = ?",
}


async def blockers(harness: Harness) -> dict[int, int | None]:
    return {
        row["id"]: row["blocked_by"] for row in await harness.sql("SELECT id, blocked_by FROM operations ORDER BY id")
    }


async def claimed(harness: Harness, limit: int = 9) -> list[int]:
    claims = await harness.database.write(
        lambda c: operations.claim(c, now=harness.clock.now(), owner="me", lease=60, limit=limit).operations
    )
    return [operation.id for operation in claims]


async def test_each_operation_of_a_key_waits_for_the_one_before_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(create("a"), create("b"), create("a"), create("a"), create("b"))
        assert await blockers(harness) == dict(zip(ids, [None, None, ids[0], ids[2], ids[1]], strict=True))


async def test_all_operations_of_one_statement_wait_for_each_other(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql(
            "INSERT INTO operations (kind, source_session_id, session_id, name) "
            "VALUES ('create', 's', NULL, 'n'), ('delete', NULL, 's', NULL), ('update', NULL, 's', 'n'), "
            "('delete', 's', NULL, NULL)"
        )
        assert await blockers(harness) == {1: None, 2: None, 3: 2, 4: 1}


@pytest.mark.parametrize("end", OVER)
async def test_operation_is_not_blocked_when_the_one_before_it_is_over(tmp_path: Path, end: str) -> None:
    async with open_harness(tmp_path) as harness:
        first, second, third = await harness.enqueue(create(), create(), create())
        await harness.sql(OVER[end], first)
        blocked_by = await blockers(harness)
        assert (blocked_by[second], blocked_by[third]) == (None, second)
        assert await claimed(harness) == [second]


@pytest.mark.parametrize("end", OVER)
async def test_operation_waits_for_the_next_one_before_it_when_its_blocker_is_over(tmp_path: Path, end: str) -> None:
    async with open_harness(tmp_path) as harness:
        first, second, third = await harness.enqueue(create(), create(), create())
        await harness.sql(OVER[end], second)
        assert (await blockers(harness))[third] == first


@pytest.mark.parametrize("state", STILL_THERE)
async def test_operation_waits_while_the_one_before_it_is_not_over(tmp_path: Path, state: str) -> None:
    async with open_harness(tmp_path) as harness:
        first, second = await harness.enqueue(create(), create())
        await harness.sql(STILL_THERE[state], first)
        assert (await blockers(harness))[second] == first


async def test_operation_that_is_over_when_it_is_inserted_waits_for_nothing(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        done: dict[str, Any] = {"state": "succeeded", "finished_at": harness.clock.now()}
        first, second, third = await harness.enqueue(create(), create(**done), create())
        assert await blockers(harness) == {first: None, second: None, third: first}


async def test_claim_records_a_blocker_that_is_known_only_from_the_mirror(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="n")["id"]
        await harness.one_pass()
        first, second = await harness.enqueue({"kind": "delete", "session_id": there}, create())
        assert (await blockers(harness))[second] is None
        assert await claimed(harness) == [first]
        assert (await blockers(harness))[second] == first
        await harness.sql(OVER["succeeded"], first)
        assert await claimed(harness) == [second]


async def test_operation_is_not_blocked_after_the_session_that_links_it_to_its_blocker_changes(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="n")["id"]
        await harness.one_pass()
        dead = {"state": "dead", "finished_at": harness.clock.now()}
        first, second = await harness.enqueue({"kind": "delete", "session_id": there, **dead}, create())
        push = harness.push()
        await push.drain()
        assert (await blockers(harness))[second] == first
        harness.sandbox.update(there, sourceSessionId="another")
        await harness.one_pass()
        await push.drain()
        assert effects(harness)[-1:] == ["s-1"]


async def test_claim_ends_after_some_blocked_operations_and_returns_that_there_are_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "PARKED_AT_ONCE", 3)
    monkeypatch.setattr(operations, "PARKING_ROUNDS", 2)
    async with open_harness(tmp_path) as harness:
        for number in range(12):
            harness.sandbox.create(source_session_id=f"s-{number}", name="n", id=f"SES-{number}")
        await harness.one_pass()
        dead = {"state": "dead", "finished_at": harness.clock.now()}
        await harness.enqueue(*({"kind": "delete", "session_id": f"SES-{number}", **dead} for number in range(12)))
        await harness.enqueue(*(create(f"s-{number}") for number in range(12)), create("free"))
        claim = await harness.database.write(
            lambda c: operations.claim(c, now=harness.clock.now(), owner="me", lease=60, limit=1)
        )
        assert (claim.operations, claim.more) == ([], True)
        parked = [number for number, blocker in (await blockers(harness)).items() if blocker is not None]
        assert len(parked) == 4
        await harness.push().drain()
        assert effects(harness)[-1] == "free"


async def insert(connection: Any, source: str = "s") -> int:
    statement = "INSERT INTO operations (kind, source_session_id, name) VALUES ('create', $1, 'n') RETURNING id"
    return int(await connection.fetchval(statement, source))


@pytest.fixture
async def program(postgres_url: str) -> Any:
    """Connect to PostgreSQL as another program."""
    connection = await asyncpg.connect(sa.make_url(postgres_url).set(drivername="postgresql").render_as_string())
    yield connection
    await connection.close()


async def row(program: Any, operation_id: int) -> int | None:
    blocker: int | None = await program.fetchval("SELECT blocked_by FROM operations WHERE id = $1", operation_id)
    return blocker


@pytest.mark.sqlite  # on a PostgreSQL of its own
async def test_blocker_that_is_over_before_the_insert_is_committed_blocks_nothing(
    program: Any, postgres_url: str
) -> None:
    first = await insert(program)
    async with Database(sa.make_url(postgres_url), busy_timeout=5) as database:
        async with program.transaction():
            second, third = await insert(program), await insert(program)
            assert await row(program, second) == first
            await database.write(lambda c: c.exec_driver_sql(OVER["succeeded"], (first,)).close())
        assert (await row(program, second), await row(program, third)) == (None, second)


@pytest.mark.sqlite
async def test_insert_does_not_wait_for_a_transaction_that_finishes_its_blocker(
    program: Any, postgres_url: str
) -> None:
    first = await insert(program)
    async with Database(sa.make_url(postgres_url), busy_timeout=5) as database:
        async with engine_of(database).connect() as connection:
            transaction = await connection.begin()
            await connection.exec_driver_sql(OVER["succeeded"], (first,))
            with anyio.fail_after(5):
                second = await insert(program)
            await transaction.rollback()
        assert await row(program, second) is None  # the claim finds that the first is not over after all


@pytest.mark.sqlite
async def test_blocker_that_an_insert_with_an_old_snapshot_misses_is_found_by_the_claim(
    tmp_path: Path, program: Any, postgres_url: str
) -> None:
    async with open_harness(tmp_path, url=postgres_url) as harness:
        first = await insert(program)
        async with program.transaction(isolation="repeatable_read"):
            second = await insert(program)
        assert await row(program, second) is None
        assert await claimed(harness) == [first]
        assert await row(program, second) == first


@pytest.mark.sqlite
async def test_program_that_may_only_insert_makes_operations_wait(
    postgres: PostgresServer, program: Any, postgres_url: str
) -> None:
    await program.execute("DROP ROLE IF EXISTS inserter")
    await program.execute("CREATE ROLE inserter LOGIN; GRANT INSERT ON operations TO inserter")
    name = str(sa.make_url(postgres_url).database)
    other = await asyncpg.connect(postgres.url(name, "inserter").replace("+asyncpg", ""))
    statement = "INSERT INTO operations (kind, source_session_id, name) VALUES ('create', 's', 'n')"
    try:
        await other.execute("SET search_path = pg_temp")
        await other.execute(statement.replace("operations", "public.operations"))
        await other.execute(statement.replace("operations", "public.operations"))
    finally:
        await other.close()
    records = await program.fetch("SELECT id, blocked_by FROM operations ORDER BY id")
    assert [tuple(record) for record in records] == [(1, None), (2, 1)]
    await in_thread(lambda: postgres.sql("REVOKE ALL ON operations FROM inserter; DROP ROLE inserter", name))
