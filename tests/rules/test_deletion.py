"""Rules for deletions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.rules.deletion import guard_limit, may_delete

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("live", "count", "fraction", "limit"),
    [(100, 25, 0.05, 25), (1000, 25, 0.05, 50), (0, 0, 0.5, 0), (3, 0, 0.5, 1), (1, 0, 0.99, 0), (10, 0, 1.0, 10)],
)
def test_the_guards_limit_is_the_larger_of_both(live: int, count: int, fraction: float, limit: int) -> None:
    assert guard_limit(live, max_count=count, max_fraction=fraction) == limit


@pytest.mark.parametrize(
    ("absences", "missing_for", "wanted", "grace", "may"),
    [
        (2, 120, 2, 120, True),
        (1, 999, 2, 120, False),
        (9, 119.9, 2, 120, False),
        (1, 0, 1, 0, True),
        (0, 9, 1, 0, False),
    ],
)
def test_deletion_wants_both_the_confirmations_and_the_grace(
    absences: int, missing_for: float, wanted: int, grace: float, *, may: bool
) -> None:
    now = NOON + timedelta(seconds=missing_for)
    assert may_delete(absences=absences, missing_since=NOON, now=now, confirmations=wanted, grace=grace) is may


def test_a_clock_that_was_set_back_deletes_nothing_early() -> None:
    now = NOON - timedelta(days=1)
    assert not may_delete(absences=9, missing_since=NOON, now=now, confirmations=1, grace=0)
