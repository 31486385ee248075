"""A clock that is set forward or back neither loses a wait, nor prolongs one, nor lets two holders send a request."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from syncd.mirror.store import operations
from syncd.mirror.store.operation import Operation
from syncd.mirror.store.operations import CONFIRMED_FOR
from syncd.push.attempt import Attempt
from syncd.push.leases import Lease
from syncd.push.settling import Recency
from syncd.rules.retry import Backoff
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, times, until, worked, working

pytestmark = pytest.mark.both_databases

AN_HOUR = 3600.0


async def claim(harness: Harness, **how: Any) -> Operation:
    (operation,) = (
        await harness.database.write(
            lambda c: operations.claim(c, now=harness.database.now(c), owner="me", lease=60, limit=1, **how)
        )
    ).operations
    return operation


async def seconds_left(harness: Harness, operation_id: int, column: str = "next_attempt_at") -> float:
    left: timedelta = (await harness.operation(operation_id))[column] - harness.database.clock.now()
    return left.total_seconds()


async def fail_once(harness: Harness) -> int:
    """Queue a create that fails once, and return it while it waits."""
    harness.sandbox.script("GET", f"{SESSIONS}/source/", 500)
    (operation_id,) = await harness.enqueue(create())
    push = harness.push()
    await push.drain()
    return operation_id


@pytest.mark.parametrize("step", [-1.0, -60.0, -AN_HOUR, -1000 * AN_HOUR])
async def test_wait_is_as_long_as_before_when_the_clock_is_set_back(tmp_path: Path, step: float) -> None:
    async with open_harness(tmp_path) as harness:
        clock = harness.clock
        operation_id = await fail_once(harness)
        before = await seconds_left(harness, operation_id)
        assert before > 0
        clock.step(step)
        assert await seconds_left(harness, operation_id) == pytest.approx(before - step)
        await harness.push().recover(abandoned=False)
        assert await seconds_left(harness, operation_id) == pytest.approx(before, abs=0.001)


async def test_step_back_delays_a_wait_by_no_more_than_the_longest_backoff(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, 429, times=3)
        (operation_id,) = await harness.enqueue(create())
        async with working(harness.push(backoff=Backoff(2.0, 2.0))):
            await until(harness, lambda: len(harness.asked("POST")) == 3)
            began = harness.clock.monotonic()
            harness.clock.step(-AN_HOUR)
            await finished(harness, operation_id)
        assert harness.clock.monotonic() - began <= 5


async def test_wait_that_was_decided_before_a_step_forward_has_ended(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        clock = harness.clock
        operation_id = await fail_once(harness)
        clock.step(AN_HOUR)
        await harness.push().recover(abandoned=False)
        assert await seconds_left(harness, operation_id) < 0


async def test_time_that_a_program_chose_is_kept_when_the_clock_is_set_back(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        clock = harness.clock
        at = harness.clock.now() + timedelta(days=30)
        (operation_id,) = await harness.enqueue(create(not_before=at, next_attempt_at=at))
        clock.step(-AN_HOUR)
        await harness.push().recover(abandoned=False)
        assert (await harness.operation(operation_id))["next_attempt_at"] == at


async def test_every_wait_is_rebased_also_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "REBASED_AT_ONCE", 3)
    async with open_harness(tmp_path) as harness:
        now = harness.clock.now()
        due: dict[str, Any] = {"next_attempt_at": now + timedelta(seconds=8), "clock_at": now}
        ids = await harness.enqueue(*(create(f"s-{number}", **due) for number in range(10)))
        harness.clock.step(-AN_HOUR)
        await harness.push().recover(abandoned=False)
        assert {round(await seconds_left(harness, operation_id)) for operation_id in ids} == {8}


async def test_lease_of_a_holder_that_is_gone_ends_in_time_though_the_clock_is_set_back(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        clock = harness.clock
        await harness.enqueue(create())
        operation = await claim(harness)
        clock.step(-AN_HOUR)
        await harness.push().recover(abandoned=False)
        assert await seconds_left(harness, operation.id, "lease_until") == pytest.approx(60, abs=0.01)
        harness.clock.forward(61)
        await harness.push().recover(abandoned=False)
        assert (await harness.operation(operation.id))["state"] == "unknown"


async def test_look_up_that_a_killed_daemon_had_claimed_is_made_at_once(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue(
            create(state="unknown", unknown_since=harness.clock.now(), next_attempt_at=harness.clock.now())
        )
        assert (await claim(harness)).id == operation_id  # and the daemon is killed
        push = harness.push()
        await push.recover(abandoned=True)
        began = harness.clock.monotonic()
        await push.drain()
        assert [at - began < 1 for at in times(harness, "GET")] == [True]


def attempt(harness: Harness, operation: Operation, lease: Lease) -> Attempt:
    return Attempt(
        operation=operation, albert=harness.albert, lookups=harness.lookups, database=harness.database,
        clock=harness.clock, recency=Recency(harness.clock, 60), lease=lease,
    )  # fmt: skip


async def test_holder_whose_claim_was_not_confirmed_recently_checks_it_before_a_change(tmp_path: Path) -> None:
    """The clock steps forward, another replica takes the operation, and the lease of the holder is not over for it."""
    async with open_harness(tmp_path) as harness:
        clock = harness.clock
        (operation_id,) = await harness.enqueue(create())
        push = harness.push()

        async def steal(_: Any) -> None:
            clock.step(61)
            await harness.push().recover(abandoned=False)
            clock.step(-61)  # so that the shared clock does not give it away
            harness.clock.forward(CONFIRMED_FOR + 0.1)

        harness.sandbox.script("GET", f"{SESSIONS}/source/", steal)
        await push.drain()
        assert harness.asked("POST") == []
        assert harness.named("operation.fenced")
        (row,) = await worked(harness, operation_id)
        assert (row["state"], effects(harness)) == ("succeeded", ["s-1"])


async def test_look_up_of_a_recovered_operation_counts_from_when_its_holder_could_last_send(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create())
        operation = await claim(harness)
        harness.clock.forward(61)
        await harness.push().recover(abandoned=False)
        since = (await harness.operation(operation.id))["unknown_since"]
        assert since == harness.clock.now() + timedelta(seconds=CONFIRMED_FOR)


async def test_lease_ends_by_either_clock(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        clock = harness.clock
        lease = Lease.begin(60, now=clock.now(), monotonic=clock.monotonic())
        assert not lease.has_ended(clock)
        clock.step(60)
        assert lease.has_ended(clock)
        clock.step(-AN_HOUR)
        assert not lease.has_ended(clock)
        harness.clock.forward(60)
        assert lease.has_ended(clock)


async def test_claim_is_confirmed_for_a_limited_time_and_confirmed_again_before_a_change(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        clock = harness.clock
        lease = Lease.begin(60, now=clock.now(), monotonic=clock.monotonic())
        assert lease.is_confirmed(clock)
        harness.clock.forward(CONFIRMED_FOR)
        assert not lease.is_confirmed(clock)
        with anyio.fail_after(5):
            await harness.enqueue(create())
        operation = await claim(harness)
        flight = attempt(harness, operation, lease)
        await flight.before_change()
        assert flight.lease is not None
        assert flight.lease.is_confirmed(clock)
        assert await seconds_left(harness, operation.id, "lease_until") == pytest.approx(60)
