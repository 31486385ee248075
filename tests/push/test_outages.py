"""An outage uses no attempts, and a single operation that always fails uses up its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.push.outage import SILENCE, Outage, Pauses
from syncd.records.ids import OperationId
from syncd.rules.retry import Backoff
from syncd.sandbox.faults import Faults
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, until, worked, working

pytestmark = pytest.mark.both_databases


@pytest.mark.slow
@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("kind", ["error_500", "lost_before"])
@pytest.mark.parametrize("methods", [[], ["POST"]])
async def test_ten_minutes_of_outage_cost_about_one_attempt_each_and_no_operation_is_dead(
    tmp_path: Path, kind: str, methods: list[str]
) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(*(create(f"s-{n}") for n in range(200)))
        began = harness.clock.monotonic()
        harness.sandbox.faults = Faults(only=methods)
        setattr(harness.sandbox.faults, kind, 1.0)
        async with working(harness.push()):
            await until(harness, lambda: harness.clock.monotonic() >= began + 600)
            sent = len(harness.sandbox.requests)
            single_try = 200 * (2 if methods else 1)
            assert sent <= 1.1 * single_try
            assert await harness.sql("SELECT id FROM operations WHERE state = 'dead'") == []
            harness.sandbox.faults = Faults()
            rows = await finished(harness, *ids)
        assert {row["state"] for row in rows} == {"succeeded"}
        assert sorted(effects(harness)) == sorted(f"s-{n}" for n in range(200))
        assert max(row["attempts"] for row in rows) <= 5


def failing_for_ever(harness: Harness, method: str) -> list[dict[str, Any]]:
    harness.sandbox.faults = Faults(only=[method], error_500=1.0)
    return [{"kind": "delete", "session_id": f"SES{n}"} if method == "DELETE" else create(f"s-{n}") for n in range(5)]


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_operations_that_fail_while_albert_answers_other_requests_use_up_their_attempts(
    tmp_path: Path, method: str
) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(*failing_for_ever(harness, method))
        push = harness.push(max_attempts=3)

        async def passes() -> None:
            while True:
                push.note_response()
                await harness.clock.sleep(5)

        async with working(push) as group:
            group.start_soon(passes)
            done = await finished(harness, *ids)
            group.cancel_scope.cancel()
        assert {(row["state"], row["attempts"]) for row in done} == {("dead", 3)}
        assert len(harness.named("queue.slowed")) == 1
        assert harness.named("queue.resumed") == [], "to be given up is no sign of life"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_operations_that_fail_use_up_their_attempts_although_no_pass_has_asked_albert_lately(
    tmp_path: Path, method: str
) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(*failing_for_ever(harness, method))
        done = await worked(harness, *ids, max_attempts=3)
        assert {(row["state"], row["attempts"]) for row in done} == {("dead", 3)}
        assert [request.method for request in harness.sandbox.requests].count(method) <= 3 * len(ids)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_no_attempt_counts_while_albert_answers_no_request(tmp_path: Path, method: str) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(*failing_for_ever(harness, method))
        harness.sandbox.faults.only = []
        async with working(harness.push(max_attempts=3)):
            await until(harness, lambda: len(harness.sandbox.requests) > 5 * 8)
            states = {(await harness.operation(operation_id))["state"] for operation_id in ids}
            harness.sandbox.faults = Faults()
            rows = await finished(harness, *ids)
            attempts = {event["attempts"] for event in harness.named("operation.retrying")[-10:]}
        assert states <= {"pending", "running"}
        assert {row["state"] for row in rows} == {"succeeded"}
        assert attempts == {0}, "the events count attempts as the table does"


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("status", [403, 500, 503])
@pytest.mark.parametrize("operations", [1, 2])
async def test_one_or_two_operations_use_no_attempt_while_albert_answers_no_listing(
    tmp_path: Path, status: int, operations: int
) -> None:
    async with open_harness(tmp_path) as harness:
        rows: list[dict[str, Any]] = [create("s"), {"kind": "delete", "session_id": "SES1"}]
        ids = await harness.enqueue(*rows[:operations])
        harness.sandbox.script("*", "/", status, times=10**9)
        began = harness.clock.monotonic()
        async with working(harness.push(max_attempts=2)):
            await until(harness, lambda: harness.clock.monotonic() >= began + 600)
            asked = len(harness.sandbox.requests)
            harness.sandbox.scripts._waiting.clear()
            done = await finished(harness, *ids)
        assert {(row["state"], row["attempts"]) for row in done} == {("succeeded", 1)}
        assert asked < 200
        assert {event["attempts"] for event in harness.named("operation.retrying")} == {0}


async def test_maintenance_page_for_every_request_uses_no_attempt(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue({"kind": "delete", "source_session_id": "s"})
        harness.sandbox.faults = Faults(garbled=1.0)
        began = harness.clock.monotonic()
        async with working(harness.push(max_attempts=2)):
            await until(harness, lambda: harness.clock.monotonic() >= began + 600)
            harness.sandbox.faults = Faults()
            (done,) = await finished(harness, operation_id)
        assert (done["state"], done["attempts"]) == ("succeeded", 1)


async def test_single_operation_that_always_fails_is_dead_and_the_others_succeed(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(*(create(f"s-{n}") for n in range(5)))
        harness.sandbox.script("GET", f"{SESSIONS}/source/s-2", 500, times=100)
        rows = await worked(harness, *ids)
        assert [row["state"] for row in rows] == ["succeeded", "succeeded", "dead", "succeeded", "succeeded"]
        assert rows[2]["attempts"] == 8
        assert "scripted 500" in rows[2]["last_error"]


def outage() -> Outage:
    return Outage(Pauses(Backoff(0.5, 300)))


def test_outage_takes_several_operations_and_ends_with_the_first_success() -> None:
    state = outage()
    assert not any(state.note_failure(OperationId(1), at).is_outage for at in range(20))
    assert not state.note_failure(OperationId(2), 20).is_outage
    assert state.note_failure(OperationId(3), 21).is_outage
    assert state.end()
    assert not state.end()
    assert not state.note_failure(OperationId(3), 22).is_outage


def test_attempts_that_were_used_before_an_outage_was_recognized_are_refunded_once() -> None:
    state = outage()
    for _ in range(4):
        state.note_failure(OperationId(1), 0)
    state.note_failure(OperationId(2), 0)
    assert state.note_failure(OperationId(3), 0).refunds == 0
    assert [state.note_failure(OperationId(1), 0).refunds for _ in range(2)] == [4, 0]
    assert state.note_failure(OperationId(2), 0).refunds == 1


def test_attempts_that_a_403_used_before_an_outage_are_refunded_when_it_is_recognized() -> None:
    state = outage()
    state.note_response(0)
    for operation in (1, 1, 2):
        state.note_failure(OperationId(operation), 0, forbidden=True)
    state.note_failure(OperationId(2), 0)
    assert state.take_refunds() == {}
    assert state.note_failure(OperationId(3), 0, forbidden=True).refunds == 0
    refunds = state.take_refunds()
    assert refunds == {1: 2, 2: 1}, "the other failure of operation 2 was its own"
    state.add_refunds({2: refunds[2]})
    assert state.note_failure(OperationId(2), 0, forbidden=True).refunds == 2
    assert state.take_refunds() == {}


def test_only_403s_are_an_outage_while_albert_answers_other_requests() -> None:
    state = outage()
    state.note_response(100)
    for operation in range(3):
        state.note_failure(OperationId(operation), 101)
    assert not state.note_failure(OperationId(1), 102).is_outage
    assert state.note_failure(OperationId(1), 102, forbidden=True).is_outage
    assert state.note_failure(OperationId(1), 100 + SILENCE).is_outage


def test_pauses_of_an_outage_grow_to_the_longest_and_no_further() -> None:
    state, now, pauses = outage(), 0.0, []
    for operation in range(1, 20):
        state.note_failure(OperationId(operation), now)
        pauses.append(state.pauses.left(now))
        now += pauses[-1]
    assert pauses[:2] == [0, 0]
    assert pauses[2:] == sorted(pauses[2:])
    assert pauses[-1] == 300
    assert min(pauses[2:]) >= 1


def test_pauses_grow_from_the_shortest_again_after_another_answer_and_a_retry_after_is_waited() -> None:
    pauses, now = Pauses(Backoff(0.5, 300)), 0.0
    for _ in range(12):
        pauses.grow(now)
        now += pauses.left(now)
    pauses.grow(now, retry_after=40)
    pauses.shorten()
    assert pauses.left(now) == 40
    now += 40
    pauses.grow(now)
    assert pauses.left(now) == 1


def test_failures_in_flight_together_are_one_step_of_the_pause() -> None:
    pauses = Pauses(Backoff(2, 300))
    for _ in range(16):
        pauses.grow(100.0)
    assert pauses.left(100.0) == 2


@pytest.mark.parametrize("retry_after", [1e9, float(10**15)])
def test_retry_after_is_bounded_by_the_longest_wait(retry_after: Any) -> None:
    assert Backoff(0.5, 300).wait(1, jitter=0.5, retry_after=retry_after) == 300
