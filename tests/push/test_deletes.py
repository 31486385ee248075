"""Delete: 2xx, 404 and 410 are done, and never the wrong session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.clock import utc_text
from syncd.mirror.store import sessions
from syncd.sandbox import Habits
from tests.helpers.harness import open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, worked

pytestmark = pytest.mark.both_databases


@pytest.mark.parametrize("gone", [404, 410])
@pytest.mark.parametrize("there", [True, False])
async def test_delete_by_id_is_done_with_a_2xx_a_404_and_a_410(tmp_path: Path, gone: Any, there: bool) -> None:
    async with open_harness(tmp_path, sessions=3, habits=Habits(gone_status=gone)) as harness:
        await harness.one_pass()
        if not there:
            harness.sandbox.delete("SES2")
        (operation_id,) = await harness.enqueue({"kind": "delete", "session_id": "SES2"})
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["last_status"]) == ("succeeded", 204 if there else gone)
        assert "SES2" not in await harness.live()
        assert await harness.live() == harness.there()


@pytest.mark.parametrize("status", [200, 202, 203, 204])
async def test_last_status_of_a_delete_is_the_one_that_albert_answered(tmp_path: Path, status: int) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        harness.sandbox.script("DELETE", SESSIONS, status)
        (operation_id,) = await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["last_status"]) == ("succeeded", status)


async def test_delete_by_source_looks_up_first_and_a_404_there_is_done(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue({"kind": "delete", "source_session_id": "no-session"})
        await harness.push().drain()
        assert (await harness.operation(operation_id))["state"] == "succeeded"
        assert [(request.method, request.raw_path) for request in harness.sandbox.requests] == [
            ("GET", f"{SESSIONS}/source/no-session")
        ]


async def test_target_is_durable_before_the_delete_leaves(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="n")
        seen: list[Any] = []

        async def look(_: web.BaseRequest) -> None:
            seen.extend(await harness.sql("SELECT state, target_session_id FROM operations"))

        harness.sandbox.script("DELETE", SESSIONS, look)
        (operation_id,) = await harness.enqueue({"kind": "delete", "source_session_id": "s-1"})
        await worked(harness, operation_id)
        assert seen == [{"state": "running", "target_session_id": there["id"]}]


@pytest.mark.parametrize("fault", ["lost_before", "lost_after", "error_500_after", "error_500", 429, 403])
async def test_session_created_again_under_the_source_id_survives_a_repeated_delete(tmp_path: Path, fault: Any) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s-1", name="old")
        harness.sandbox.script("DELETE", SESSIONS, fault)
        (operation_id,) = await harness.enqueue({"kind": "delete", "source_session_id": "s-1"})
        await harness.push().drain()
        for session_id in harness.sandbox.live():
            harness.sandbox.delete(session_id)
        new = harness.sandbox.create(source_session_id="s-1", name="new")
        (row,) = await worked(harness, operation_id)
        assert row["state"] == "succeeded"
        assert list(harness.sandbox.live()) == [new["id"]]


async def test_session_created_recently_by_an_operation_is_deleted_although_look_ups_lag(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(lookup_lag=45)) as harness:
        ids = await harness.enqueue(create(), {"kind": "delete", "source_session_id": "s-1"})
        rows = await worked(harness, *ids)
        assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
        assert harness.sandbox.live() == {}
        assert await harness.live() == {}


async def test_look_up_by_source_id_that_finds_nothing_deletes_the_session_in_the_mirror(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="n")
        await harness.one_pass()
        harness.sandbox.delete(there["id"])
        (operation_id,) = await harness.enqueue({"kind": "delete", "source_session_id": "s-1"})
        await worked(harness, operation_id)
        assert await harness.live() == {}


async def test_delete_and_its_tombstone_are_one_transaction(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        await harness.one_pass()
        await harness.add_refusing_trigger("UPDATE")
        (operation_id,) = await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await harness.push().drain()
        assert (await harness.operation(operation_id))["state"] == "pending"
        await harness.remove_trigger()
        await worked(harness, operation_id)
        assert list(await harness.live()) == ["SES2"]
        assert effects(harness, "deleted")


async def test_operation_that_fails_inside_syncd_is_dead_and_blocks_no_other(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        await harness.one_pass()
        await harness.add_refusing_trigger("UPDATE", "OLD.id = 'SES1'")
        ids = await harness.enqueue({"kind": "delete", "session_id": "SES1"}, {"kind": "delete", "session_id": "SES2"})
        rows = await worked(harness, *ids)
        assert [row["state"] for row in rows] == ["dead", "succeeded"]
        assert "the mirror refuses" in rows[0]["last_error"]
        assert await finished(harness, ids[0])


async def test_delete_of_a_session_that_the_mirror_knows_to_be_gone_waits_for_no_look_up(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        await harness.one_pass()
        (create_id,) = await harness.enqueue(create())
        await harness.push().drain()
        session_id = (await harness.operation(create_id))["result_session_id"]
        harness.sandbox.delete(session_id)
        (delete_id,) = await harness.enqueue({"kind": "delete", "session_id": session_id})
        await harness.push().drain()
        assert (await harness.operation(delete_id))["state"] == "pending"
        key = await harness.database.read(lambda c: sessions.key_of(c, session_id))
        assert key is not None
        await harness.database.write(lambda c: sessions.tombstone(c, [key], now=utc_text(harness.clock.now())))
        await harness.clock.sleep(10)
        await harness.push().drain()
        assert (await harness.operation(delete_id))["state"] == "succeeded"
