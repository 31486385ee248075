"""`source_sessions` is kept true, and Albert is asked only for what the mirror cannot answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web

from syncd.mirror.schema.tables import source_sessions
from syncd.mirror.store import sources
from syncd.records.ids import SourceId
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create

pytestmark = pytest.mark.both_databases


async def source(harness: Harness, source_id: str) -> dict[str, Any]:
    query = "SELECT state, session_id, note, checked_at FROM source_sessions WHERE source_session_id = ?"
    return (await harness.sql(query, source_id))[0]


async def insert(harness: Harness, *ids: str) -> None:
    for source_id in ids:
        await harness.sql(
            "INSERT INTO source_sessions (source_session_id) VALUES (?) ON CONFLICT (source_session_id) "
            "DO UPDATE SET state = 'unresolved', session_id = NULL, checked_at = NULL, note = NULL",
            source_id,
        )


async def test_source_that_only_albert_knows_is_linked_and_mirrored(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="n")
        await insert(harness, "s-1")
        assert await harness.reconcile().run() == 0
        row = await source(harness, "s-1")
        assert (row["state"], row["session_id"]) == ("linked", there["id"])
        assert await harness.live() == harness.there()
        assert [event["source_session_id"] for event in harness.named("source.linked")] == ["s-1"]


async def test_source_id_that_answers_404_is_missing_and_looked_up_again_after_a_while(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(harness, "no-session")
        for _ in range(3):
            await harness.reconcile().run()
        assert (await source(harness, "no-session"))["state"] == "missing"
        assert len(harness.sandbox.requests) == 1
        assert len(harness.named("source.missing")) == 1
        harness.sandbox.create(source_session_id="no-session", name="n")
        harness.clock.forward(3601)
        await harness.reconcile().run()
        assert (await source(harness, "no-session"))["state"] == "linked"


async def test_two_thousand_linked_sources_cost_no_request(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2000, habits=Habits(page_size=500)) as harness:
        await harness.one_pass()
        before = len(harness.sandbox.requests)
        assert await harness.reconcile().run() == 0
        assert len(harness.sandbox.requests) == before
        assert await harness.sql("SELECT DISTINCT state FROM source_sessions") == [{"state": "linked"}]


async def test_source_that_a_program_inserts_is_resolved_by_the_mirror_without_a_request(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="n")
        await harness.one_pass()
        await insert(harness, "s-1")
        before = len(harness.sandbox.requests)
        await harness.reconcile().run()
        assert (await source(harness, "s-1"))["session_id"] == there["id"]
        assert len(harness.sandbox.requests) == before


@pytest.mark.parametrize("page_size", [1, 500])
async def test_empty_source_that_a_session_carries_is_a_row_like_any_other(tmp_path: Path, page_size: int) -> None:
    async with open_harness(tmp_path, sessions=3, habits=Habits(page_size=page_size)) as harness:
        there = harness.sandbox.create(source_session_id="", name="made by hand")
        await harness.one_pass()
        row = await source(harness, "")
        assert (row["state"], row["session_id"]) == ("linked", there["id"])


async def test_source_inserted_before_its_session_is_linked_by_the_pass(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(harness, "s-1")
        harness.sandbox.create(source_session_id="s-1", name="n")
        await harness.one_pass()
        assert (await source(harness, "s-1"))["state"] == "linked"


async def test_several_sessions_with_one_source_are_a_conflict_that_names_them_and_deletes_none(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path) as harness:
        ids = [harness.sandbox.create(source_session_id="s-1", name="n")["id"] for _ in range(3)]
        await harness.one_pass()
        await harness.reconcile().run()
        row = await source(harness, "s-1")
        assert row["state"] == "conflict"
        assert all(session_id in row["note"] for session_id in ids)
        assert harness.named("source.conflict")
        assert len(harness.sandbox.live()) == 3
        assert await harness.live() == harness.there()


async def test_source_id_of_a_vanished_session_is_looked_up_and_linked_to_the_new_one(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        old = harness.sandbox.create(source_session_id="s-1", name="n")
        await harness.one_pass()
        harness.sandbox.delete(old["id"])
        new = harness.sandbox.create(source_session_id="s-1", name="n")
        await harness.enqueue({"kind": "delete", "session_id": old["id"]})
        await harness.push().drain()
        assert (await source(harness, "s-1"))["state"] == "unresolved"
        await harness.reconcile().run()
        assert (await source(harness, "s-1"))["session_id"] == new["id"]


async def test_source_that_an_operation_is_busy_with_is_left_to_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create("s-1"))
        assert await harness.reconcile().run() == 0
        assert len(harness.sandbox.requests) == 0
        assert (await source(harness, "s-1"))["state"] == "unresolved"


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("failure", [500, 503, 403, 400, 429, 401, "lost_before", "garbled"])
async def test_error_decides_nothing_and_the_source_id_is_looked_up_again(tmp_path: Path, failure: Any) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s-1", name="n")
        await insert(harness, "s-1")
        harness.sandbox.script("GET", f"{SESSIONS}/source/", failure)
        assert await harness.reconcile().run() == 1
        assert (await source(harness, "s-1"))["state"] == "unresolved"
        assert await harness.reconcile().run() == 0
        assert (await source(harness, "s-1"))["state"] == "linked"


@pytest.mark.parametrize("value", ["", ".", "..", "a\nb", "a\x00b", "x" * 2000])
@pytest.mark.sqlite  # it looks with SQLite's own means
async def test_source_that_cannot_be_sent_gets_a_note_and_is_never_on_the_wire(tmp_path: Path, value: str) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(harness, value, "fine")
        assert await harness.reconcile().run() == 0
        row = await source(harness, value)
        assert row["state"] == "unresolved"
        assert row["note"]
        assert [request.raw_path for request in harness.sandbox.requests] == [f"{SESSIONS}/source/fine"]


@pytest.mark.sqlite  # it looks with SQLite's own means
async def test_source_id_that_is_not_utf8_gets_a_note_and_delays_no_other(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql("INSERT INTO source_sessions (source_session_id) VALUES (CAST(x'ff' AS TEXT))")
        await harness.sql("INSERT INTO source_sessions (source_session_id, note) VALUES ('b', CAST(x'ff' AS TEXT))")
        await insert(harness, "a")
        assert await harness.reconcile().run() == 0
        rows = await harness.sql("SELECT hex(source_session_id) AS h, state, note IS NULL AS bare FROM source_sessions")
        assert {(row["h"], row["state"]) for row in rows} == {
            ("FF", "unresolved"), ("61", "missing"), ("62", "missing"),
        }  # fmt: skip
        assert [row["bare"] for row in rows if row["h"] == "FF"] == [0]
        assert len(harness.sandbox.requests) == 2


@pytest.mark.parametrize("after", [None, SourceId("a")])
async def test_source_ids_to_look_up_are_found_without_reading_the_linked_ones(
    tmp_path: Path, after: SourceId | None
) -> None:
    async with open_harness(tmp_path) as harness:
        linked = [{"source_session_id": f"s-{n}", "state": "linked", "session_id": f"SES{n}"} for n in range(5000)]
        on_postgresql = harness.database.dialect == "postgresql"
        explain = "EXPLAIN" if on_postgresql else "EXPLAIN QUERY PLAN"

        def work(connection: Any) -> list[str]:
            connection.execute(sa.insert(source_sessions), linked)
            statements: list[Any] = []
            sa.event.listen(connection, "before_cursor_execute", lambda *a: statements.append((a[2], a[3])))
            sources.to_ask(connection, checked_before=harness.clock.now(), limit=500, after=after)
            text, values = statements[0]
            return [row[-1] for row in connection.exec_driver_sql(f"{explain} {text}", values)]

        plan = "\n".join(await harness.database.write(work))
        assert "ix_source_sessions_to_ask" in plan, plan
        if not on_postgresql:  # its planner may scan an empty table
            assert "SEARCH operations USING INDEX ix_operations_active_source" in plan, plan


def fail(harness: Harness, *numbers: int) -> None:
    """Answer the look-ups of some source ids with an error."""
    for number in numbers:
        harness.sandbox.script("GET", f"{SESSIONS}/source/s-{number}", 500, times=100)


async def test_round_without_answers_ends_early_and_the_next_one_begins_after_its_source_ids(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(harness, *(f"s-{number}" for number in range(8)))
        fail(harness, 0, 1, 2)
        reconcile = harness.reconcile()
        assert await reconcile.run() == 3
        assert len(harness.asked("GET")) == 3
        assert await reconcile.run() == 3
        states = [(await source(harness, f"s-{number}"))["state"] for number in range(8)]
        assert states == ["unresolved"] * 3 + ["missing"] * 5


async def test_round_that_begins_in_the_middle_asks_for_each_source_id_once(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(harness, *(f"s-{number}" for number in range(6)))
        fail(harness, 0, 1, 2)
        reconcile = harness.reconcile()
        assert await reconcile.run() == 3
        fail(harness, 5)
        harness.sandbox.requests.clear()
        await reconcile.run()
        paths = harness.asked("GET")
        assert len(set(paths)) == len(paths)


async def test_look_up_of_a_deleted_session_leaves_its_restoring_to_a_listing(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("DELETE", SESSIONS, lambda _: web.Response(status=204))
        harness.clock.forward(1)
        source_id = harness.sandbox.live()["SES1"]["sourceSessionId"]
        (operation_id,) = await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await harness.push().drain()
        harness.clock.forward(3600)
        await insert(harness, source_id)
        harness.sandbox.requests.clear()
        await harness.reconcile().run()
        assert [path for path in harness.asked("GET") if "/source/" in path] != []
        assert "SES1" not in await harness.live()
        assert (await harness.one_pass()).state == "complete"
        (event,) = harness.named("operation.contradicted")
        assert (event["operation_id"], event["session_id"]) == (operation_id, "SES1")
        await harness.push().drain()
        assert "SES1" not in harness.there()


async def test_sessions_that_cannot_be_read_do_not_keep_other_source_ids_unresolved(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:

        def unreadable(request: web.BaseRequest) -> web.Response:
            source_id = request.path.rpartition("/")[2]
            return web.json_response({"id": f"SES{source_id}", "sourceSessionId": source_id, "name": 5})

        harness.sandbox.script("GET", f"{SESSIONS}/source/a-", unreadable, times=100)
        await insert(harness, "a-1", "a-2", "a-3", "z")
        assert await harness.reconcile().run() == 0
        assert (await source(harness, "z"))["state"] == "missing"
        row = await source(harness, "a-1")
        assert row["state"] == "unresolved"
        assert row["note"].startswith("Albert answers with SESa-1: ")
        await harness.reconcile().run()
        assert len(harness.asked("GET", f"{SESSIONS}/source/a-")) == 3, "they are requested again after an hour"


async def test_source_id_that_stays_unresolved_is_requested_once_while_look_ups_may_lag(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s-1", name="n")
        await harness.one_pass()
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.habits.lookup_lag = 20.0
        session_id = next(iter(await harness.live()))
        await harness.enqueue({"kind": "delete", "session_id": session_id})
        await harness.push().drain()
        flow = harness.reconcile()
        harness.sandbox.requests.clear()
        for _ in range(30):
            await flow.run()
            harness.clock.forward(1)
        assert len(harness.asked("GET", f"{SESSIONS}/source/s-1")) == 1
        harness.clock.forward(flow.settle)
        await flow.run()
        assert (await source(harness, "s-1"))["state"] == "missing"


async def test_outage_ends_a_round_after_three_requests_although_the_first_source_ids_are_not_due(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path) as harness:
        flow = harness.reconcile()
        harness.sandbox.script(
            "GET", f"{SESSIONS}/source/a-", lambda r: web.json_response({"id": f"SES{r.path[-3:]}"}), 99
        )
        await insert(harness, *(f"a-{number}" for number in range(5)))
        await flow.run()
        await harness.sql("UPDATE source_sessions SET checked_at = NULL")
        await insert(harness, *(f"b-{number}" for number in range(20)))
        harness.sandbox.requests.clear()
        harness.sandbox.script("GET", "/", 500, times=99)
        assert await flow.run() == 3
        assert len(harness.asked("GET", f"{SESSIONS}/source/")) == 3
