"""The guard: passes that would delete more sessions than its limits allow are held."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.records.enums import PassReason
from syncd.rules.deletion import Guard
from tests.helpers.harness import open_harness
from tests.pull.helpers import Listing, asked_for, counted, dump, page
from tests.pull.holds import AT_MOST_THREE, delete, names, sessions_of_holds

pytestmark = pytest.mark.both_databases


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(
    ("live", "gone", "max_count", "max_fraction", "state"),
    [
        (40, 3, 3, 0.0, "complete"),
        (40, 4, 3, 0.0, "held"),
        (40, 4, 0, 0.1, "complete"),
        (40, 5, 0, 0.1, "held"),
        (40, 4, 3, 0.1, "complete"),
        (40, 4, 4, 0.05, "complete"),
        (40, 5, 4, 0.05, "held"),
        (3, 1, 0, 0.0, "held"),
        (20, 10, 25, 0.05, "complete"),
        (20, 11, 25, 0.05, "held"),
        (3, 1, 25, 0.05, "complete"),
        (3, 2, 25, 0.05, "held"),
        (49, 24, 25, 0.05, "complete"),
        (49, 25, 25, 0.05, "held"),
        (50, 25, 25, 0.05, "complete"),
        (50, 26, 25, 0.05, "held"),
    ],
)
async def test_limit_is_the_larger_of_count_and_fraction_but_at_most_half_of_a_small_mirror(
    folder: Path, live: int, gone: int, max_count: int, *, max_fraction: float, state: str
) -> None:
    async with open_harness(folder, sessions=live) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=max_count, max_fraction=max_fraction)
        await harness.one_pass()
        delete(harness, *range(1, gone + 1))
        assert (await harness.one_pass()).state == state
        row = await counted(harness)
        assert (row["missing"], row["deleted"]) == (gone, gone if state == "complete" else 0)
        assert len(await harness.live()) == live - row["deleted"]


async def test_held_pass_deletes_nothing_marks_nothing_and_keeps_its_candidates(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        before = await dump(harness)
        (fresh,) = await harness.sql("SELECT last_complete_pass_at FROM mirror_freshness")
        harness.clock.forward(60)
        delete(harness, 1, 2, 3, 4, 5)
        outcome = await harness.one_pass()
        assert (outcome.pass_id, outcome.state, outcome.reason) == (2, "held", PassReason.TOO_MANY_GONE)
        assert await dump(harness) == before
        assert (await harness.sql("SELECT last_complete_pass_at FROM mirror_freshness")) == [fresh]
        (row,) = await harness.sql("SELECT held_pass_id, live_sessions, missing_sessions FROM mirror_freshness")
        assert row == {"held_pass_id": 2, "live_sessions": 30, "missing_sessions": 0}
        assert await sessions_of_holds(harness) == {2: names(1, 2, 3, 4, 5)}
        assert "5 of 30" in str(outcome.error)
        assert "at least 4" in str(outcome.error)
        (event,) = harness.named("pass.held")
        assert (event["pass_id"], event["candidates"], event["log_level"]) == (2, 5, "warning")
        assert harness.named("pass.complete")[-1]["pass_id"] == 1
        (row,) = await harness.sql("SELECT state, reason, error, missing FROM passes WHERE id = 2")
        assert row == {"state": "held", "reason": "too_many_gone", "error": outcome.error, "missing": 5}


@pytest.mark.parametrize("live", [1, 5])
@pytest.mark.parametrize("gone", [True, False])
async def test_empty_listing_over_live_sessions_is_always_held(folder: Path, live: int, *, gone: bool) -> None:
    async with open_harness(folder, sessions=live) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=1000, max_fraction=1.0)
        await harness.one_pass()
        Listing(harness, {None: page()})
        if gone:
            delete(harness, *range(2, live + 1))
        harness.sandbox.requests.clear()
        outcome = await harness.one_pass()
        assert (outcome.state, outcome.reason) == ("held", PassReason.LISTING_EMPTY)
        assert f"{live} sessions are live" in str(outcome.error)
        assert len(await harness.live()) == live
        assert asked_for(harness) == ["SES1"], "the first request of the pass, and no other"


async def test_empty_listing_without_live_sessions_is_complete(folder: Path) -> None:
    async with open_harness(folder, sessions=0) as harness:
        assert (await harness.one_pass()).state == "complete"
        assert (await counted(harness))["seen"] == 0


async def test_own_creates_that_are_not_listed_yet_open_no_hold(folder: Path) -> None:
    async with open_harness(folder, sessions=0) as harness:
        await harness.one_pass()
        harness.sandbox.habits.listing_lag = 60
        await harness.enqueue(*({"kind": "create", "source_session_id": f"s-{n}", "name": "ours"} for n in range(30)))
        await harness.push().drain()
        harness.clock.forward(1)
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["seen"], row["missing"], row["deleted"]) == (0, 0, 0)
        assert len(await harness.live()) == 30


async def test_empty_listing_is_held_for_own_creates_that_a_pass_has_listed(folder: Path) -> None:
    async with open_harness(folder, sessions=0) as harness:
        await harness.enqueue(*({"kind": "create", "source_session_id": f"s-{n}", "name": "ours"} for n in range(3)))
        await harness.push().drain()
        await harness.one_pass()
        Listing(harness, {None: page()})
        assert (await harness.one_pass()).state == "held"


@pytest.mark.parametrize("gone", [8, 40])
async def test_requests_of_a_held_sweep_are_bounded_by_the_guard(folder: Path, gone: int) -> None:
    async with open_harness(folder, sessions=100) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=7, max_fraction=0.0)
        await harness.one_pass()
        delete(harness, *range(11, 11 + gone))
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "held"
        by_id = [session_id for session_id in asked_for(harness) if session_id not in harness.there()]
        assert len(by_id) == 8, "one more than the limit"
        assert len(asked_for(harness)) <= 8 + 5


async def test_sweep_requests_each_missing_session_once(folder: Path) -> None:
    async with open_harness(folder, sessions=100) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=7, max_fraction=0.0)
        await harness.one_pass()
        delete(harness, *range(11, 18))
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        by_id = [session_id for session_id in asked_for(harness) if session_id not in harness.there()]
        assert sorted(by_id) == sorted(names(*range(11, 18)))
