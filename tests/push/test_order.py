"""Operations on one key run in the order of their ids, one at a time; the operator may cancel and retry."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sqlalchemy as sa
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncd.mirror.store import operation_decisions, operation_views, operations
from syncd.mirror.store.operation_decisions import Decided, Operator
from syncd.push.attempt import Attempt
from syncd.records.ids import OperationId
from syncd.sandbox import Habits
from syncd.sandbox.faults import Faults
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, until, worked, working

pytestmark = pytest.mark.both_databases

FAULTS = ("lost_before", "lost_after", "error_500", "error_500_after", "cut", "garbled", 429, 403)
STEPS = st.lists(st.tuples(st.sampled_from(["create", "delete"]), st.integers(0, 2)), min_size=2, max_size=7)
TROUBLE = st.lists(st.tuples(st.sampled_from(["GET", "POST", "DELETE"]), st.sampled_from(FAULTS)), max_size=5)


async def check_order(steps: list[tuple[str, int]], trouble: list[tuple[str, Any]], lag: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_harness(Path(folder), habits=Habits(lookup_lag=lag)) as harness:
            await harness.empty()
            for method, fault in trouble:
                harness.sandbox.script(method, SESSIONS, fault)
            ids = await harness.enqueue(
                *(
                    create(f"s-{key}", f"by {place}") if kind == "create"
                    else {"kind": kind, "source_session_id": f"s-{key}"}
                    for place, (kind, key) in enumerate(steps)
                )
            )  # fmt: skip
            rows = await worked(harness, *ids, max_attempts=50)
            assert {row["state"] for row in rows} == {"succeeded"}
            for key in range(3):
                mine = [row for row, step in zip(rows, steps, strict=True) if step[1] == key]
                ends = [row["finished_at"] for row in mine]
                assert ends == sorted(ends)
                live = [wire for wire in harness.sandbox.live().values() if wire["sourceSessionId"] == f"s-{key}"]
                assert len(live) == (1 if mine and mine[-1]["kind"] == "create" else 0)
                done = [effect.kind for effect in harness.sandbox.effects if effect.source_session_id == f"s-{key}"]
                assert done == [("created", "deleted")[n % 2] for n in range(len(done))]
            assert await harness.live() == harness.there()


@pytest.mark.slow
@settings(
    max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)  # the machine's load decides how long an example takes
@given(steps=STEPS, trouble=TROUBLE, lag=st.sampled_from([0.0, 40.0]))
@pytest.mark.timeout(180)
def test_all_sequences_of_operations_and_faults_end_as_if_run_one_after_the_other(
    steps: list[tuple[str, int]], trouble: list[tuple[str, Any]], lag: float
) -> None:
    anyio.run(check_order, steps, trouble, lag)


async def test_one_key_runs_one_at_a_time_while_the_others_go_on(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        under_way: list[str] = []
        most = 0

        async def watch(request: web.BaseRequest) -> web.Response:
            nonlocal most
            under_way.append(request.raw_path)
            most = max(most, len(under_way))
            await anyio.lowlevel.checkpoint()
            answer = await harness.sandbox.api.answer(request, harness.sandbox.habits)
            under_way.remove(request.raw_path)
            return answer

        harness.sandbox.script("*", SESSIONS, watch, times=1000)
        await harness.enqueue(*(create("same", f"n-{n}") for n in range(8)))
        await harness.push().drain()
        assert most == 1
        assert effects(harness) == ["same"]


async def test_dead_and_unknown_operations_block_only_their_own_key_and_are_named_as_blockers(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, 422)
        (dead,) = await harness.enqueue(create("a"))
        await harness.push().drain()
        harness.sandbox.script("POST", SESSIONS, "lost_before")
        (lost,) = await harness.enqueue(create("b"))
        await harness.push().drain()
        behind = await harness.enqueue(create("a"), create("b"), create("c"), create("a"))
        await harness.push().drain()
        listed = {
            row["id"]: row
            for row in await harness.database.read(lambda c: operation_views.listing(c, state=None, limit=9))
        }
        assert [listed[operation_id]["state"] for operation_id in (dead, lost, *behind)] == [
            "dead", "unknown", "pending", "pending", "succeeded", "pending",
        ]  # fmt: skip
        assert [listed[operation_id]["blocked_by"] for operation_id in (dead, lost, *behind)] == [
            None,
            None,
            dead,
            lost,
            None,
            dead,
        ]


async def decide(harness: Harness, decision: Any, operation_id: int) -> Decided:
    operator = Operator("alice", harness.clock.now())
    decided: Decided = await harness.database.write(lambda c: decision(c, operation_id, operator))
    return decided


async def blocker(harness: Harness, operation_id: int) -> int | None:
    row = await harness.database.read(lambda c: operation_views.get(c, OperationId(operation_id)))
    return None if row is None else row["blocked_by"]


async def test_delete_by_id_does_not_overtake_the_create_whose_answer_was_lost(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.faults = Faults(only=["POST"], lost_after=1.0)
        (create_id,) = await harness.enqueue(create())
        await harness.push().drain()
        harness.sandbox.faults = Faults()
        await harness.one_pass()
        (there,) = await harness.live()
        (delete_id,) = await harness.enqueue({"kind": "delete", "session_id": there})
        assert await blocker(harness, delete_id) == create_id
        harness.sandbox.habits.lookup_lag = 2.0
        rows = await worked(harness, create_id, delete_id)
        assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
        assert effects(harness) == ["s-1"]
        assert await harness.live() == harness.there() == {}


async def test_create_does_not_overtake_the_delete_by_id_of_the_session_that_carries_its_source_id(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path) as harness:
        there = harness.sandbox.create(source_session_id="s-1", name="wanted")["id"]
        await harness.one_pass()
        ids = await harness.enqueue({"kind": "delete", "session_id": there}, create())
        assert await blocker(harness, ids[1]) == ids[0]
        rows = await worked(harness, *ids)
        assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
        assert rows[1]["result_session_id"] != there
        assert await harness.live() == harness.there() == {rows[1]["result_session_id"]: "wanted"}


async def test_dead_operation_that_is_retried_has_all_its_attempts_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, 422)
        ids = await harness.enqueue(create("a"), create("a", "later"))
        await harness.push().drain()
        assert (await decide(harness, operation_decisions.retry, ids[0])).problem is None
        rows = await worked(harness, *ids)
        assert [(row["state"], row["attempts"]) for row in rows] == [("succeeded", 1), ("succeeded", 1)]
        assert (await decide(harness, operation_decisions.retry, ids[0])).problem


async def test_pending_operation_can_be_cancelled_and_a_finished_one_cannot(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (first,) = await harness.enqueue(create())
        assert (await decide(harness, operation_decisions.cancel, first)).problem is None
        async with working(harness.push()):
            (second,) = await harness.enqueue(create("other"))
            harness.clock.forward(100)
            await finished(harness, second)
        assert (await harness.operation(first))["state"] == "cancelled"
        assert effects(harness) == ["other"]
        for over in (first, second):
            assert (await decide(harness, operation_decisions.cancel, over)).problem


async def test_claim_that_took_all_that_was_due_is_not_repeated_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path) as harness:
        push, started, claims = harness.push(), anyio.Event(), list[int]()
        claim, run = operations.claim, push._run

        def counted(connection: sa.Connection, **how: Any) -> Any:
            claimed = claim(connection, **how)
            claims.append(len(claimed.operations))
            return claimed

        async def held(attempt: Attempt) -> None:
            await started.wait()
            await run(attempt)

        monkeypatch.setattr(operations, "claim", counted)
        monkeypatch.setattr(push, "_run", held)
        (operation_id,) = await harness.enqueue(create())
        async with working(push):
            await until(harness, lambda: push._in_flight)
            assert claims == [1]
            started.set()
            await finished(harness, operation_id)


async def test_drain_continues_with_an_operation_whose_blocker_ends_during_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create("s"), {"kind": "delete", "source_session_id": "s"})
        push = harness.push()
        launch = push._launch

        async def late(group: Any) -> int:
            claimed = await launch(group)
            if not claimed:  # what was in the way ends after the look and before its answer
                await until(harness, lambda: not push._in_flight)
            return claimed

        monkeypatch.setattr(push, "_launch", late)
        await push.drain()
        assert effects(harness) == ["s"]
        assert effects(harness, "deleted") == ["s"]
