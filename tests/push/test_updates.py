"""Update renames a session or moves it; it can be sent again at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.sandbox import Habits, answers
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, until, worked, working

pytestmark = pytest.mark.both_databases


def update(**more: Any) -> dict[str, Any]:
    return {"kind": "update", **more}


async def one_session(harness: Harness) -> str:
    there = harness.sandbox.create(source_session_id="s-1", name="old", parent_id="FOL1")
    await harness.one_pass()
    harness.sandbox.requests.clear()
    return str(there["id"])


@pytest.mark.parametrize(
    ("changes", "name", "folder"),
    [
        ({"name": "new"}, "new", "FOL1"),
        ({"parent_id": "FOL2"}, "old", "FOL2"),
        ({"name": "new", "parent_id": "FOL2"}, "new", "FOL2"),
        ({"parent_id": ""}, "old", None),
        ({"name": "new", "parent_id": ""}, "new", None),
    ],
)
@pytest.mark.parametrize("key", ["session_id", "source_session_id"])
async def test_update_changes_only_the_fields_it_names(
    tmp_path: Path, key: str, changes: dict[str, Any], name: str, folder: str | None
) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        (operation_id,) = await harness.enqueue(
            update(**{key: session_id if key == "session_id" else "s-1"}, **changes)
        )
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["result_session_id"], row["last_error"]) == ("succeeded", session_id, None)
        wire = harness.sandbox.live()[session_id]
        assert (wire["name"], wire.get("parentId")) == (name, folder)
        (stored,) = await harness.sql("SELECT name, parent_id FROM chat_sessions")
        assert stored == {"name": name, "parent_id": folder}


async def test_update_sends_one_patch_between_two_look_ups(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        await harness.enqueue(update(session_id=session_id, name="new"))
        await harness.push().drain()
        path = f"{SESSIONS}/{session_id}"
        assert [(request.method, request.raw_path) for request in harness.sandbox.requests] == [
            ("GET", path),
            ("PATCH", path),
            ("GET", path),
        ]


async def test_update_of_a_session_that_is_as_requested_sends_no_patch(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        (operation_id,) = await harness.enqueue(update(source_session_id="s-1", name="old", parent_id="FOL1"))
        await harness.push().drain()
        assert (await harness.operation(operation_id))["result_session_id"] == session_id
        assert harness.asked("PATCH") == []


async def test_update_is_a_new_version_in_the_history(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        await harness.enqueue(update(session_id=session_id, name="new"))
        await harness.push().drain()
        history = await harness.sql("SELECT change, name FROM chat_session_history ORDER BY valid_from, change")
        assert [(row["change"], row["name"]) for row in history] == [("created", "old"), ("updated", "new")]
        assert (await harness.one_pass()).state == "complete"
        assert (await harness.last_pass())["unchanged"] == 1


LOST = ("lost_before", "lost_after", "error_500", "error_500_after", "cut")


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("fault", LOST)
async def test_lost_answer_is_looked_up_and_sent_again_only_if_needed(tmp_path: Path, fault: Any) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        harness.sandbox.script("PATCH", SESSIONS, fault)
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], harness.there()) == ("succeeded", {session_id: "new"})
        applied = fault in {"lost_after", "error_500_after", "cut"}
        assert len(effects(harness, "updated")) == 1
        assert len(harness.asked("PATCH")) == (1 if applied else 2)
        assert await harness.live() == harness.there()


async def test_update_whose_last_look_up_failed_is_not_sent_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        harness.sandbox.script("GET", f"{SESSIONS}/{session_id}", lambda _: None)
        harness.sandbox.script("GET", f"{SESSIONS}/{session_id}", 500)
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["attempts"]) == ("succeeded", 2)
        assert len(harness.asked("PATCH")) == 1
        assert await harness.live() == {session_id: "new"}


async def test_update_succeeds_only_when_look_ups_show_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.habits.lookup_lag = 30.0
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        began = harness.clock.monotonic()
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["attempts"], row["last_error"]) == ("succeeded", 2, None)
        assert harness.clock.monotonic() - began >= 30
        assert await harness.live() == {session_id: "new"}


async def test_change_that_albert_accepts_and_ignores_is_dead(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        harness.sandbox.script("PATCH", SESSIONS, lambda _: answers.garbled(), times=100)
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        (row,) = await worked(harness, operation_id, max_attempts=3)
        assert (row["state"], row["attempts"]) == ("dead", 4), "the third change has time to show"
        assert "accepted the update and shows no change: name is 'old' and not 'new'" in row["last_error"]
        assert len(harness.asked("PATCH")) == row["attempts"]


async def test_change_that_albert_ignores_is_dead_although_each_process_lives_for_a_moment(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        harness.sandbox.script("PATCH", SESSIONS, lambda _: answers.garbled(), times=100)
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        for _ in range(10):
            await harness.push(max_attempts=3).drain()
            await harness.clock.sleep(60)
        assert (await harness.operation(operation_id))["state"] == "dead"
        assert len(harness.asked("PATCH")) == 4


async def test_update_of_a_session_that_was_created_just_now_waits_for_a_change_that_lags(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.habits.lookup_lag = 5.0
        (create_id,) = await harness.enqueue(create())
        await harness.push().drain()
        session_id = (await harness.operation(create_id))["result_session_id"]
        harness.sandbox.script("PATCH", SESSIONS, 404)
        (update_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        (row,) = await worked(harness, update_id)
        assert row["state"] == "succeeded"
        assert harness.sandbox.live()[session_id]["name"] == "new"


@pytest.mark.parametrize("other", ["name", "parent_id"])
async def test_another_change_of_the_session_does_not_hide_that_the_update_was_not_applied(
    tmp_path: Path, other: str
) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)

        def change_something_else(_: web.BaseRequest) -> web.Response:
            harness.sandbox.update(session_id, **({"parentId": "FOL9"} if other == "name" else {"name": "by others"}))
            return web.json_response({})

        harness.sandbox.script("PATCH", SESSIONS, change_something_else)
        wanted = {"name": "new"} if other == "name" else {"parent_id": "FOL2"}
        (operation_id,) = await harness.enqueue(update(session_id=session_id, **wanted))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], len(harness.asked("PATCH"))) == ("succeeded", 2)
        (stored,) = await harness.sql(f"SELECT {other} AS value FROM chat_sessions")
        assert stored["value"] == wanted[other]


async def test_crash_after_the_patch_is_looked_up_by_the_next_daemon(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        await harness.sql("UPDATE operations SET state = 'running', attempts = 1, fence = 1")
        harness.sandbox.update(session_id, name="new")
        push = harness.push()
        await push.recover(abandoned=True)
        await push.drain()
        assert (await harness.operation(operation_id))["state"] == "succeeded"
        assert harness.asked("PATCH") == []
        assert await harness.live() == {session_id: "new"}


async def test_update_of_a_deleted_session_is_dead_with_the_reason(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        session_id = await one_session(harness)
        harness.sandbox.delete(session_id)
        by_id, by_source = await harness.enqueue(
            update(session_id=session_id, name="new"), update(source_session_id="no-session", name="new")
        )
        await harness.push().drain()
        for operation_id, text in (
            (by_id, f"no session {session_id}"),
            (by_source, "no session with the source id 'no-session'"),
        ):
            row = await harness.operation(operation_id)
            assert (row["state"], row["last_status"]) == ("dead", 404)
            assert text in row["last_error"]


async def test_operations_on_one_session_run_in_their_order(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(
            create("s", "first"),
            update(source_session_id="s", name="second"),
            update(source_session_id="s", name="third", parent_id="FOL1"),
            {"kind": "delete", "source_session_id": "s"},
            create("s", "fourth"),
        )
        rows = await worked(harness, *ids)
        assert {row["state"] for row in rows} == {"succeeded"}
        assert [effect.kind for effect in harness.sandbox.effects] == [
            "created",
            "updated",
            "updated",
            "deleted",
            "created",
        ]
        assert list(harness.there().values()) == ["fourth"]
        assert await harness.live() == harness.there()


async def test_update_waits_where_look_ups_lag_behind_the_create(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(lookup_lag=30.0)) as harness:
        ids = await harness.enqueue(create("s", "first"), update(source_session_id="s", name="second"))
        rows = await worked(harness, *ids)
        assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
        assert list(harness.there().values()) == ["second"]
        harness.clock.forward(31)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


async def test_target_by_source_id_is_kept_for_later_attempts(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)

        def replaced(_: web.BaseRequest) -> web.Response:
            harness.sandbox.delete(session_id)
            harness.sandbox.create(source_session_id="s-1", name="of a colleague")
            return web.Response(status=500)

        harness.sandbox.create(source_session_id="other", name="a witness")
        await harness.one_pass()
        harness.sandbox.script("PATCH", SESSIONS, replaced)
        (operation_id,) = await harness.enqueue(update(source_session_id="s-1", name="new"))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["target_session_id"]) == ("dead", session_id)
        assert sorted(harness.there().values()) == ["a witness", "of a colleague"]


async def test_difference_after_the_update_is_noted(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)

        def meanwhile(_: web.BaseRequest) -> None:
            harness.sandbox.update(session_id, name="newer")

        harness.sandbox.script("GET", f"{SESSIONS}/{session_id}", lambda _: None)
        harness.sandbox.script("GET", f"{SESSIONS}/{session_id}", meanwhile)
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert row["state"] == "succeeded"
        assert row["last_error"] == "after the update, Albert shows that the name is 'newer' and not 'new'"
        assert await harness.live() == {session_id: "newer"}


async def test_refused_update_is_dead_with_the_error_of_the_server(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        harness.sandbox.script("PATCH", SESSIONS, 400)
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["last_status"]) == ("dead", 400)
        assert "scripted 400" in row["last_error"]


async def test_source_id_that_albert_answers_with_another_one_changes_nothing(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        other = harness.sandbox.create(source_session_id="S-1", name="other")
        ids = await harness.enqueue(
            update(source_session_id="s-1", name="n"), {"kind": "delete", "source_session_id": "s-1"}
        )
        harness.sandbox.script("GET", f"{SESSIONS}/source/", lambda _: web.json_response(other), times=100)
        (row,) = await worked(harness, ids[0], max_attempts=2)
        assert row["state"] == "dead"
        assert "'S-1'" in row["last_error"]
        assert "name it by its id" in row["last_error"]
        assert (effects(harness, "updated"), effects(harness, "deleted")) == ([], [])


async def test_update_that_is_stopped_in_the_middle_is_looked_up_at_the_next_start(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        session_id = await one_session(harness)
        harness.sandbox.script("PATCH", SESSIONS, "hang_after")
        (operation_id,) = await harness.enqueue(update(session_id=session_id, name="new"))
        async with working(harness.push()) as group:
            await until(harness, lambda: harness.there()[session_id] == "new")
            group.cancel_scope.cancel()
        assert (await harness.operation(operation_id))["state"] == "pending"
        async with working(harness.push()):
            (row,) = await finished(harness, operation_id)
        assert (row["state"], len(harness.asked("PATCH"))) == ("succeeded", 1)
