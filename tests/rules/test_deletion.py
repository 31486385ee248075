"""Rules for deletions."""

from __future__ import annotations

import pytest

from syncd.rules.deletion import Guard


def guard(**changes: float) -> Guard:
    values = {"grace": 120.0, "confirmations": 2, "max_count": 25, "max_fraction": 0.05, **changes}
    return Guard(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("live", "count", "fraction", "limit"),
    [
        (100, 25, 0.05, 25), (1000, 25, 0.05, 50), (0, 0, 0.5, 0), (3, 0, 0.5, 1), (1, 0, 0.99, 0), (10, 0, 1.0, 10),
        (50, 25, 0.05, 25), (49, 25, 0.05, 24), (20, 25, 0.05, 10), (3, 25, 0.05, 1), (1, 25, 0.05, 0), (0, 25, 1.0, 0),
        (5, 1000, 1.0, 2),
    ],
)  # fmt: skip
def test_the_guards_limit_is_the_larger_of_both_and_half_of_a_small_mirror(
    live: int, count: int, fraction: float, limit: int
) -> None:
    assert guard(max_count=count, max_fraction=fraction).limit(live) == limit


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
def test_deletion_needs_the_confirmations_and_the_grace(
    absences: int, missing_for: float, wanted: int, grace: float, *, may: bool
) -> None:
    assert guard(confirmations=wanted, grace=grace).may_delete(absences=absences, missing_for=missing_for) is may
