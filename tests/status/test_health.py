"""Problems and notices of `syncd status` and the status page, each with a command to run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.records.enums import PassReason
from syncd.status.health import DaemonView, assess, duration
from syncd.status.problem_codes import PROBLEMS, ProblemCode

UNKNOWN = "syncd operations list --state unknown"
DEAD = "syncd operations list --state dead, then: syncd operations retry ID, or syncd operations cancel ID"
PENDING = "syncd operations list --state pending"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def overview(
    *passes: tuple[str, str | None],
    operations: dict[str, int] | None = None,
    conflicts: int = 0,
    reason: str | None = None,
    retrying: tuple[int, datetime | None] = (0, None),
    **freshness: Any,
) -> dict[str, Any]:
    """Return an overview with these passes, newest first, each a state and an error."""
    rows = [
        {"id": len(passes) - n, "state": state, "error": error, "reason": reason}
        for n, (state, error) in enumerate(passes)
    ]
    fresh = {
        "age_seconds": 10.0,
        "listed_age_seconds": 10.0,
        "held_pass_id": None,
        "operations_dead": 0,
        "quarantined_items": 0,
        **freshness,
    }
    identity = dict.fromkeys(("origin", "tenant_id", "copied_at", "moved_to", "moved_at"))
    return {
        "identity": {**identity, "operations_on_hold": 0}, "freshness": fresh, "operations": operations or {},
        "retrying": {"operations": retrying[0], "since": retrying[1]},
        "sources": {"conflict": conflicts}, "passes": rows,
    }  # fmt: skip


def problems(given: dict[str, Any], **how: Any) -> list[str]:
    return [str(problem) for problem in assess(given, **{"now": NOW, **how}).problems]


def notices(given: dict[str, Any]) -> list[str]:
    return [str(notice) for notice in assess(given, pass_interval=300, now=NOW).notices]


def codes(given: dict[str, Any] | None, daemon: DaemonView) -> list[str]:
    return [problem.code.value for problem in assess(given, pass_interval=300, now=NOW, daemon=daemon).problems]


@pytest.mark.parametrize(
    ("daemon", "code"),
    [
        (DaemonView(unreadable="the database cannot be read"), ProblemCode.DATABASE_UNREADABLE),
        (DaemonView(stalled=("passes",)), ProblemCode.LOOP_STALLED),
        (DaemonView(failing=("operations.claim failed 3 times",)), ProblemCode.WORK_FAILING),
        (DaemonView(refused=True), ProblemCode.CREDENTIALS_REFUSED),
        (DaemonView(waiting="another program has the file locked"), ProblemCode.DATABASE_WAITING),
    ],
)
def test_state_known_only_to_the_daemon_is_a_problem(daemon: DaemonView, code: ProblemCode) -> None:
    assert codes(overview(), daemon) == codes(None, daemon) == [code]
    assert bool(assess(None, pass_interval=300, now=NOW, daemon=daemon).not_ready) is not PROBLEMS[code].ready


def test_albert_that_does_not_answer_is_a_notice_with_the_reason() -> None:
    daemon = DaemonView(unreachable="no connection to albert.test:443: Connection refused")
    health = assess(overview(), pass_interval=300, now=NOW, daemon=daemon)
    assert health.healthy
    (notice,) = health.notices
    assert notice.code is ProblemCode.ALBERT_UNREACHABLE
    assert "Connection refused" in notice.text


def test_daemon_reports_no_problem_before_its_first_pass_and_does_not_ask_whether_it_runs() -> None:
    assert codes(overview(age_seconds=None), DaemonView()) == []
    assert codes(overview(("running", None), age_seconds=None), DaemonView()) == []
    assert codes(overview(("failed", "down"), age_seconds=None), DaemonView()) == [ProblemCode.NO_COMPLETE_PASS]
    (stale,) = assess(overview(age_seconds=4000.0), pass_interval=300, now=NOW, daemon=DaemonView()).problems
    assert "check whether syncd run" not in stale.text


def test_every_code_has_its_meaning() -> None:
    assert set(PROBLEMS) == set(ProblemCode)


def test_healthy_mirror_has_no_problems_and_no_notices() -> None:
    assert problems(overview(), pass_interval=300, now=NOW) == notices(overview()) == []


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"quarantined_items": 1}, "1 listed item cannot be read; run: syncd quarantine list"),
        ({"quarantined_items": 1200}, "1,200 listed items cannot be read; run: syncd quarantine list"),
        ({"conflicts": 2}, "2 source ids are in conflict; run: syncd sources list --state conflict"),
        (
            {"operations": {"unknown": 1}},
            f"1 operation's answer was lost; look-ups over the settle time decide; run: {UNKNOWN}",
        ),
        (
            {"retrying": (1, NOW - timedelta(seconds=3600))},
            f"1 operation was tried without success, the first for 60 min, and will be tried again; run: {PENDING}",
        ),
    ],
)
def test_state_that_is_not_urgent_is_a_notice_and_not_a_problem(state: dict[str, Any], said: str) -> None:
    assert notices(overview(**state)) == [said]
    assert problems(overview(**state), pass_interval=300, now=NOW) == []


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"held_pass_id": 7}, "pass 7 holds deletions for your decision; run: syncd deletions list"),
        ({"operations_dead": 1}, f"1 operation is dead; run: {DEAD}"),
        (
            {"retrying": (3, NOW - timedelta(seconds=7201))},
            f"3 operations were tried without success, the first for 2 h, and will be tried again; run: {PENDING}",
        ),
        ({"age_seconds": 961.0}, "the mirror is 16 min old; check whether syncd run is running; run: syncd doctor"),
    ],
)
def test_urgent_state_is_a_problem_with_a_command(state: dict[str, Any], said: str) -> None:
    assert problems(overview(**state), pass_interval=300, now=NOW) == [said]
    assert notices(overview(**state)) == []


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 days")]
)
def test_durations_are_short(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def urgent(*passes: tuple[str, str | None], **fresh: Any) -> list[str]:
    return problems(overview(*passes, **fresh), pass_interval=300, now=NOW)


def test_fresh_mirror_has_no_problems() -> None:
    assert urgent(("complete", None), ("failed", "Albert was down")) == []
    assert urgent(("running", None), ("complete", None)) == []


@pytest.mark.parametrize("state", ["failed", "partial"])
def test_last_pass_that_was_not_complete_is_a_problem_also_in_a_fresh_mirror(state: str) -> None:
    (problem,) = urgent((state, "Albert was down"), ("complete", None))
    assert f"pass 2 is {state}: Albert was down" in problem
    assert urgent(("running", None), (state, "Albert was down"), ("complete", None)) == [problem]


@pytest.mark.parametrize("fresh", [{}, {"age_seconds": 4000.0}, {"age_seconds": None}])
def test_problem_of_an_item_without_an_id_names_the_command_that_accepts_it(fresh: dict[str, Any]) -> None:
    without_id = ("partial", "1 item had no readable id"), ("complete", None)
    (problem,) = urgent(*without_id, reason=PassReason.ITEM_WITHOUT_ID, **fresh)
    assert problem.endswith("run: syncd quarantine list, and for items that may be ignored: syncd quarantine accept ID")
    assert "doctor" not in problem


def test_problem_of_a_stale_mirror_has_the_reason_also_while_the_next_pass_runs() -> None:
    (problem,) = urgent(("running", None), ("failed", "Albert was down"), age_seconds=4000.0)
    assert "67 min old (pass 1 is failed: Albert was down)" in problem


def test_mirror_is_not_stale_while_a_hold_lasts_and_listings_are_read() -> None:
    (problem,) = urgent(("held", "too many"), held_pass_id=1, age_seconds=40_000.0)
    assert "holds deletions" in problem
    assert len(urgent(("held", "too many"), held_pass_id=1, age_seconds=40_000.0, listed_age_seconds=4000.0)) == 2


def test_rejected_hold_is_not_a_problem() -> None:
    assert urgent(("held", "too many")) == []
    assert "syncd deletions list" in urgent(("held", "too many"), held_pass_id=1)[0]


def test_rejected_hold_that_keeps_passes_from_starting_is_a_problem_with_a_command() -> None:
    row = {"id": 3, "state": "held", "error": "Albert answers 404", "reason": "known_sessions_gone"}
    given = overview() | {"passes": [row]}
    (problem,) = problems(given, pass_interval=300, now=NOW)
    assert problem.startswith("pass 3 is held although its hold was rejected")
    assert problem.endswith("syncd deletions list --all")
    given["freshness"]["held_pass_id"] = 3
    assert problems(given, pass_interval=300, now=NOW) == [
        "pass 3 holds deletions for your decision; run: syncd deletions list"
    ]


def test_dead_operations_are_counted_in_singular_and_plural() -> None:
    assert urgent(("complete", None), operations_dead=1)[0].startswith("1 operation is dead;")
    assert urgent(("complete", None), operations_dead=2)[0].startswith("2 operations are dead;")
