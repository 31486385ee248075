"""Two replicas that write the same rows at the same time do not overwrite each other's results."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from syncd.mirror.db.change_feed import NotifyFeed
from syncd.mirror.db.database import Database
from syncd.mirror.store import (
    operation_views,
    operations,
    pages,
    passes,
    sessions,
    sessions_postgresql,
    sources,
)
from syncd.mirror.store.passes import COMPLETE, PassLostError
from syncd.mirror.store.sessions import Observation
from syncd.mirror.store.sessions_postgresql import PostgresqlSessions
from syncd.records.fields import SESSIONS, SessionRow
from syncd.records.ids import PassId
from tests.helpers.harness import open_harness
from tests.helpers.postgres_server import engine_of
from tests.helpers.rows import session_row

pytestmark = pytest.mark.both_databases

pytestmark = pytest.mark.sqlite  # the tests name their database themselves
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
T1, T2, T3 = (f"2026-06-01T12:00:0{second}.000000Z" for second in (1, 2, 3))


@pytest.fixture
async def here(postgres_url: str) -> AsyncIterator[Database]:
    async with Database(sa.make_url(postgres_url), busy_timeout=10) as database:
        yield database


@pytest.fixture
async def there(postgres_url: str) -> AsyncIterator[Database]:
    async with Database(sa.make_url(postgres_url), busy_timeout=10) as database:
        yield database


def session(
    session_id: str, name: str, *, source: str | None = None, at: str | None = None, extra: str = "{}"
) -> SessionRow:
    return session_row(session_id, name=name, source_session_id=source or f"s-{session_id}", updated_at=at, extra=extra)


async def names(database: Database) -> dict[str, str]:
    query = "SELECT id, name FROM chat_sessions"
    return {row[0]: row[1] for row in await database.read(lambda c: c.exec_driver_sql(query).all())}


async def test_page_read_before_a_look_up_does_not_overwrite_its_result(here: Database, there: Database) -> None:
    await here.write(lambda c: sessions.apply(c, [session("A", "old")], Observation(T1, T1, PassId(1), T1)))
    tries = 0

    def page(connection: sa.Connection) -> sessions.ApplyResult:
        nonlocal tries
        tries += 1
        return sessions.apply(connection, [session("A", "of the page")], Observation(T1, T2, PassId(1), T1))

    # The page has looked the row up, and the look-up commits before the page writes.
    async with engine_of(there).connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(lambda c: sessions.apply(c, [session("A", "of the look-up")], Observation(T2, T2)))
        async with anyio.create_task_group() as group:
            group.start_soon(here.write, page)
            await waits_for_a_lock(there)
            await transaction.commit()
    assert tries == 2
    assert await names(here) == {"A": "of the look-up"}


async def test_new_session_written_by_two_replicas_is_one_row(here: Database, there: Database) -> None:
    async with engine_of(there).connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(lambda c: sessions.apply(c, [session("A", "of one")], Observation(T2, T2)))
        async with anyio.create_task_group() as group:
            group.start_soon(
                here.write,
                lambda c: sessions.apply(
                    c, [session("B", "b"), session("A", "of the other")], Observation(T1, T1, PassId(1), T1)
                ),
            )
            await waits_for_a_lock(there)
            await transaction.commit()
    assert await names(here) == {"A": "of one", "B": "b"}


async def test_source_id_that_two_replicas_link_at_once_is_in_conflict(here: Database, there: Database) -> None:
    async with engine_of(there).connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(lambda c: sessions.apply(c, [session("A", "a", source="s")], Observation(T2, T2)))
        async with anyio.create_task_group() as group:
            group.start_soon(
                here.write,
                lambda c: sessions.apply(c, [session("B", "b", source="s")], Observation(T1, T1, PassId(1), T1)),
            )
            await waits_for_a_lock(there)
            await transaction.commit()
    row = await here.read(lambda c: c.exec_driver_sql("SELECT state, note FROM source_sessions").one())
    assert tuple(row) == ("conflict", "carried by A, B")


async def waits_for_a_lock(database: Database) -> None:
    """Wait until some other transaction waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with anyio.fail_after(10):
        while not await database.read(lambda c: c.exec_driver_sql(query).scalar()):  # noqa: ASYNC110 - PostgreSQL's
            await anyio.sleep(0.005)


