"""The settle time of an unknown create goes on across processes of one machine: `syncd once` lives for seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.mirror.store.restored import hold_open_operations
from syncd.push.flow import Push
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import FINAL, SESSIONS, create, effects, times

pytestmark = pytest.mark.both_databases

SETTLE = 60.0
INTERVAL = 25.0
SHORT = 10.0
"""Seconds; four look-ups at this interval take less than the settle time."""
HOUR = 3600.0


async def lost(harness: Harness, fault: Any = "lost_before") -> int:
    """Queue a create whose answer is lost, in a process that ends at once."""
    harness.sandbox.script("POST", SESSIONS, fault)
    (operation_id,) = await harness.enqueue(create())
    await harness.push().drain()
    assert (await harness.operation(operation_id))["state"] == "unknown"
    return operation_id


async def runs(
    harness: Harness,
    operation_id: int,
    *,
    most: int = 20,
    every: float = INTERVAL,
    before: Callable[[int], Any] = lambda _: None,
    push: Push | None = None,
) -> dict[str, Any]:
    """Drain the queue in a process of its own at intervals, until the operation is final."""
    row: dict[str, Any] = {}
    for number in range(most):
        harness.clock.forward(every)
        before(number)
        process = push or harness.push()
        await process.recover(abandoned=harness.database.dialect == "sqlite")
        await process.drain()
        row = await harness.operation(operation_id)
        if row["state"] in FINAL:
            break
    return row


def looked_up(harness: Harness, first: float, second: float) -> list[float]:
    return [
        request.at
        for request in harness.sandbox.requests
        if request.method == "GET" and first < request.at <= second and request.status == 404
    ]


async def test_next_processes_on_the_machine_continue_the_settle_time_and_send_the_create_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        row = await runs(harness, await lost(harness))
        assert (row["state"], row["attempts"], effects(harness)) == ("succeeded", 2, ["s-1"])
        first, second = times(harness, "POST")
        assert SETTLE <= second - first <= 5 * INTERVAL
        assert len(looked_up(harness, first, second)) >= 4


async def test_processes_that_come_at_short_intervals_do_not_shorten_the_settle_time(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(lookup_lag=SETTLE * 0.9, duplicate_create="duplicate")) as harness:
        operation_id = await lost(harness, "lost_after")
        for _ in range(100):
            harness.clock.forward(0.9)
            await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], effects(harness), len(times(harness, "POST"))) == ("succeeded", ["s-1"], 1)


@pytest.mark.parametrize("step", [-HOUR, -SETTLE, SETTLE, HOUR])
@pytest.mark.parametrize("moment", [0, 2])
async def test_step_of_the_clock_between_processes_does_not_shorten_the_settle_time(
    tmp_path: Path, step: float, moment: int
) -> None:
    """A step forward is also what a process sees after its machine was suspended."""
    async with open_harness(tmp_path) as harness:
        row = await runs(
            harness, await lost(harness), before=lambda number: harness.clock.step(step if number == moment else 0)
        )
        first, second = times(harness, "POST")
        assert (row["state"], len(looked_up(harness, first, second)) >= 4) == ("succeeded", True)
        assert second - first >= SETTLE


async def test_settle_time_begins_again_with_each_process_on_another_machine(tmp_path: Path) -> None:
    def move(number: int) -> None:
        harness.machine = f"machine {number}"

    async with open_harness(tmp_path) as harness:
        row = await runs(harness, await lost(harness), before=move)
        assert (row["state"], len(times(harness, "POST"))) == ("unknown", 1)


async def test_settle_time_begins_again_after_the_machine_was_restarted(tmp_path: Path) -> None:
    restarted: list[float] = []

    def restart(number: int) -> None:
        if number == 3:
            harness.machine, harness.clock.monotonic_offset = (
                "the machine after its restart",
                -harness.clock.at.timestamp(),
            )
            restarted.append(harness.clock.at.timestamp())

    async with open_harness(tmp_path) as harness:
        row = await runs(harness, await lost(harness), before=restart, every=SHORT)
        assert row["state"] == "succeeded"
        assert times(harness, "POST")[1] - restarted[0] >= SETTLE


async def test_settle_time_begins_again_if_the_monotonic_clock_shows_less_than_before(tmp_path: Path) -> None:
    """A virtual machine was taken back to an earlier state, and its database was not."""
    back: list[float] = []

    def go_back(number: int) -> None:
        if number == 3:
            harness.clock.monotonic_offset = -HOUR
            back.append(harness.clock.at.timestamp())

    async with open_harness(tmp_path) as harness:
        row = await runs(harness, await lost(harness), before=go_back, every=SHORT)
        assert row["state"] == "succeeded"
        assert times(harness, "POST")[1] - back[0] >= SETTLE


async def test_settle_time_of_a_create_that_an_older_release_made_unknown_again_begins_again(tmp_path: Path) -> None:
    """The older release writes `unknown_since` and not when the settle time began."""
    async with open_harness(tmp_path) as harness:
        operation_id = await lost(harness)
        await runs(harness, operation_id, most=2)
        since = await harness.sql("SELECT settle_us, settle_for FROM operations")
        assert since[0]["settle_us"] is not None
        at = harness.database.clock.now() + timedelta(seconds=1)
        later = at if harness.database.dialect == "postgresql" else at.isoformat("T", "microseconds")[:26] + "Z"
        await harness.sql("UPDATE operations SET unknown_since = ?, lookups = 0", later)
        sent_again = harness.clock.monotonic()
        assert (await runs(harness, operation_id, every=SHORT))["state"] == "succeeded"
        assert times(harness, "POST")[1] - sent_again >= SETTLE


async def test_settle_time_begins_again_after_a_restore(tmp_path: Path) -> None:
    """The create may have been sent again between the backup and the restore."""
    async with open_harness(tmp_path) as harness:
        operation_id = await lost(harness)
        await runs(harness, operation_id, most=2)
        await harness.database.write(lambda c: hold_open_operations(c, harness.database.now(c)))
        harness.clock.forward(HOUR)
        await harness.sql("UPDATE operations SET on_hold_at = NULL")
        released = harness.clock.monotonic()
        assert (await runs(harness, operation_id, every=SHORT))["state"] == "succeeded"
        assert times(harness, "POST")[1] - released >= SETTLE


async def test_replicas_on_two_machines_settle_a_create_that_they_look_up_in_turn(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        replicas = []
        for name in ("one", "another"):
            harness.machine = name
            replicas.append(harness.push())
        operation_id = await lost(harness)
        for turn in range(10):
            await runs(harness, operation_id, most=1, push=replicas[turn % 2])
        assert ((await harness.operation(operation_id))["state"], effects(harness)) == ("succeeded", ["s-1"])
        assert times(harness, "POST")[1] - times(harness, "POST")[0] >= SETTLE


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("failure", [500, 403, 429, "lost_before"])
async def test_look_ups_that_fail_do_not_begin_the_settle_time_again(tmp_path: Path, failure: Any) -> None:
    async with open_harness(tmp_path) as harness:
        operation_id = await lost(harness)
        harness.sandbox.script("GET", f"{SESSIONS}/source/", failure, times=3)
        row = await runs(harness, operation_id)
        first, second = times(harness, "POST")
        assert (row["state"], len(looked_up(harness, first, second)) >= 4) == ("succeeded", True)


async def test_create_that_albert_stored_under_another_source_id_is_dead_after_some_processes(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:

        def post(_: web.BaseRequest) -> web.Response:
            return web.json_response(harness.sandbox.create(source_session_id="other", name="wanted"), status=201)

        row = await runs(harness, await lost(harness, post))
        assert (row["state"], len(times(harness, "POST"))) == ("dead", 1)
        assert "'other'" in row["last_error"]
        assert "'s-1'" in row["last_error"]


async def test_recovered_operation_settles_across_processes_from_its_first_look_up(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue(create(state="running", attempts=1))
        began = harness.clock.monotonic()
        row = await runs(harness, operation_id)
        assert (row["state"], effects(harness)) == ("succeeded", ["s-1"])
        assert times(harness, "POST")[0] - began >= SETTLE + INTERVAL
