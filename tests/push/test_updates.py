"""Update renames a session or moves it; it can be sent again at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.sandbox import Habits, answers
from tests.helpers.harness import World, world
from tests.push.helpers import SESSIONS, create, effects, finished, until, worked, working

pytestmark = pytest.mark.both_databases


def update(**more: Any) -> dict[str, Any]:
    return {"kind": "update", **more}


async def one_session(w: World) -> str:
    there = w.sandbox.create(source_session_id="s-1", name="old", parent_id="FOL1")
    await w.one_pass()
    w.sandbox.requests.clear()
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
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        (one,) = await w.enqueue(update(**{key: session_id if key == "session_id" else "s-1"}, **changes))
        await w.push().drain()
        row = await w.operation(one)
        assert (row["state"], row["result_session_id"], row["last_error"]) == ("succeeded", session_id, None)
        wire = w.sandbox.live()[session_id]
        assert (wire["name"], wire.get("parentId")) == (name, folder)
        (stored,) = await w.sql("SELECT name, parent_id FROM chat_sessions")
        assert stored == {"name": name, "parent_id": folder}


async def test_update_sends_one_patch_between_two_look_ups(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        await w.enqueue(update(session_id=session_id, name="new"))
        await w.push().drain()
        path = f"{SESSIONS}/{session_id}"
        assert [(one.method, one.raw_path) for one in w.sandbox.requests] == [
            ("GET", path),
            ("PATCH", path),
            ("GET", path),
        ]


async def test_update_of_a_session_that_is_as_requested_sends_no_patch(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        (one,) = await w.enqueue(update(source_session_id="s-1", name="old", parent_id="FOL1"))
        await w.push().drain()
        assert (await w.operation(one))["result_session_id"] == session_id
        assert w.asked("PATCH") == []


async def test_update_is_a_new_version_in_the_history(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        await w.enqueue(update(session_id=session_id, name="new"))
        await w.push().drain()
        history = await w.sql("SELECT change, name FROM chat_session_history ORDER BY valid_from, change")
        assert [(row["change"], row["name"]) for row in history] == [("created", "old"), ("updated", "new")]
        assert (await w.one_pass()).state == "complete"
        assert (await w.last_pass())["unchanged"] == 1


LOST = ("lost_before", "lost_after", "error_500", "error_500_after", "cut")


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("fault", LOST)
async def test_lost_answer_is_looked_up_and_sent_again_only_if_needed(tmp_path: Path, fault: Any) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        w.sandbox.script("PATCH", SESSIONS, fault)
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        (row,) = await worked(w, one)
        assert (row["state"], w.there()) == ("succeeded", {session_id: "new"})
        applied = fault in {"lost_after", "error_500_after", "cut"}
        assert len(effects(w, "updated")) == 1
        assert len(w.asked("PATCH")) == (1 if applied else 2)
        assert await w.live() == w.there()


async def test_update_whose_last_look_up_failed_is_not_sent_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        w.sandbox.script("GET", f"{SESSIONS}/{session_id}", lambda _: None)
        w.sandbox.script("GET", f"{SESSIONS}/{session_id}", 500)
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        (row,) = await worked(w, one)
        assert (row["state"], row["attempts"]) == ("succeeded", 2)
        assert len(w.asked("PATCH")) == 1
        assert await w.live() == {session_id: "new"}


async def test_update_succeeds_only_when_look_ups_show_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.habits.lookup_lag = 30.0
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        began = w.clock.monotonic()
        (row,) = await worked(w, one)
        assert (row["state"], row["attempts"], row["last_error"]) == ("succeeded", 2, None)
        assert w.clock.monotonic() - began >= 30
        assert await w.live() == {session_id: "new"}


async def test_change_that_albert_accepts_and_ignores_is_dead(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        w.sandbox.script("PATCH", SESSIONS, lambda _: answers.garbled(), times=100)
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        (row,) = await worked(w, one, max_attempts=3)
        assert (row["state"], row["attempts"]) == ("dead", 4), "the third change has time to show"
        assert "accepted the update and shows no change: name is 'old' and not 'new'" in row["last_error"]
        assert len(w.asked("PATCH")) == row["attempts"]


async def test_change_that_albert_ignores_is_dead_although_each_process_lives_for_a_moment(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        w.sandbox.script("PATCH", SESSIONS, lambda _: answers.garbled(), times=100)
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        for _ in range(10):
            await w.push(max_attempts=3).drain()
            await w.clock.sleep(60)
        assert (await w.operation(one))["state"] == "dead"
        assert len(w.asked("PATCH")) == 4


async def test_update_of_a_session_that_was_created_just_now_waits_for_a_change_that_lags(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.sandbox.habits.lookup_lag = 5.0
        (made,) = await w.enqueue(create())
        await w.push().drain()
        session_id = (await w.operation(made))["result_session_id"]
        w.sandbox.script("PATCH", SESSIONS, 404)
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        (row,) = await worked(w, one)
        assert row["state"] == "succeeded"
        assert w.sandbox.live()[session_id]["name"] == "new"


@pytest.mark.parametrize("other", ["name", "parent_id"])
async def test_another_change_of_the_session_does_not_hide_that_the_update_was_not_applied(
    tmp_path: Path, other: str
) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)

        def change_something_else(_: web.BaseRequest) -> web.Response:
            w.sandbox.update(session_id, **({"parentId": "FOL9"} if other == "name" else {"name": "by others"}))
            return web.json_response({})

        w.sandbox.script("PATCH", SESSIONS, change_something_else)
        wanted = {"name": "new"} if other == "name" else {"parent_id": "FOL2"}
        (one,) = await w.enqueue(update(session_id=session_id, **wanted))
        (row,) = await worked(w, one)
        assert (row["state"], len(w.asked("PATCH"))) == ("succeeded", 2)
        (stored,) = await w.sql(f"SELECT {other} AS value FROM chat_sessions")
        assert stored["value"] == wanted[other]


async def test_crash_after_the_patch_is_looked_up_by_the_next_daemon(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        await w.sql("UPDATE operations SET state = 'running', attempts = 1, fence = 1")
        w.sandbox.update(session_id, name="new")
        push = w.push()
        await push.recover(abandoned=True)
        await push.drain()
        assert (await w.operation(one))["state"] == "succeeded"
        assert w.asked("PATCH") == []
        assert await w.live() == {session_id: "new"}


async def test_update_of_a_deleted_session_is_dead_with_the_reason(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=2) as w:
        session_id = await one_session(w)
        w.sandbox.delete(session_id)
        by_id, by_source = await w.enqueue(
            update(session_id=session_id, name="new"), update(source_session_id="nobody", name="new")
        )
        await w.push().drain()
        for one, text in ((by_id, f"no session {session_id}"), (by_source, "no session with the source id 'nobody'")):
            row = await w.operation(one)
            assert (row["state"], row["last_status"]) == ("dead", 404)
            assert text in row["last_error"]


async def test_operations_on_one_session_run_in_their_order(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ids = await w.enqueue(
            create("s", "first"),
            update(source_session_id="s", name="second"),
            update(source_session_id="s", name="third", parent_id="FOL1"),
            {"kind": "delete", "source_session_id": "s"},
            create("s", "fourth"),
        )
        rows = await worked(w, *ids)
        assert {row["state"] for row in rows} == {"succeeded"}
        assert [effect.kind for effect in w.sandbox.effects] == ["created", "updated", "updated", "deleted", "created"]
        assert list(w.there().values()) == ["fourth"]
        assert await w.live() == w.there()


async def test_update_waits_where_look_ups_lag_behind_the_create(tmp_path: Path) -> None:
    async with world(tmp_path, habits=Habits(lookup_lag=30.0)) as w:
        ids = await w.enqueue(create("s", "first"), update(source_session_id="s", name="second"))
        rows = await worked(w, *ids)
        assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
        assert list(w.there().values()) == ["second"]
        w.clock.forward(31)
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def test_target_by_source_id_is_kept_for_later_attempts(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)

        def replaced(_: web.BaseRequest) -> web.Response:
            w.sandbox.delete(session_id)
            w.sandbox.create(source_session_id="s-1", name="of a colleague")
            return web.Response(status=500)

        w.sandbox.create(source_session_id="other", name="a witness")
        await w.one_pass()
        w.sandbox.script("PATCH", SESSIONS, replaced)
        (one,) = await w.enqueue(update(source_session_id="s-1", name="new"))
        (row,) = await worked(w, one)
        assert (row["state"], row["target_session_id"]) == ("dead", session_id)
        assert sorted(w.there().values()) == ["a witness", "of a colleague"]


async def test_difference_after_the_update_is_noted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)

        def meanwhile(_: web.BaseRequest) -> None:
            w.sandbox.update(session_id, name="newer")

        w.sandbox.script("GET", f"{SESSIONS}/{session_id}", lambda _: None)
        w.sandbox.script("GET", f"{SESSIONS}/{session_id}", meanwhile)
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        await w.push().drain()
        row = await w.operation(one)
        assert row["state"] == "succeeded"
        assert row["last_error"] == "after the update, Albert shows that the name is 'newer' and not 'new'"
        assert await w.live() == {session_id: "newer"}


async def test_refused_update_is_dead_with_the_error_of_the_server(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        w.sandbox.script("PATCH", SESSIONS, 400)
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        await w.push().drain()
        row = await w.operation(one)
        assert (row["state"], row["last_status"]) == ("dead", 400)
        assert "scripted 400" in row["last_error"]


async def test_source_id_that_albert_answers_with_another_one_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        other = w.sandbox.create(source_session_id="S-1", name="other")
        ids = await w.enqueue(update(source_session_id="s-1", name="n"), {"kind": "delete", "source_session_id": "s-1"})
        w.sandbox.script("GET", f"{SESSIONS}/source/", lambda _: web.json_response(other), times=100)
        (row,) = await worked(w, ids[0], max_attempts=2)
        assert row["state"] == "dead"
        assert "'S-1'" in row["last_error"]
        assert "name it by its id" in row["last_error"]
        assert (effects(w, "updated"), effects(w, "deleted")) == ([], [])


async def test_update_that_is_stopped_in_the_middle_is_looked_up_at_the_next_start(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session_id = await one_session(w)
        w.sandbox.script("PATCH", SESSIONS, "hang_after")
        (one,) = await w.enqueue(update(session_id=session_id, name="new"))
        async with working(w.push()) as group:
            await until(w, lambda: w.there()[session_id] == "new")
            group.cancel_scope.cancel()
        assert (await w.operation(one))["state"] == "pending"
        async with working(w.push()):
            (row,) = await finished(w, one)
        assert (row["state"], len(w.asked("PATCH"))) == ("succeeded", 1)