def claim(connection: sa.Connection, limit: int = 10) -> list[int]:
    claimed = operations.claim(connection, now=NOW + timedelta(hours=1), owner="me", lease=60, limit=limit)
    return [operation.id for operation in claimed.operations]


def create(source: str) -> dict[str, str]:
    return {"kind": "create", "source_session_id": source, "name": "n"}


async def test_two_claims_at_once_share_the_queue_without_waiting(here: Database, there: Database) -> None:
    ids = await here.write(lambda c: operations.enqueue(c, [create(f"s{number}") for number in range(6)]))
    async with engine_of(there).connect() as connection, connection.begin():
        theirs = await connection.run_sync(claim, 3)
        ours = await here.write(claim)
    assert (theirs, ours) == (ids[:3], ids[3:])


async def test_row_that_becomes_visible_late_does_not_run_together_with_a_later_row_of_its_key(
    here: Database, there: Database
) -> None:
    async with engine_of(there).connect() as connection:
        transaction = await connection.begin()
        (early,) = await connection.run_sync(lambda c: operations.enqueue(c, [create("s")]))
        # the trigger's row of source_sessions is taken by the first: the second program names no source
        (late,) = await here.write(lambda c: operations.enqueue(c, [create("other")]))
        await here.write(
            lambda c: c.exec_driver_sql("UPDATE operations SET source_session_id = 's' WHERE id = ?", (late,))
        )
        assert early < late
        assert await here.write(claim) == [late]
        await transaction.commit()
    assert await here.write(claim) == []
    held = "UPDATE operations SET state = 'succeeded', finished_at = now() WHERE id = ?"
    await here.write(lambda c: c.exec_driver_sql(held, (late,)))
    assert await here.write(claim) == [early]


async def test_claim_locks_only_the_keys_of_the_operations_it_claims(here: Database, there: Database) -> None:
    # where no index serves, PostgreSQL looks at every row and asks the cheaper of two conditions first
    await here.write(lambda c: operations.enqueue(c, [create(f"s{number}") for number in range(40)]))
    count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    async with engine_of(there).connect() as connection, connection.begin():
        for way in ("indexscan", "bitmapscan", "indexonlyscan"):
            await connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        assert len(await connection.run_sync(claim, 20)) == 20
        assert (await connection.exec_driver_sql(count)).scalar() == 20


async def test_not_before_of_any_program_is_honoured(here: Database) -> None:
    insert = "INSERT INTO operations (kind, session_id, not_before) VALUES ('delete', 'SES1', '2026-06-01T13:30:00Z')"
    await here.write(lambda c: c.exec_driver_sql(insert))
    assert await here.write(claim) == []
    row = await here.read(lambda c: c.exec_driver_sql("SELECT next_attempt_at, not_before FROM operations").one())
    assert tuple(row) == ("2026-06-01T13:30:00.000000Z",) * 2
    later = NOW + timedelta(hours=2)
    claimed = await here.write(lambda c: operations.claim(c, now=later, owner="me", lease=60, limit=1))
    assert len(claimed.operations) == 1


async def test_claims_of_one_key_at_once_get_one_of_its_operations(here: Database, there: Database) -> None:
    first, second = await here.write(lambda c: operations.enqueue(c, [create("s"), create("other")]))
    async with engine_of(there).connect() as connection, connection.begin():
        assert await connection.run_sync(claim, 1) == [first]
        await here.write(
            lambda c: c.exec_driver_sql("UPDATE operations SET source_session_id = 's' WHERE id = ?", (second,))
        )
        assert await here.write(claim) == []


async def test_leader_that_was_cut_off_writes_nothing_to_a_pass_that_was_taken_over(
    here: Database, there: Database
) -> None:
    old = await here.write(lambda c: passes.begin(c, NOW))
    new = await there.write(passes.resume)
    assert new is not None
    assert new.id == old.id
    with pytest.raises(PassLostError):
        await here.write(lambda c: passes.check(c, old))
    with pytest.raises(PassLostError):
        await here.write(lambda c: passes.finish(c, old, COMPLETE, now=NOW))
    await there.write(lambda c: passes.finish(c, new, COMPLETE, now=NOW))


