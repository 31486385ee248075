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
from tests.helpers.harness import World, world
from tests.push.helpers import SESSIONS, create, effects, finished, times, until, worked, working

pytestmark = pytest.mark.both_databases


def delete(session_id: str) -> dict[str, Any]:
    return {"kind": "delete", "session_id": session_id}


def gateway(w: World, *methods: str) -> None:
    w.sandbox.faults = Faults(gateway_404=1.0, only=list(methods))


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("methods", [[], ["GET"], ["POST", "DELETE", "PATCH"], ["DELETE"], ["POST"]])
async def test_minute_of_404s_from_a_gateway_decides_nothing(tmp_path: Path, methods: list[str]) -> None:
    async with world(tmp_path, sessions=6) as w:
        await w.one_pass()
        gateway(w, *methods)
        ids = await w.enqueue(
            *(delete(f"SES{n}") for n in (1, 2, 3)),
            *(create(f"s-{n}") for n in range(3)),
            {"kind": "update", "session_id": "SES4", "name": "new"},
            create("source of SES5"),
        )
        w.sandbox.create(source_session_id="source of SES5", name="wanted")
        began = w.clock.monotonic()
        async with working(w.push(max_attempts=3)):
            await until(w, lambda: w.clock.monotonic() >= began + 60)
            states = {row["state"] for row in await w.sql("SELECT state FROM operations")}
            assert states <= {"pending", "running", "succeeded"}
            w.sandbox.faults = Faults()
            rows = await finished(w, *ids)
        assert {row["state"] for row in rows} == {"succeeded"}
        assert {row["attempts"] for row in rows} == {1}
        assert sorted(effects(w)) == ["s-0", "s-1", "s-2", "source of SES5"]
        assert {"SES1", "SES2", "SES3"}.isdisjoint(w.there())
        assert w.there()["SES4"] == "new"
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def test_operation_behind_a_gateway_is_retried_slowly_and_the_wait_is_logged(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        gateway(w)
        before = len(w.sandbox.requests)
        (one,) = await w.enqueue(delete("SES1"))
        async with working(w.push()):
            await until(w, lambda: len(w.named("operation.retrying")) >= 8)
            gone = times(w, "DELETE")
            assert gone[-1] - gone[0] >= 40
            assert max(later - earlier for earlier, later in itertools.pairwise(gone)) <= 21
            assert len(w.sandbox.requests) - before <= 8 * 4
            w.sandbox.faults = Faults()
            await finished(w, one)
        first = w.named("operation.retrying")[0]
        assert (first["reason"], first["attempts"]) == ("gateway", 0)
        assert "gateway" in first["error"]
        assert len(w.named("absence.unproven")) == 1


async def test_existing_session_gets_no_second_one_while_only_look_ups_fail(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        w.sandbox.habits.duplicate_create = "duplicate"
        w.sandbox.create(source_session_id="known", name="wanted")
        await w.one_pass()
        w.sandbox.create(source_session_id="unknown to the mirror", name="wanted")

        def no_source_route(request: web.BaseRequest) -> web.StreamResponse | None:
            return answers.gateway() if "/source/" in request.raw_path else None

        w.sandbox.script("GET", SESSIONS, no_source_route, times=60)
        ids = await w.enqueue(create("known"), create("unknown to the mirror"), create("absent"))
        rows = await worked(w, *ids)
        assert [row["state"] for row in rows] == ["succeeded"] * 3
        assert sorted(effects(w)) == ["absent", "known", "unknown to the mirror"]


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("status", [404, 405, 410])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_404_or_405_to_a_change_is_an_outage(tmp_path: Path, method: str, status: int) -> None:
    async with world(tmp_path) as w:
        there = w.sandbox.create(source_session_id="s-1", name="old")
        await w.one_pass()
        changes = {
            "POST": create("new"),
            "PATCH": {"kind": "update", "session_id": there["id"], "name": "new"},
            "DELETE": delete(there["id"]),
        }
        (one,) = await w.enqueue(changes[method])
        w.sandbox.script(
            method, SESSIONS, lambda _: web.Response(status=status, text="<html>", content_type="text/html"), times=3
        )
        (row,) = await worked(w, one, max_attempts=2)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)
        assert len(times(w, method)) == 4


async def test_delete_answered_404_succeeds_when_a_witness_confirms_it(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        w.sandbox.delete("SES1")
        (one,) = await w.enqueue(delete("SES1"))
        await w.push().drain()
        row = await w.operation(one)
        assert (row["state"], row["last_status"], row["result_session_id"]) == ("succeeded", 404, "SES1")
        assert "SES1" not in await w.live()


async def test_three_gateway_answers_in_a_row_slow_the_queue_and_one_success_restores_it(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=5) as w:
        await w.one_pass()
        gateway(w)
        ids = await w.enqueue(*(delete(f"SES{n}") for n in range(1, 5)))
        async with working(w.push()):
            await until(w, lambda: w.named("queue.slowed"))
            w.sandbox.faults = Faults()
            await finished(w, *ids)
        assert len(w.named("queue.resumed")) == 1


async def test_delete_of_a_session_that_look_ups_do_not_show_yet_waits_for_the_end_of_a_gateway(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=2) as w:
        await w.one_pass()
        w.sandbox.habits.lookup_lag = 30
        (made,) = await w.enqueue(create("s"))
        (row,) = await worked(w, made)
        gateway(w, "DELETE")
        (one,) = await w.enqueue(delete(row["result_session_id"]))
        await w.push().drain()
        assert (await w.operation(one))["state"] == "pending"
        w.sandbox.faults = Faults()
        (row,) = await worked(w, one)
        assert row["state"] == "succeeded"
        assert effects(w) == ["s"]
        assert row["result_session_id"] not in w.there()


@pytest.mark.parametrize("kind", ["update", "delete"])
async def test_method_that_albert_does_not_have_ends_its_operation_dead(tmp_path: Path, kind: str) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        method = {"update": "PATCH", "delete": "DELETE"}[kind]
        w.sandbox.script(method, SESSIONS, 405, times=100)
        (one,) = await w.enqueue({"kind": kind, "session_id": "SES1"} | ({"name": "new"} if kind == "update" else {}))
        (row,) = await worked(w, one)
        assert (row["state"], row["last_status"], len(times(w, method))) == ("dead", 405, 1)


async def test_405_while_look_ups_fail_too_is_an_outage(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        w.sandbox.script("DELETE", SESSIONS, 405, times=3)
        w.sandbox.script("GET", f"{SESSIONS}/SES1", 503, times=3)
        (one,) = await w.enqueue(delete("SES1"))
        (row,) = await worked(w, one)
        assert (row["state"], len(times(w, "DELETE"))) == ("succeeded", 4)


async def test_operation_that_waits_behind_a_gateway_is_named_by_the_status(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        assert (await w.database.read(views.overview))["retrying"] == {"operations": 0, "since": None}
        w.sandbox.script("POST", SESSIONS, 405, times=100)
        one, _ = await w.enqueue(create("new"), create("later") | {"not_before": w.clock.now() + timedelta(days=1)})
        queued_at = (await w.operation(one))["requested_at"]
        async with working(w.push()):
            await until(w, lambda: w.named("operation.retrying"))
        retrying = (await w.database.read(views.overview))["retrying"]
        assert retrying == {"operations": 1, "since": queued_at}
