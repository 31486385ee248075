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
from tests.helpers.harness import World, world
from tests.push.helpers import FINAL, SESSIONS, create, effects, times

pytestmark = pytest.mark.both_databases

SETTLE = 60.0
INTERVAL = 25.0
SHORT = 10.0
"""Seconds; four look-ups at this interval take less than the settle time."""
HOUR = 3600.0


async def lost(w: World, fault: Any = "lost_before") -> int:
    """Queue a create whose answer is lost, in a process that ends at once."""
    w.sandbox.script("POST", SESSIONS, fault)
    (one,) = await w.enqueue(create())
    await w.push().drain()
    assert (await w.operation(one))["state"] == "unknown"
    return one


async def runs(
    w: World,
    one: int,
    *,
    most: int = 20,
    every: float = INTERVAL,
    before: Callable[[int], Any] = lambda _: None,
    push: Push | None = None,
) -> dict[str, Any]:
    """Drain the queue in a process of its own at intervals, until the operation is final."""
    row: dict[str, Any] = {}
    for number in range(most):
        w.clock.forward(every)
        before(number)
        process = push or w.push()
        await process.recover(abandoned=w.database.dialect == "sqlite")
        await process.drain()
        row = await w.operation(one)
        if row["state"] in FINAL:
            break
    return row


def looked_up(w: World, first: float, second: float) -> list[float]:
    return [
        one.at for one in w.sandbox.requests if one.method == "GET" and first < one.at <= second and one.status == 404
    ]


async def test_next_processes_on_the_machine_continue_the_settle_time_and_send_the_create_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        row = await runs(w, await lost(w))
        assert (row["state"], row["attempts"], effects(w)) == ("succeeded", 2, ["s-1"])
        first, second = times(w, "POST")
        assert SETTLE <= second - first <= 5 * INTERVAL
        assert len(looked_up(w, first, second)) >= 4


async def test_processes_that_come_at_short_intervals_do_not_shorten_the_settle_time(tmp_path: Path) -> None:
    async with world(tmp_path, habits=Habits(lookup_lag=SETTLE * 0.9, duplicate_create="duplicate")) as w:
        one = await lost(w, "lost_after")
        for _ in range(100):
            w.clock.forward(0.9)
            await w.push().drain()
        row = await w.operation(one)
        assert (row["state"], effects(w), len(times(w, "POST"))) == ("succeeded", ["s-1"], 1)


@pytest.mark.parametrize("step", [-HOUR, -SETTLE, SETTLE, HOUR])
@pytest.mark.parametrize("moment", [0, 2])
async def test_step_of_the_clock_between_processes_does_not_shorten_the_settle_time(
    tmp_path: Path, step: float, moment: int
) -> None:
    """A step forward is also what a process sees after its machine was suspended."""
    async with world(tmp_path) as w:
        row = await runs(w, await lost(w), before=lambda number: w.clock.step(step if number == moment else 0))
        first, second = times(w, "POST")
        assert (row["state"], len(looked_up(w, first, second)) >= 4) == ("succeeded", True)
        assert second - first >= SETTLE


async def test_settle_time_begins_again_with_each_process_on_another_machine(tmp_path: Path) -> None:
    def move(number: int) -> None:
        w.machine = f"machine {number}"

    async with world(tmp_path) as w:
        row = await runs(w, await lost(w), before=move)
        assert (row["state"], len(times(w, "POST"))) == ("unknown", 1)


async def test_settle_time_begins_again_after_the_machine_was_restarted(tmp_path: Path) -> None:
    restarted: list[float] = []

    def restart(number: int) -> None:
        if number == 3:
            w.machine, w.clock.monotonic_offset = "the machine after its restart", -w.clock.at.timestamp()
            restarted.append(w.clock.at.timestamp())

    async with world(tmp_path) as w:
        row = await runs(w, await lost(w), before=restart, every=SHORT)
        assert row["state"] == "succeeded"
        assert times(w, "POST")[1] - restarted[0] >= SETTLE


