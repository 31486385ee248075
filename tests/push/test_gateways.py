"""A 404 that does not come from Albert is never a judgement: operations wait and use no attempt."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.mirror.read import views
from syncd.sandbox import answers
from syncd.sandbox.faults import Faults
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, times, until, worked, working

pytestmark = pytest.mark.both_databases


def delete(session_id: str) -> dict[str, Any]:
    return {"kind": "delete", "session_id": session_id}


def gateway(harness: Harness, *methods: str) -> None:
    harness.sandbox.faults = Faults(gateway_404=1.0, only=list(methods))


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("methods", [[], ["GET"], ["POST", "DELETE", "PATCH"], ["DELETE"], ["POST"]])
async def test_minute_of_404s_from_a_gateway_decides_nothing(tmp_path: Path, methods: list[str]) -> None:
    async with open_harness(tmp_path, sessions=6) as harness:
        await harness.one_pass()
        gateway(harness, *methods)
        ids = await harness.enqueue(
            *(delete(f"SES{n}") for n in (1, 2, 3)),
            *(create(f"s-{n}") for n in range(3)),
            {"kind": "update", "session_id": "SES4", "name": "new"},
            create("source of SES5"),
        )
        harness.sandbox.create(source_session_id="source of SES5", name="wanted")
        began = harness.clock.monotonic()
        async with working(harness.push(max_attempts=3)):
            await until(harness, lambda: harness.clock.monotonic() >= began + 60)
            states = {row["state"] for row in await harness.sql("SELECT state FROM operations")}
            assert states <= {"pending", "running", "succeeded"}
            harness.sandbox.faults = Faults()
            rows = await finished(harness, *ids)
        assert {row["state"] for row in rows} == {"succeeded"}
        assert {row["attempts"] for row in rows} == {1}
        assert sorted(effects(harness)) == ["s-0", "s-1", "s-2", "source of SES5"]
        assert {"SES1", "SES2", "SES3"}.isdisjoint(harness.there())
        assert harness.there()["SES4"] == "new"
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


async def test_operation_behind_a_gateway_is_retried_slowly_and_the_wait_is_logged(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        gateway(harness)
        before = len(harness.sandbox.requests)
        (operation_id,) = await harness.enqueue(delete("SES1"))
        async with working(harness.push()):
            await until(harness, lambda: len(harness.named("operation.retrying")) >= 8)
            gone = times(harness, "DELETE")
            assert gone[-1] - gone[0] >= 40
            assert max(later - earlier for earlier, later in itertools.pairwise(gone)) <= 21
            assert len(harness.sandbox.requests) - before <= 8 * 4
            harness.sandbox.faults = Faults()
            await finished(harness, operation_id)
        first = harness.named("operation.retrying")[0]
        assert (first["reason"], first["attempts"]) == ("gateway", 0)
        assert "gateway" in first["error"]
        assert len(harness.named("absence.unproven")) == 1


async def test_existing_session_gets_no_second_one_while_only_look_ups_fail(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        harness.sandbox.habits.duplicate_create = "duplicate"
        harness.sandbox.create(source_session_id="known", name="wanted")
        await harness.one_pass()
        harness.sandbox.create(source_session_id="unknown to the mirror", name="wanted")

        def no_source_route(request: web.BaseRequest) -> web.StreamResponse | None:
            return answers.gateway() if "/source/" in request.raw_path else None

        harness.sandbox.script("GET", SESSIONS, no_source_route, times=60)
        ids = await harness.enqueue(create("known"), create("unknown to the mirror"), create("absent"))
        rows = await worked(harness, *ids)
        assert [row["state"] for row in rows] == ["succeeded"] * 3
        assert sorted(effects(harness)) == ["absent", "known", "unknown to the mirror"]


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("status", [404, 405, 410])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_404_or_405_to_a_change_is_an_outage(tmp_path: Path, method: str, status: int) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="old")
        await harness.one_pass()
        changes = {
            "POST": create("new"),
            "PATCH": {"kind": "update", "session_id": there["id"], "name": "new"},
            "DELETE": delete(there["id"]),
        }
        (operation_id,) = await harness.enqueue(changes[method])
        harness.sandbox.script(
            method, SESSIONS, lambda _: web.Response(status=status, text="<html>", content_type="text/html"), times=3
        )
        (row,) = await worked(harness, operation_id, max_attempts=2)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)
        assert len(times(harness, method)) == 4


async def test_delete_answered_404_succeeds_when_a_witness_confirms_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES1")
        (operation_id,) = await harness.enqueue(delete("SES1"))
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["last_status"], row["result_session_id"]) == ("succeeded", 404, "SES1")
        assert "SES1" not in await harness.live()


async def test_three_gateway_answers_in_a_row_slow_the_queue_and_one_success_restores_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        gateway(harness)
        ids = await harness.enqueue(*(delete(f"SES{n}") for n in range(1, 5)))
        async with working(harness.push()):
            await until(harness, lambda: harness.named("queue.slowed"))
            harness.sandbox.faults = Faults()
            await finished(harness, *ids)
        assert len(harness.named("queue.resumed")) == 1


async def test_delete_of_a_session_that_look_ups_do_not_show_yet_waits_for_the_end_of_a_gateway(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        await harness.one_pass()
        harness.sandbox.habits.lookup_lag = 30
        (create_id,) = await harness.enqueue(create("s"))
        (row,) = await worked(harness, create_id)
        gateway(harness, "DELETE")
        (delete_id,) = await harness.enqueue(delete(row["result_session_id"]))
        await harness.push().drain()
        assert (await harness.operation(delete_id))["state"] == "pending"
        harness.sandbox.faults = Faults()
        (row,) = await worked(harness, delete_id)
        assert row["state"] == "succeeded"
        assert effects(harness) == ["s"]
        assert row["result_session_id"] not in harness.there()


@pytest.mark.parametrize("kind", ["update", "delete"])
async def test_method_that_albert_does_not_have_ends_its_operation_dead(tmp_path: Path, kind: str) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        method = {"update": "PATCH", "delete": "DELETE"}[kind]
        harness.sandbox.script(method, SESSIONS, 405, times=100)
        (operation_id,) = await harness.enqueue(
            {"kind": kind, "session_id": "SES1"} | ({"name": "new"} if kind == "update" else {})
        )
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["last_status"], len(times(harness, method))) == ("dead", 405, 1)


async def test_405_while_look_ups_fail_too_is_an_outage(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("DELETE", SESSIONS, 405, times=3)
        harness.sandbox.script("GET", f"{SESSIONS}/SES1", 503, times=3)
        (operation_id,) = await harness.enqueue(delete("SES1"))
        (row,) = await worked(harness, operation_id)
        assert (row["state"], len(times(harness, "DELETE"))) == ("succeeded", 4)


async def test_operation_that_waits_behind_a_gateway_is_named_by_the_status(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        assert (await harness.database.read(views.overview))["retrying"] == {"operations": 0, "since": None}
        harness.sandbox.script("POST", SESSIONS, 405, times=100)
        operation_id, _ = await harness.enqueue(
            create("new"), create("later") | {"not_before": harness.clock.now() + timedelta(days=1)}
        )
        queued_at = (await harness.operation(operation_id))["requested_at"]
        async with working(harness.push()):
            await until(harness, lambda: harness.named("operation.retrying"))
        retrying = (await harness.database.read(views.overview))["retrying"]
        assert retrying == {"operations": 1, "since": queued_at}
