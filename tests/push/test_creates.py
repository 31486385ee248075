"""Create is "make sure that this source session exists"."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.mirror.store import initial_load
from syncd.sandbox import Habits
from tests.helpers.harness import open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, times, until, worked, working

pytestmark = pytest.mark.both_databases

LOST = (
    "lost_before", "lost_after", "hang_before", "hang_after", "cut", "garbled",
    "error_500", "error_500_after", "error_503_retry_after",
)  # fmt: skip
NOT_DONE = frozenset({"lost_before", "hang_before", "error_500", "error_503_retry_after"})


async def test_create_looks_up_and_after_a_404_sends_exactly_one_post(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue(create(parent_id="FOL7"))
        await harness.push().drain()
        asked = [(request.method, request.raw_path) for request in harness.sandbox.requests]
        assert asked == [("GET", f"{SESSIONS}/source/s-1"), ("POST", SESSIONS)]
        row = await harness.operation(operation_id)
        assert (row["state"], row["last_error"], row["attempts"]) == ("succeeded", None, 1)
        wire = harness.sandbox.live()[row["result_session_id"]]
        assert (wire["name"], wire["sourceSessionId"], wire["parentId"]) == ("wanted", "s-1", "FOL7")


async def test_existing_session_that_is_as_requested_is_adopted_without_a_post(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="wanted")
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["result_session_id"], row["last_error"]) == ("succeeded", there["id"], None)
        assert harness.asked("POST") == []
        assert await harness.live() == harness.there()


async def test_create_whose_attempts_all_failed_is_dead_with_the_last_error(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue(create())
        harness.sandbox.script("POST", SESSIONS, 500, times=100)
        (row,) = await worked(harness, operation_id, max_attempts=2)
        assert (row["state"], row["attempts"]) == ("dead", 2)
        assert "2 attempts: none created a session that look-ups find; the last: POST" in row["last_error"]
        assert "scripted 500" in row["last_error"]


@pytest.mark.parametrize(("fields", "said"), [({"name": "other"}, "name"), ({"parent_id": "FOL1"}, "folder")])
async def test_session_that_differs_is_adopted_unchanged_with_a_note(
    tmp_path: Path, fields: dict[str, str], said: str
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s-1", **({"name": "wanted"} | fields))
        before = harness.sandbox.live()
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert row["state"] == "succeeded"
        assert said in row["last_error"]
        assert harness.sandbox.live() == before
        assert {request.method for request in harness.sandbox.requests} == {"GET"}


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("habit", [("conflict", 0.0), ("duplicate", 45.0), ("first", 45.0)])
@pytest.mark.parametrize("fault", LOST)
async def test_lost_answer_makes_a_create_unknown_and_ends_with_one_session(
    tmp_path: Path, fault: Any, habit: Any
) -> None:
    habits = Habits(duplicate_create=habit[0], lookup_lag=habit[1])
    seconds = 1.0 if fault in {"hang_before", "hang_after"} else 5.0  # the other requests must not reach it
    async with open_harness(tmp_path, habits=habits, request_timeout=seconds) as harness:
        harness.sandbox.script("POST", SESSIONS, fault)
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        assert (await harness.operation(operation_id))["state"] == "unknown"
        (row,) = await worked(harness, operation_id)
        assert row["state"] == "succeeded"
        assert effects(harness) == ["s-1"]
        assert len(times(harness, "POST")) == 1 + (fault in NOT_DONE)
        assert await harness.live() == harness.there()


async def test_unknown_create_is_sent_again_only_after_lookups_spread_over_the_settle_time(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, "lost_before")
        (operation_id,) = await harness.enqueue(create())
        await worked(harness, operation_id)
        first, second = times(harness, "POST")
        between = [at - first for at in times(harness, "GET", f"{SESSIONS}/source/") if first < at <= second]
        assert len(between) >= 4
        assert between[0] < 5
        assert between[-1] >= 60
        assert second - first >= 60
        assert max(b - a for a, b in itertools.pairwise(between)) <= 40


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("failure", [500, 403, 429, 400, "lost_before", "garbled"])
async def test_failed_look_up_decides_nothing_and_does_not_count(tmp_path: Path, failure: Any) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue(create())
        harness.sandbox.script("POST", SESSIONS, "lost_before")
        await harness.push().drain()
        harness.sandbox.script("GET", f"{SESSIONS}/source/", failure, times=6)
        async with working(harness.push()):
            await until(harness, lambda: len(harness.sandbox.scripts) == 0)
            row = await harness.operation(operation_id)
            assert (row["state"], row["lookups"], row["attempts"]) == ("unknown", 0, 1)
            (row,) = await finished(harness, operation_id)
        assert row["state"] == "succeeded"
        first, second = times(harness, "POST")
        looked = [
            r for r in harness.sandbox.requests if r.method == "GET" and first < r.at <= second and r.status == 404
        ]
        assert len(looked) >= 4


@pytest.mark.parametrize("duplicate", ["conflict", "bad_request", "first"])
async def test_session_made_between_the_lookup_and_the_post_is_adopted(tmp_path: Path, duplicate: Any) -> None:
    async with open_harness(tmp_path, habits=Habits(duplicate_create=duplicate)) as harness:

        def meanwhile(_: web.BaseRequest) -> None:
            harness.sandbox.create(source_session_id="s-1", name="theirs")

        harness.sandbox.script("POST", SESSIONS, meanwhile)
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert row["state"] == "succeeded"
        assert "theirs" in row["last_error"]
        assert effects(harness) == ["s-1"]
        assert await harness.live() == harness.there()


async def test_conflict_with_lookups_that_lag_is_adopted_when_they_have_caught_up(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(duplicate_create="conflict", lookup_lag=50)) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="wanted")
        (operation_id,) = await harness.enqueue(create())
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["result_session_id"]) == ("succeeded", there["id"])
        assert len(times(harness, "POST")) == 1


async def test_create_refused_with_400_is_dead_with_the_error_of_the_server_after_another_look_up(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, 400)
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["last_status"]) == ("dead", 400)
        assert "scripted 400" in row["last_error"]
        assert [request.method for request in harness.sandbox.requests] == ["GET", "POST", "GET"]


async def test_attempts_with_lost_answers_run_out(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, "lost_before", times=3)
        (operation_id,) = await harness.enqueue(create())
        (row,) = await worked(harness, operation_id, max_attempts=3)
        assert row["state"] == "dead"
        assert len(times(harness, "POST")) == 3


async def test_succeeded_create_is_in_the_mirror_in_the_same_transaction(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue(create())
        await harness.add_refusing_trigger("INSERT")
        await harness.push().drain()
        assert (await harness.operation(operation_id))["state"] != "succeeded"
        await harness.remove_trigger()
        (row,) = await worked(harness, operation_id)
        assert row["state"] == "succeeded"
        assert effects(harness) == ["s-1"]
        assert row["result_session_id"] in await harness.live()


@pytest.mark.sqlite  # on PostgreSQL the index stays
async def test_create_succeeds_during_a_first_pass_that_has_dropped_the_index(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.database.write(initial_load.begin)
        (create_id,) = await harness.enqueue(create())
        (row,) = await worked(harness, create_id)
        assert row["state"] == "succeeded"
        assert not harness.named("operation.failed")
        assert len(effects(harness)) == 1
