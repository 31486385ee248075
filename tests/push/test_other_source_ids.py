"""A server that stores another source id than requested: the create is never sent again, and ends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from syncd.mirror.store import operation_decisions
from syncd.mirror.store.operation_decisions import Operator
from syncd.records.ids import OperationId
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, until, worked, working

pytestmark = pytest.mark.both_databases

OPERATOR = Operator("test", datetime(2026, 6, 1, tzinfo=UTC))
WANTED, STORED = "CRM-Äpfel-77", "crm-äpfel-77"
SETTLE = 60


def renaming(harness: Harness, stored: str = STORED, *, finds: bool = False) -> None:
    """Store each session under another source id; find it under the requested one too, or not."""
    made: list[dict[str, Any]] = []

    def post(_: web.BaseRequest) -> web.Response:
        made.append(harness.sandbox.create(source_session_id=stored, name="wanted"))
        return web.json_response(made[-1], status=201)

    def get(_: web.BaseRequest) -> web.Response | None:
        return web.json_response(made[0]) if finds and made else None

    harness.sandbox.script("POST", SESSIONS, post, times=100)
    harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", get, times=100)


@pytest.mark.parametrize("stored", [STORED, "CRM-Äpfel-77 ", "CRM-Äpfel", "ext:CRM-Äpfel-77"])
async def test_create_that_is_not_found_under_its_source_id_is_dead_with_both_ids(tmp_path: Path, stored: str) -> None:
    async with open_harness(tmp_path) as harness:
        renaming(harness, stored)
        (operation_id,) = await harness.enqueue(create(WANTED))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], len(harness.asked("POST"))) == ("dead", 1)
        assert repr(WANTED) in row["last_error"]
        assert repr(stored) in row["last_error"]
        assert await harness.live() == harness.there() == {row["result_session_id"]: "wanted"}
        (source,) = await harness.sql(
            "SELECT state, session_id FROM source_sessions WHERE source_session_id = ?", stored
        )
        assert source == {"state": "linked", "session_id": row["result_session_id"]}


async def test_create_that_is_found_under_its_source_id_succeeds_with_the_difference_noted(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        renaming(harness, finds=True)
        (operation_id,) = await harness.enqueue(create(WANTED))
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], len(harness.asked("POST"))) == ("succeeded", 1)
        assert row["last_error"] == f"adopted as it is: source id is {STORED!r} and not {WANTED!r}"
        assert await harness.live() == harness.there() == {row["result_session_id"]: "wanted"}


async def test_look_ups_may_lag_until_the_settle_time_is_over(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        made: list[dict[str, Any]] = []
        renaming(harness)
        harness.sandbox.scripts._waiting.pop()

        def later(_: web.BaseRequest) -> web.Response | None:
            made.extend(harness.sandbox.live().values())
            return web.json_response(made[0]) if harness.clock.monotonic() > began + SETTLE * 0.4 else None

        harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", later, times=100)
        began = harness.clock.monotonic()
        (operation_id,) = await harness.enqueue(create(WANTED))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], len(harness.asked("POST"))) == ("succeeded", 1)


async def test_mirror_has_the_session_while_the_operation_is_unknown(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        renaming(harness)
        (operation_id,) = await harness.enqueue(create(WANTED))
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert row["state"] == "unknown"
        assert await harness.live() == harness.there() == {row["result_session_id"]: "wanted"}
        assert harness.named("operation.unknown")[0]["reason"] == "other source id"


@pytest.mark.parametrize("gone", [False, True])
async def test_operation_that_an_operator_retries_is_not_sent_again(tmp_path: Path, gone: bool) -> None:
    async with open_harness(tmp_path, sessions=1) as harness:
        await harness.one_pass()
        renaming(harness)
        (operation_id,) = await harness.enqueue(create(WANTED))
        (row,) = await worked(harness, operation_id)
        if gone:
            harness.sandbox.delete(row["result_session_id"])
        operator = Operator("test", harness.clock.now())
        decided = await harness.database.write(
            lambda c: operation_decisions.retry(c, OperationId(operation_id), operator)
        )
        assert decided.problem is None
        (row,) = await worked(harness, operation_id)
        assert (row["state"], len(harness.asked("POST"))) == ("dead", 1)
        assert ("it is gone" if gone else repr(STORED)) in row["last_error"]


async def test_crash_before_the_outcome_is_recorded_does_not_send_it_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        renaming(harness)
        (operation_id,) = await harness.enqueue(create(WANTED))
        harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", lambda _: None)
        harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", "hang_before")
        harness.sandbox.scripts._waiting.insert(0, harness.sandbox.scripts._waiting.pop())
        harness.sandbox.scripts._waiting.insert(0, harness.sandbox.scripts._waiting.pop())
        async with working(harness.push()) as group:
            await until(harness, lambda: harness.asked("POST") and len(harness.asked("GET")) >= 2)
            group.cancel_scope.cancel()
        await harness.sql("UPDATE operations SET state = 'running', finished_at = NULL")
        push = harness.push()
        await push.recover(abandoned=True)
        async with working(push):
            (row,) = await finished(harness, operation_id)
        assert (row["state"], len(harness.asked("POST"))) == ("dead", 1)


async def test_session_that_albert_finds_in_another_form_is_adopted(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id=STORED, name="wanted")
        harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", lambda _: web.json_response(there))
        (operation_id,) = await harness.enqueue(create(WANTED))
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["result_session_id"], effects(harness)) == ("succeeded", there["id"], [STORED])
        assert "source id is" in row["last_error"]


async def test_look_up_answered_with_an_unrelated_session_is_not_adopted(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        other = harness.sandbox.create(source_session_id="unrelated", name="wanted")
        harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", lambda _: web.json_response(other))
        (operation_id,) = await harness.enqueue(create(WANTED))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["attempts"]) == ("succeeded", 2)
        assert row["result_session_id"] != other["id"]


async def test_source_id_that_albert_stores_in_another_form_is_a_conflict_with_a_note(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id=STORED, name="wanted")
        harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", lambda _: web.json_response(there))
        await harness.sql("INSERT INTO source_sessions (source_session_id) VALUES (?)", WANTED)
        assert await harness.reconcile().run() == 0
        (row,) = await harness.sql("SELECT state, note FROM source_sessions WHERE source_session_id = ?", WANTED)
        assert row["state"] == "conflict"
        assert there["id"] in row["note"]
        assert repr(STORED) in row["note"]
        assert await harness.live() == harness.there()


async def test_deletes_by_source_ids_that_lead_to_other_sessions_end_as_dead(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        sources = {wire["sourceSessionId"]: wire for wire in harness.sandbox.live().values()}
        others = {source.upper(): wire for source, wire in sources.items()}
        harness.sandbox.script(
            "GET", f"{SESSIONS}/source/", lambda request: web.json_response(others[request.path.rpartition("/")[2]]), 99
        )
        ids = await harness.enqueue(*({"kind": "delete", "source_session_id": source} for source in others))
        rows = await worked(harness, *ids, max_attempts=3)
        assert [(row["state"], row["attempts"]) for row in rows] == [("dead", 3)] * 3
        assert harness.asked("DELETE") == []


async def test_stop_before_the_id_is_stored_does_not_let_the_create_be_sent_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        renaming(harness)
        write, waits = harness.database.write, False

        async def write_unless_it_is_the_id(work: Any) -> Any:
            nonlocal waits
            if not waits and harness.there():
                waits = True
                await anyio.sleep_forever()
            return await write(work)

        harness.database.write = write_unless_it_is_the_id  # type: ignore[method-assign]
        (operation_id,) = await harness.enqueue(create(WANTED))
        async with anyio.create_task_group() as group:
            group.start_soon(harness.push().drain)
            await until(harness, lambda: waits)
            group.cancel_scope.cancel()
        row = await harness.operation(operation_id)
        assert (row["state"], row["target_session_id"]) == ("unknown", *harness.there())
        assert await harness.live() == harness.there()
        (row,) = await worked(harness, operation_id)
        assert (row["state"], len(harness.asked("POST"))) == ("dead", 1)
        assert repr(STORED) in row["last_error"]


async def test_stop_during_the_look_up_leaves_the_settle_time_to_later_ones(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        renaming(harness)
        harness.sandbox.scripts._waiting.pop()
        harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", lambda _: None)  # the one before the create
        harness.sandbox.script("GET", f"{SESSIONS}/source/CRM", "hang_before")
        (operation_id,) = await harness.enqueue(create(WANTED))
        async with anyio.create_task_group() as group:
            group.start_soon(harness.push().drain)
            await until(harness, lambda: len(harness.asked("GET", f"{SESSIONS}/source")) == 2)
            group.cancel_scope.cancel()
        row = await harness.operation(operation_id)
        assert row["state"] == "unknown"
        assert row["target_session_id"] in harness.there()


async def test_create_whose_session_has_an_id_that_cannot_be_sent_is_dead_with_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        odd = {"id": "..", "name": "wanted", "sourceSessionId": STORED}
        harness.sandbox.script("POST", SESSIONS, lambda _: web.json_response(odd, status=201))
        (operation_id,) = await harness.enqueue(create(WANTED))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["result_session_id"], len(harness.asked("POST"))) == ("dead", "..", 1)
        assert repr(STORED) in row["last_error"]
        await harness.database.write(lambda c: operation_decisions.retry(c, OperationId(operation_id), OPERATOR))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], len(harness.asked("POST"))) == ("dead", 1)