async def test_two_replicas_that_begin_a_pass_at_once_begin_one_pass(here: Database, there: Database) -> None:
    def take(connection: sa.Connection) -> passes.Progress:
        return passes.resume(connection) or passes.begin(connection, NOW)

    taken: list[passes.Progress] = []

    async def second() -> None:
        taken.append(await here.write(take))

    async with engine_of(there).connect() as connection:
        transaction = await connection.begin()
        begun = await connection.run_sync(take)
        async with anyio.create_task_group() as group:
            group.start_soon(second)
            await waits_for_a_lock(there)
            await transaction.commit()
    assert (taken[0].id, taken[0].resumed, taken[0].fence) == (begun.id, True, begun.fence + 1)


@pytest.mark.parametrize(
    "extra", ['{"a":1e+22,"b":-0.0}', '{"b":1.50,"aa":[1e-07,1e+300]}', '{"é":{"z":1,"y":"\\u0001"}}']
)
async def test_extra_with_the_same_meaning_is_unchanged(here: Database, extra: str) -> None:
    row = session("A", "a", extra=extra)
    await here.write(lambda c: sessions.apply(c, [row], Observation(T1, T1, PassId(1), T1)))
    applied = await here.write(lambda c: sessions.apply(c, [row], Observation(T2, T2, PassId(2), T1)))
    assert applied.clean
    assert not applied.changes


async def test_insert_of_another_program_wakes_the_change_feed(here: Database, there: Database) -> None:
    feed = NotifyFeed(here)
    try:
        await feed.wait()
        received = anyio.Event()

        async def listen() -> None:
            await feed.wait()
            received.set()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            insert = "INSERT INTO operations (kind, session_id) VALUES ('delete', 'SES1')"
            await there.write(lambda c: c.exec_driver_sql(insert))
            with anyio.fail_after(3):
                await received.wait()
    finally:
        await feed.close()


async def test_writes_of_replicas_in_a_deadlock_both_succeed(here: Database, there: Database) -> None:
    for session_id in "AB":
        row = session(session_id, "old")
        await here.write(lambda c, row=row: sessions.apply(c, [row], Observation(T1, T1, PassId(1), T1)))  # type: ignore[misc]
    met = {letter: anyio.Event() for letter in "AB"}

    async def rename(database: Database, first: str, second: str) -> None:
        def one(connection: sa.Connection, key: str) -> None:
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '20ms'")
            connection.exec_driver_sql("UPDATE sessions SET name = name || ? WHERE id = ?", (first, key))

        def both(connection: sa.Connection) -> None:
            one(connection, first)
            met[first].set()
            connection.exec_driver_sql("SELECT pg_sleep(0.2)") if not met[second].is_set() else None
            one(connection, second)

        await database.write(both)

    async with anyio.create_task_group() as group:
        group.start_soon(rename, here, "A", "B")
        group.start_soon(rename, there, "B", "A")
    assert {"".join(sorted(name.removeprefix("old"))) for name in (await names(here)).values()} == {"AB"}


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/New_York"])
async def test_times_do_not_depend_on_the_time_zone_of_the_session(here: Database, zone: str) -> None:
    at = "1969-12-31T23:59:59.999999Z"
    kept = "0001-01-01T00:00:00.000000Z"

    def work(connection: sa.Connection) -> tuple[Any, ...]:
        connection.exec_driver_sql(f"SET LOCAL TimeZone = '{zone}'")
        connection.exec_driver_sql("SET LOCAL DateStyle = 'German'")
        connection.exec_driver_sql(
            "INSERT INTO passes (started_at, finished_at, read_at) VALUES (?, ?, ?)", (at, kept, kept)
        )
        return tuple(
            connection.exec_driver_sql("SELECT started_at, finished_at, 'infinity'::timestamptz FROM passes").one()
        )

    with pytest.raises(sa.exc.IntegrityError, match="finished"):
        await here.write(work)
    await here.write(lambda c: c.exec_driver_sql("ALTER TABLE passes DROP CONSTRAINT ck_passes_finished"))
    assert await here.write(work) == (at, kept, "9999-12-31T23:59:59.999999Z")


async def test_prepared_statement_works_after_a_migration_changed_its_table(here: Database, there: Database) -> None:
    query = "SELECT * FROM operations"
    for _ in range(2):
        await here.read(lambda c: c.exec_driver_sql(query).all())
        await here.write(lambda c: c.exec_driver_sql(query).all())
    await there.write(lambda c: c.exec_driver_sql("ALTER TABLE operations ADD COLUMN of_the_next_release text"))
    for ask in (here.read, here.write):
        await ask(lambda c: c.exec_driver_sql(query).all())


