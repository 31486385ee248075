"""What `syncd status` and the status page say needs somebody."""

from __future__ import annotations

from typing import Any

import pytest

from syncd.health import problems


def overview(*passes: tuple[str, str | None], **fresh: Any) -> dict[str, Any]:
    """Return an overview with these passes, newest first, each a state and an error."""
    rows = [{"id": len(passes) - n, "state": state, "error": error} for n, (state, error) in enumerate(passes)]
    freshness = {"age_seconds": 1.0, "held_pass_id": None, "operations_dead": 0, **fresh}
    return {"freshness": freshness, "passes": rows}


def found(*passes: tuple[str, str | None], **fresh: Any) -> list[str]:
    return problems(overview(*passes, **fresh), pass_interval=300)


def test_fresh_mirror_needs_nobody() -> None:
    assert found(("complete", None), ("failed", "Albert was down")) == []
    assert found(("running", None), ("complete", None)) == []


@pytest.mark.parametrize("state", ["failed", "partial"])
def test_last_pass_that_was_not_complete_is_a_problem_however_fresh_the_mirror(state: str) -> None:
    (problem,) = found((state, "Albert was down"), ("complete", None))
    assert f"pass 2 is {state}: Albert was down" in problem
    assert found(("running", None), (state, "Albert was down"), ("complete", None)) == [problem]


def test_stale_mirror_says_why_also_while_the_next_pass_runs() -> None:
    (problem,) = found(("running", None), ("failed", "Albert was down"), age_seconds=4000.0)
    assert "67 min old (pass 1 is failed: Albert was down)" in problem


def test_rejected_hold_is_no_problem_any_more() -> None:
    assert found(("held", "too many")) == []
    assert "syncd deletions list" in found(("held", "too many"), held_pass_id=1)[0]


def test_dead_operations_are_counted_in_good_english() -> None:
    assert found(("complete", None), operations_dead=1)[0].startswith("1 operation is dead;")
    assert found(("complete", None), operations_dead=2)[0].startswith("2 operations are dead;")
