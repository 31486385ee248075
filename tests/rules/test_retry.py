"""Rules for waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.rules.retry import LONGEST_RETRY_AFTER, UNKNOWN_LOOKUPS, Backoff, after_lookup, first_lookup, pass_pause


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wait_is_between_zero_and_its_bound(attempt: int, jitter: float) -> None:
    wait = Backoff(0.5, 300).wait(attempt, jitter=jitter)
    assert 0 <= wait <= min(300, 0.5 * 2 ** min(attempt - 1, 60))


def test_waits_double_up_to_the_longest() -> None:
    waits = [Backoff(0.5, 5).wait(attempt, jitter=1.0) for attempt in range(1, 7)]
    assert waits == [0.5, 1, 2, 4, 5, 5]


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [(7.0, 7.0), (LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER), (LONGEST_RETRY_AFTER + 1, 300.0), (0.0, 0.5), (None, 0.5)],
)
def test_retry_after_is_waited_unless_it_is_invalid(retry_after: float | None, wait: float) -> None:
    assert Backoff(0.5, 300).wait(1, jitter=1.0, retry_after=retry_after) == wait


def test_look_ups_are_spread_over_the_settle_time() -> None:
    times = [first_lookup(60)]
    while (plan := after_lookup(len(times) - 1, elapsed=times[-1], settle=60)).wait is not None:
        assert plan.lookups == len(times)
        times.append(times[-1] + plan.wait)
    assert times == pytest.approx([60 * part for part in UNKNOWN_LOOKUPS])


@pytest.mark.parametrize("lookups", range(len(UNKNOWN_LOOKUPS)))
def test_look_up_before_its_time_does_not_count(lookups: int) -> None:
    plan = after_lookup(lookups, elapsed=0.0, settle=60)
    assert plan.lookups == lookups
    assert plan.wait == pytest.approx(60 * UNKNOWN_LOOKUPS[lookups])


@given(st.lists(st.floats(0, 30), min_size=1, max_size=40), st.integers(0, 3))
def test_create_is_never_sent_again_before_the_settle_time_is_over(steps: list[float], lookups: int) -> None:
    elapsed = 0.0
    for step in steps:
        elapsed += step
        plan = after_lookup(lookups, elapsed=elapsed, settle=60)
        if plan.wait is None:
            assert elapsed >= 60
            return
        assert plan.wait > 0
        lookups = plan.lookups


def test_late_look_ups_keep_half_their_distance_from_each_other() -> None:
    distance = UNKNOWN_LOOKUPS[3] - UNKNOWN_LOOKUPS[2]
    assert after_lookup(2, elapsed=3600, settle=60).wait == 60 * distance / 2


@pytest.mark.parametrize(
    ("interval", "seconds_spent", "failed", "pause"),
    [(300, 10, False, 290), (300, 400, False, 0), (300, 10, True, 45), (30, 10, True, 20), (300, 299, True, 1)],
)
def test_pass_that_failed_is_tried_again_before_the_first_good_minute_is_over(
    interval: float, seconds_spent: float, failed: bool, pause: float
) -> None:
    assert pass_pause(interval, seconds_spent, failed=failed) == pause