@pytest.mark.parametrize("given", ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31", "2026-06-01T12:00+05:45"])
async def test_queue_can_read_every_accepted_time(here: Database, given: str) -> None:
    columns, values = "kind, session_id, not_before, requested_at", f"'delete', 's', '{given}', '{given}'"
    insert = f"INSERT INTO operations ({columns}) VALUES ({values})"
    await here.write(lambda c: c.exec_driver_sql(insert))
    await here.read(lambda c: operations.next_due(c, after=NOW))
    (row,) = await here.read(lambda c: operation_views.listing(c, state=None, limit=1))
    assert row["not_before"].tzinfo is not None
    assert len(await here.write(claim)) == (given in {"-infinity", "4713-01-01 BC", "2026-06-01T12:00+05:45"})


@pytest.mark.parametrize("analyzed", [False, True])
async def test_page_of_a_mirror_of_8000_is_looked_up_by_its_indexes(here: Database, analyzed: bool) -> None:
    columns = "id, name, source_session_id, extra, version, change, valid_from, first_seen_at, seq"
    fill = (
        f"INSERT INTO sessions ({columns}) SELECT 'SES' || n, 'n', 'src-' || n, '{{}}', 1, 'created', now(), now(), n "
        "FROM generate_series(1, 8000) AS n"
    )
    await here.write(lambda c: c.exec_driver_sql(fill))
    if analyzed:
        await here.write(lambda c: c.exec_driver_sql("ANALYZE sessions"))

    def work(connection: sa.Connection) -> list[str]:
        at, keys = "2031-01-01T00:00:00.000000Z", [1, 2, 3]
        texts = [json.dumps([value] * 3) for value in ("1", "1", at)]
        width, statements = len(SESSIONS.columns), PostgresqlSessions(SESSIONS)
        written = ("1", "updated", at, "1", "[]", *[None] * (width - 1), "{}")
        content = [json.dumps([value] * 3) for value in written]
        asked = [
            (sources._CARRIERS_OF.postgresql, (json.dumps(["src-1"] * 100),)),
            (statements._insert, (at, None, None, 100, *[json.dumps(["x"] * 100)] * width)),
            (statements._stored, (json.dumps(["SES1"] * 100), json.dumps(["{}"] * 100))),
            (sessions_postgresql._LOCK, (*texts, keys)),
            (statements._archive, (texts[0], texts[2], keys)),
            (statements._update, (None, None, keys, *content)),
            (pages._IN_RANGE, (1, 100)),
        ]
        return [row[0] for text, values in asked for row in connection.exec_driver_sql(f"EXPLAIN {text}", values)]

    plan = await here.write(work)
    wrong = ("Seq Scan on sessions", "Bitmap Index Scan on ix_sessions_source", "hashed SubPlan")
    assert [step for step in plan if any(scan in step for scan in wrong)] == []


async def test_pass_over_unchanged_sessions_updates_no_row(tmp_path: Path, postgres_url: str) -> None:
    query = "SELECT key, xmin::text, ctid::text FROM sessions UNION SELECT 0, count(*)::text, '' FROM session_versions"
    async with open_harness(tmp_path, sessions=60, url=postgres_url) as harness:
        await harness.one_pass()
        before = await harness.sql(query)
        for _ in range(2):
            harness.clock.forward(300)
            assert (await harness.one_pass()).state == "complete"
        assert await harness.sql(query) == before


async def test_numbers_of_the_change_feed_are_in_the_order_of_commits(here: Database, there: Database) -> None:
    def create(session_id: str) -> Callable[[sa.Connection], sessions.ApplyResult]:
        return lambda c: sessions.apply(c, [session(session_id, "n")], Observation(T1, T1, new=True))

    async def feed() -> list[str]:
        query = "SELECT id FROM chat_session_changes ORDER BY seq"
        return list(await here.read(lambda c: c.exec_driver_sql(query).scalars().all()))

    async with engine_of(here).connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(create("began first"))
        async with anyio.create_task_group() as group:
            group.start_soon(there.write, create("began second"))
            await waits_for_a_lock(here)
            assert await feed() == []
            await transaction.commit()
    assert await feed() == ["began first", "began second"]
