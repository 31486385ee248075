"""Rules for waiting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.rules.retry import LONGEST_RETRY_AFTER, UNKNOWN_LOOKUPS, Backoff, next_lookup, pass_pause

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_wait_lies_between_nothing_and_its_bound(attempt: int, jitter: float) -> None:
    wait = Backoff(0.5, 300).wait(attempt, jitter=jitter)
    assert 0 <= wait <= min(300, 0.5 * 2 ** min(attempt - 1, 60))


def test_waits_double_up_to_the_longest() -> None:
    waits = [Backoff(0.5, 5).wait(attempt, jitter=1.0) for attempt in range(1, 7)]
    assert waits == [0.5, 1, 2, 4, 5, 5]


@pytest.mark.parametrize(
    ("told", "wait"),
    [(7.0, 7.0), (LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER), (LONGEST_RETRY_AFTER + 1, 300.0), (0.0, 0.5), (None, 0.5)],
)
def test_what_the_server_asks_for_is_waited_unless_it_is_out_of_its_mind(told: float | None, wait: float) -> None:
    assert Backoff(0.5, 300).wait(1, jitter=1.0, retry_after=told) == wait


def test_look_ups_are_spread_over_the_settle_time() -> None:
    found: list[datetime] = []
    while (due := next_lookup(NOON, lookups=len(found), settle=60, now=found[-1] if found else NOON)) is not None:
        found.append(due)
    assert found == [NOON + timedelta(seconds=60 * part) for part in UNKNOWN_LOOKUPS]


def test_look_ups_keep_their_distance_from_each_other_when_the_clock_is_set_forward() -> None:
    late = NOON + timedelta(hours=1)
    distance = UNKNOWN_LOOKUPS[2] - UNKNOWN_LOOKUPS[1]
    assert next_lookup(NOON, lookups=2, settle=60, now=late) == late + timedelta(seconds=60 * distance / 2)


@pytest.mark.parametrize(
    ("interval", "seconds_spent", "failed", "pause"),
    [(300, 10, False, 290), (300, 400, False, 0), (300, 10, True, 45), (30, 10, True, 20), (300, 299, True, 1)],
)
def test_pass_that_failed_is_tried_again_before_the_first_good_minute_is_over(
    interval: float, seconds_spent: float, failed: bool, pause: float
) -> None:
    assert pass_pause(interval, seconds_spent, failed=failed) == pause
