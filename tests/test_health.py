"""What `status` and the status page say: what is urgent, what is worth a look by day, each with what to type."""

from __future__ import annotations

from typing import Any

import pytest

from syncd.health import duration, notices, problems

UNKNOWN = "syncd operations list --state unknown"


def overview(*, operations: dict[str, int] | None = None, conflicts: int = 0, **freshness: Any) -> dict[str, Any]:
    fresh = {"age_seconds": 10.0, "held_pass_id": None, "operations_dead": 0, "quarantined_items": 0, **freshness}
    return {"freshness": fresh, "operations": operations or {}, "sources": {"conflict": conflicts}, "passes": []}


def test_mirror_in_order_needs_nobody_and_nothing_is_worth_a_look() -> None:
    assert problems(overview(), pass_interval=300) == notices(overview()) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"quarantined_items": 1}, "1 listed item cannot be read; run: syncd quarantine list"),
        ({"quarantined_items": 1200}, "1,200 listed items cannot be read; run: syncd quarantine list"),
        ({"conflicts": 2}, "2 source ids are contradictory; run: syncd sources list --state conflict"),
        (
            {"operations": {"unknown": 1}},
            f"1 operation's answer was lost; look-ups settle it by themselves; run: {UNKNOWN}",
        ),
    ],
)
def test_what_can_wait_for_the_day_is_no_problem(found: dict[str, Any], said: str) -> None:
    assert notices(overview(**found)) == [said]
    assert problems(overview(**found), pass_interval=300) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"held_pass_id": 7}, "pass 7 holds deletions for your decision; run: syncd deletions list"),
        ({"operations_dead": 1}, "1 operation is dead; run: syncd operations list --state dead"),
        ({"age_seconds": 961.0}, "the mirror is 16 min old; is syncd run alive? run: syncd doctor"),
    ],
)
def test_what_is_urgent_says_what_to_type(found: dict[str, Any], said: str) -> None:
    assert problems(overview(**found), pass_interval=300) == [said]
    assert notices(overview(**found)) == []


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 days")]
)
def test_durations_are_short(seconds: float, said: str) -> None:
    assert duration(seconds) == said
