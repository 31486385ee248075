"""Steps of the clock, and clocks of replicas that differ, make neither a second session nor an early decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.push.settling import MOST_ENTRIES, Recency
from syncd.records.ids import SessionId
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.helpers.virtual_clock import VirtualClock
from tests.push.helpers import SESSIONS, create, effects, finished, times, until, worked, working

pytestmark = pytest.mark.both_databases

SETTLE = 60.0
STEPS = (-86_400, -61, -1, -0.1, 0.1, 1, 61, 86_400)
HOUR = 3600.0
MINUTE = 60.0


def lagging() -> Habits:
    return Habits(duplicate_create="duplicate", lookup_lag=SETTLE * 0.9)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("restart", [False, True])
async def test_second_create_makes_no_second_session_after_any_step(tmp_path: Path, step: float, restart: bool) -> None:
    async with open_harness(tmp_path, habits=lagging()) as harness:
        push = harness.push()
        harness.clock.forward(SETTLE + 1)  # the process is older than the settle time
        (first,) = await harness.enqueue(create())
        await push.drain()
        harness.clock.step(step)
        (second,) = await harness.enqueue(create())
        async with working(harness.push() if restart else push):
            rows = await finished(harness, first, second)
        assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
        assert effects(harness) == ["s-1"]


@pytest.mark.parametrize("step", [-61, -1, 1, 61, 86_400])
@pytest.mark.parametrize("moment", [0.0, 0.7])
async def test_unknown_create_is_looked_up_over_the_whole_settle_time_after_any_step(
    tmp_path: Path, step: float, moment: float
) -> None:
    async with open_harness(tmp_path, habits=lagging()) as harness:
        harness.sandbox.script("POST", SESSIONS, "lost_after")
        (operation_id,) = await harness.enqueue(create())
        posted = harness.clock.monotonic()
        async with working(harness.push(lease=SETTLE * 10)):
            await until(
                harness,
                lambda: len(times(harness, "GET")) > 1 and harness.clock.monotonic() >= posted + SETTLE * moment,
            )
            harness.clock.step(step)
            (row,) = await finished(harness, operation_id)
        assert (row["state"], effects(harness)) == ("succeeded", ["s-1"])


async def test_settle_time_begins_again_after_a_restart(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=lagging()) as harness:
        harness.sandbox.script("POST", SESSIONS, "lost_before")
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        harness.clock.step(HOUR)
        restarted = harness.clock.monotonic()
        (row,) = await worked(harness, operation_id)
        assert (row["state"], effects(harness)) == ("succeeded", ["s-1"])
        assert times(harness, "POST")[1] - restarted >= SETTLE


@pytest.mark.parametrize("offset", [-60.0, -0.1, 0.1, 60.0])
async def test_two_replicas_with_clocks_that_differ_make_one_session(tmp_path: Path, offset: float) -> None:
    async with open_harness(tmp_path, habits=lagging()) as harness:
        (first,) = await harness.enqueue(create())
        await harness.push().drain()
        harness.clock.step(offset)  # the other replica
        (second,) = await harness.enqueue(create())
        rows = await worked(harness, first, second)
        assert {row["state"] for row in rows} == {"succeeded"}
        assert effects(harness) == ["s-1"]


async def test_delete_by_source_id_reaches_a_session_that_look_ups_do_not_show_after_a_step(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=lagging()) as harness:
        push = harness.push()
        harness.clock.forward(SETTLE + 1)
        await harness.enqueue(create())
        await push.drain()
        harness.clock.step(HOUR)
        (operation_id,) = await harness.enqueue({"kind": "delete", "source_session_id": "s-1"})
        await push.drain()
        assert ((await harness.operation(operation_id))["state"], harness.there()) == ("succeeded", {})


async def test_process_older_than_the_settle_time_creates_a_deleted_session_again_at_once(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=1) as harness:
        await harness.one_pass()
        push = harness.push()
        await harness.enqueue(create())
        await push.drain()
        harness.clock.forward(SETTLE + MINUTE + 1)
        harness.sandbox.delete(str(harness.sandbox.effects[-1].session_id))
        (again,) = await harness.enqueue(create())
        await push.drain()
        assert ((await harness.operation(again))["state"], effects(harness)) == ("succeeded", ["s-1", "s-1"])


async def test_new_process_waits_the_settle_time_for_a_session_that_seems_gone(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=1) as harness:
        await harness.one_pass()
        await harness.enqueue(create())
        await harness.push().drain()
        harness.clock.forward(HOUR)
        harness.sandbox.delete(str(harness.sandbox.effects[-1].session_id))
        began = harness.clock.monotonic()
        (again,) = await harness.enqueue(create())
        (row,) = await worked(harness, again)
        assert (row["state"], row["attempts"], effects(harness)) == ("succeeded", 1, ["s-1", "s-1"])
        assert SETTLE <= times(harness, "POST")[-1] - began <= SETTLE * 1.2


async def _in_flight(harness: Harness, step: float) -> None:
    """Let the clock step while the look-up of a create is under way."""
    harness.sandbox.script("GET", f"{SESSIONS}/source/", lambda _: harness.clock.step(step))
    await harness.enqueue(create())
    await harness.push().drain()


@pytest.mark.parametrize("step", [-HOUR, -1, 1, 59])
async def test_step_that_leaves_the_lease_valid_sends_the_request(tmp_path: Path, step: float) -> None:
    async with open_harness(tmp_path) as harness:
        await _in_flight(harness, step)
        assert effects(harness) == ["s-1"]


def recency(age: float) -> tuple[Recency, VirtualClock]:
    clock = VirtualClock()
    made = Recency(clock, SETTLE)
    clock.forward(age)
    return made, clock


def test_listed_session_is_never_recent() -> None:
    assert not recency(0)[0].is_recent(SessionId("SES1"), None)


@pytest.mark.parametrize("age", [0.0, HOUR])
@pytest.mark.parametrize("ahead", [0.0, 0.1, 60.0, 86_400.0])
def test_time_in_the_future_is_recent_until_this_process_has_known_it_for_the_settle_time(
    age: float, ahead: float
) -> None:
    made, clock = recency(age)
    observed_at = clock.now() + timedelta(seconds=ahead)
    assert made.is_recent(SessionId("SES1"), observed_at)
    clock.forward(SETTLE - 1)
    assert made.is_recent(SessionId("SES1"), observed_at)
    clock.forward(1)
    assert not made.is_recent(SessionId("SES1"), observed_at)


def test_old_time_is_recent_for_a_process_younger_than_the_settle_time() -> None:
    made, clock = recency(SETTLE - 1)
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert made.is_recent(SessionId("SES1"), long_ago)
    clock.forward(1)
    assert not made.is_recent(SessionId("SES1"), long_ago)


def test_step_forward_makes_nothing_old() -> None:
    made, clock = recency(HOUR)
    observed_at = clock.now()
    clock.step(86_400)
    assert made.is_recent(SessionId("SES1"), observed_at)


def test_time_within_the_skew_of_replicas_is_recent() -> None:
    made, clock = recency(HOUR)
    assert made.is_recent(SessionId("SES1"), clock.now() - timedelta(seconds=SETTLE + MINUTE - 1))
    assert not made.is_recent(SessionId("SES2"), clock.now() - timedelta(seconds=SETTLE + MINUTE))


def test_another_observation_of_a_session_begins_the_settle_time_again() -> None:
    made, clock = recency(HOUR)
    assert made.is_recent(SessionId("SES1"), clock.now())
    clock.forward(SETTLE)
    assert made.is_recent(SessionId("SES1"), clock.now())


def test_memory_of_sessions_is_bounded() -> None:
    made, clock = recency(0)
    for number in range(MOST_ENTRIES + 10):
        made.is_recent(SessionId(f"SES{number}"), clock.now())
    assert len(made._first_seen) == MOST_ENTRIES
