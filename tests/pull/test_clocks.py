"""The grace of a missing session is measured time: steps of a wall clock and other hosts do not end it early."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from syncd.mirror.store import elapsed
from syncd.mirror.store.elapsed import Reading
from syncd.rules.deletion import Guard
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import BASE, session

pytestmark = pytest.mark.both_databases

TWO_MINUTES = Guard(grace=120, confirmations=1, max_count=25, max_fraction=0.05)


async def is_deleted(harness: Harness, session_id: str) -> bool:
    assert (await harness.one_pass()).state == "complete"
    return (await session(harness, session_id))["deleted_at"] is not None


@pytest.mark.parametrize("step", [121.0, 3600.0, 10**7])
async def test_clock_that_steps_forward_does_not_end_the_grace(folder: Path, step: float) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWO_MINUTES
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        assert not await is_deleted(harness, "SES2")
        harness.clock.step(step)
        assert not await is_deleted(harness, "SES2")
        harness.clock.forward(119)
        assert not await is_deleted(harness, "SES2")
        harness.clock.forward(1)
        assert await is_deleted(harness, "SES2")


@pytest.mark.parametrize("step", [-61.0, -3600.0, -(10**7)])
async def test_clock_that_steps_back_does_not_prolong_the_grace(folder: Path, step: float) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWO_MINUTES
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        assert not await is_deleted(harness, "SES2")
        harness.clock.step(step)
        harness.clock.forward(119)
        assert not await is_deleted(harness, "SES2")
        harness.clock.forward(1)
        assert await is_deleted(harness, "SES2")


async def test_grace_continues_in_another_process_of_the_same_machine(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWO_MINUTES
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        assert not await is_deleted(harness, "SES2")
        harness.clock.forward(120)  # each pass has a new Pull, as with `syncd once`
        assert await is_deleted(harness, "SES2")


@pytest.mark.sqlite
@pytest.mark.parametrize("monotonic", [-(10**6), 10**6])
async def test_time_between_two_machines_does_not_count_on_sqlite(folder: Path, monotonic: float) -> None:
    """A restarted machine, or another one, has another monotonic clock."""
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWO_MINUTES
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        assert not await is_deleted(harness, "SES2")
        harness.clock.forward(60)
        assert not await is_deleted(harness, "SES2")
        harness.machine = "restarted"
        harness.clock.monotonic_offset = monotonic
        harness.clock.forward(10**6)
        assert not await is_deleted(harness, "SES2"), "60 seconds were measured"
        harness.clock.forward(60)
        assert await is_deleted(harness, "SES2"), "the minute before counts too"


async def test_missing_mark_of_an_earlier_release_is_measured_from_the_next_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWO_MINUTES
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        assert not await is_deleted(harness, "SES2")
        await harness.sql("UPDATE sessions SET missing_elapsed_ms = NULL WHERE id = 'SES2'")
        harness.clock.forward(10**6)
        assert not await is_deleted(harness, "SES2")
        assert (await session(harness, "SES2"))["missing_since"] == "2026-06-01T12:00:00.000000Z"
        harness.clock.forward(120)
        assert await is_deleted(harness, "SES2")


async def advance(harness: Harness, machine: str, monotonic: float) -> int:
    return await harness.database.write(lambda c: elapsed.advance(c, Reading(machine, monotonic, harness.clock.now())))


async def test_elapsed_time_adds_up_and_ignores_a_monotonic_clock_that_starts_again(folder: Path) -> None:
    async with open_harness(folder) as harness:
        readings = [("a", 1000.0), ("a", 1001.5), ("a", 1001.5004), ("a", 900.0), ("a", 901.0)]
        assert [await advance(harness, *reading) for reading in readings] == [0, 1500, 1500, 1500, 2500]


async def test_elapsed_time_between_machines_comes_from_the_database_if_it_has_a_clock(folder: Path) -> None:
    async with open_harness(folder) as harness:
        await advance(harness, "a", 1000.0)
        first = await advance(harness, "b", 10**9)
        assert 0 <= first < 60_000
        if harness.database.dialect == "sqlite":
            assert first == 0
            return
        await harness.sql("UPDATE elapsed_time SET database_at = database_at - interval '90 seconds'")
        assert 90_000 <= await advance(harness, "c", 5.0) - first < 150_000
        before = await advance(harness, "c", 5.0)
        await harness.sql("UPDATE elapsed_time SET database_at = database_at + interval '90 seconds'")
        assert await advance(harness, "d", 5.0) == before


async def test_step_of_the_shared_clock_is_measured_between_two_processes_of_a_machine(folder: Path) -> None:
    async with open_harness(folder) as harness:

        async def step(machine: str, monotonic: float, seconds: float) -> float:
            at = harness.clock.now() + timedelta(seconds=seconds)
            return await harness.database.read(lambda c: elapsed.clock_step(c, Reading(machine, monotonic, at)))

        assert await step("a", 5.0, 0.0) == 0.0, "nothing is recorded"
        await advance(harness, "a", 1000.0)
        assert await step("a", 1010.0, 10.0) == 0.0
        assert await step("a", 1010.0, 30.0) == 20.0
        assert await step("a", 1010.0, -30.0) == -40.0
        assert await step("b", 1010.0, 30.0) == 0.0
        await harness.sql("UPDATE elapsed_time SET clock_at = NULL")
        assert await step("a", 1010.0, 30.0) == 0.0


async def test_clock_that_steps_forward_does_not_end_a_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=45) as harness:
        harness.sandbox.script("GET", BASE, lambda _: harness.clock.step(86_400), times=5)
        assert (await harness.one_pass(max_seconds=3600)).state == "complete"