async def test_settle_time_begins_again_if_the_monotonic_clock_shows_less_than_before(tmp_path: Path) -> None:
    """A virtual machine was taken back to an earlier state, and its database was not."""
    back: list[float] = []

    def go_back(number: int) -> None:
        if number == 3:
            w.clock.monotonic_offset = -HOUR
            back.append(w.clock.at.timestamp())

    async with world(tmp_path) as w:
        row = await runs(w, await lost(w), before=go_back, every=SHORT)
        assert row["state"] == "succeeded"
        assert times(w, "POST")[1] - back[0] >= SETTLE


async def test_settle_time_of_a_create_that_an_older_release_made_unknown_again_begins_again(tmp_path: Path) -> None:
    """The older release writes `unknown_since` and not when the settle time began."""
    async with world(tmp_path) as w:
        one = await lost(w)
        await runs(w, one, most=2)
        since = await w.sql("SELECT settle_us, settle_for FROM operations")
        assert since[0]["settle_us"] is not None
        at = w.database.clock.now() + timedelta(seconds=1)
        later = at if w.database.dialect == "postgresql" else at.isoformat("T", "microseconds")[:26] + "Z"
        await w.sql("UPDATE operations SET unknown_since = ?, lookups = 0", later)
        sent_again = w.clock.monotonic()
        assert (await runs(w, one, every=SHORT))["state"] == "succeeded"
        assert times(w, "POST")[1] - sent_again >= SETTLE


async def test_settle_time_begins_again_after_a_restore(tmp_path: Path) -> None:
    """The create may have been sent again between the backup and the restore."""
    async with world(tmp_path) as w:
        one = await lost(w)
        await runs(w, one, most=2)
        await w.database.write(lambda c: hold_open_operations(c, w.database.now(c)))
        w.clock.forward(HOUR)
        await w.sql("UPDATE operations SET on_hold_at = NULL")
        released = w.clock.monotonic()
        assert (await runs(w, one, every=SHORT))["state"] == "succeeded"
        assert times(w, "POST")[1] - released >= SETTLE


async def test_replicas_on_two_machines_settle_a_create_that_they_look_up_in_turn(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        replicas = []
        for name in ("one", "another"):
            w.machine = name
            replicas.append(w.push())
        one = await lost(w)
        for turn in range(10):
            await runs(w, one, most=1, push=replicas[turn % 2])
        assert ((await w.operation(one))["state"], effects(w)) == ("succeeded", ["s-1"])
        assert times(w, "POST")[1] - times(w, "POST")[0] >= SETTLE


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("failure", [500, 403, 429, "lost_before"])
async def test_look_ups_that_fail_do_not_begin_the_settle_time_again(tmp_path: Path, failure: Any) -> None:
    async with world(tmp_path) as w:
        one = await lost(w)
        w.sandbox.script("GET", f"{SESSIONS}/source/", failure, times=3)
        row = await runs(w, one)
        first, second = times(w, "POST")
        assert (row["state"], len(looked_up(w, first, second)) >= 4) == ("succeeded", True)


async def test_create_that_albert_stored_under_another_source_id_is_dead_after_some_processes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:

        def post(_: web.BaseRequest) -> web.Response:
            return web.json_response(w.sandbox.create(source_session_id="other", name="wanted"), status=201)

        row = await runs(w, await lost(w, post))
        assert (row["state"], len(times(w, "POST"))) == ("dead", 1)
        assert "'other'" in row["last_error"]
        assert "'s-1'" in row["last_error"]


async def test_recovered_operation_settles_across_processes_from_its_first_look_up(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (one,) = await w.enqueue(create(state="running", attempts=1))
        began = w.clock.monotonic()
        row = await runs(w, one)
        assert (row["state"], effects(w)) == ("succeeded", ["s-1"])
        assert times(w, "POST")[0] - began >= SETTLE + INTERVAL
