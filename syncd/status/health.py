"""The health of a mirror: everything that needs a person, each with a code, a text and a command. Pure.

`syncd status`, `/status.json`, the status page, `/readyz`, `health.changed` and `syncd doctor` all show what `assess`
returns. The daemon passes its own view. Without a daemon the database alone is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from syncd.records.enums import PassReason, PassState
from syncd.rules.identity import Identity, same_tenant
from syncd.status.problem_codes import PROBLEMS, ProblemCode

MISSED_PASSES = 3
"""Intervals without a complete pass after which the mirror counts as stale."""
LEEWAY = 60.0
"""Seconds on top of them, for the passes' own length."""
STUCK_AFTER = 3600.0
"""Seconds without success after which an operation needs a person: longer than a gateway or a deployment takes."""
DOCTOR = "syncd doctor"
DEAD = "syncd operations list --state dead, then: syncd operations retry ID, or syncd operations cancel ID"
QUARANTINE = "syncd quarantine list, and for items that may be ignored: syncd quarantine accept ID"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that needs a person; `command` is what to type."""

    code: ProblemCode
    text: str
    command: str | None

    def __str__(self) -> str:
        return sentence(self.text, self.command)

    def as_dict(self) -> dict[str, str | None]:
        """Return it for JSON."""
        return {"code": self.code.value, "text": self.text, "command": self.command}


def sentence(text: str, command: str | None) -> str:
    """Return a problem in one line, with the command to type."""
    if command is None:
        return text
    return f"{text}; run: {command}"


@dataclass(frozen=True, slots=True)
class Health:
    """The findings that need a person: `problems` soon, `notices` in office hours."""

    problems: tuple[Problem, ...]
    notices: tuple[Problem, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing urgent was found."""
        return not self.problems

    @property
    def not_ready(self) -> tuple[Problem, ...]:
        """The problems for which `/readyz` answers 503."""
        return tuple(problem for problem in self.problems if not PROBLEMS[problem.code].ready)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonView:
    """The state of a running daemon that its database does not contain.

    Attributes
    ----------
    unreadable : str | None
        Why the database cannot be read now; None if it can be.
    stalled : tuple[str, ...]
        The loops without progress.
    failing : tuple[str, ...]
        Work that failed again and again with the same error.
    refused : bool
        Albert refuses the credentials.
    unreachable : str | None
        Why Albert has not answered for half a minute or longer; None if it has.
    waiting : str | None
        Why writes wait: a lock, no room on the disk, or an absent server; None if they do not wait.
    """

    unreadable: str | None = None
    stalled: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    refused: bool = False
    unreachable: str | None = None
    waiting: str | None = None


def assess(
    overview: Mapping[str, Any] | None,
    *,
    pass_interval: float,
    now: datetime,
    named: Identity | None = None,
    daemon: DaemonView | None = None,
    silent: str | None = None,
) -> Health:
    """Find everything that needs a person.

    Parameters
    ----------
    overview : Mapping[str, Any] | None
        The result of `mirror.read.views.overview`; None if the database cannot be read.
    pass_interval : float
        Seconds between the starts of passes.
    now : datetime
        The present time.
    named : Identity | None
        The tenant that the settings name; None if it is known to be the one of the database.
    daemon : DaemonView | None
        The view of the daemon that asks; None if the database alone is judged.
    silent : str | None
        Why a daemon that seems to run did not answer; None if none seems to run, or if it is `daemon`.
    """
    problems = list(_of_daemon(daemon)) if daemon is not None else []
    if silent is not None:
        problems.append(Problem(ProblemCode.DAEMON_SILENT, silent, None))
    if overview is not None:
        problems += _of_identity(overview["identity"], named)
        problems += _of_passes(overview, pass_interval, beside_daemon=daemon is not None)
        problems += _of_queue(overview, now)
    return Health(
        tuple(problem for problem in problems if PROBLEMS[problem.code].urgent),
        tuple(problem for problem in problems if not PROBLEMS[problem.code].urgent),
    )


def _of_daemon(daemon: DaemonView) -> Iterator[Problem]:
    if daemon.stalled:
        text = f"no progress in: {', '.join(daemon.stalled)}; restart syncd run, and keep its log"
        yield Problem(ProblemCode.LOOP_STALLED, text, None)
    if daemon.unreadable is not None:
        yield Problem(ProblemCode.DATABASE_UNREADABLE, daemon.unreadable, DOCTOR)
    for failure in daemon.failing:
        yield Problem(ProblemCode.WORK_FAILING, failure, DOCTOR)
    if daemon.refused:
        text = "Albert refuses the credentials; the queue is paused; fix them"
        yield Problem(ProblemCode.CREDENTIALS_REFUSED, text, DOCTOR)
    if daemon.unreachable is not None:
        text = f"Albert does not answer, and the work continues by itself when it does: {daemon.unreachable}"
        yield Problem(ProblemCode.ALBERT_UNREACHABLE, text, DOCTOR)
    if daemon.waiting is not None:
        text = f"writes wait, and continue by themselves when this is over: {daemon.waiting}"
        yield Problem(ProblemCode.DATABASE_WAITING, text, DOCTOR)


def _of_identity(identity: Mapping[str, Any], named: Identity | None) -> Iterator[Problem]:
    """Find why the database does not act, or does not apply operations, although nothing failed."""
    pinned = Identity(identity["origin"], identity["tenant_id"])
    if identity["moved_to"] is not None:
        text = (
            f"the database was moved to {identity['moved_to']} and does not act; point SYNCD_DATABASE_URL there, or "
            "use this one again"
        )
        yield Problem(ProblemCode.DATABASE_MOVED, text, "syncd migrate-store --unmark")
    if named is not None and not same_tenant(pinned, named):
        text = (
            f"the database mirrors {pinned}, but the settings name {named}; fix ALBERT_BASE_URL or the credentials, or "
            "accept the other tenant"
        )
        yield Problem(ProblemCode.TENANT_MISMATCH, text, "syncd tenant accept")
    if count := identity["operations_on_hold"]:
        operations = counted(count, "operation is on hold", "operations are on hold")
        text = f"{operations} since a restore or a change of the tenant"
        command = "syncd operations list --on-hold, then release or cancel them"
        yield Problem(ProblemCode.OPERATIONS_ON_HOLD, text, command)


def _of_passes(overview: Mapping[str, Any], pass_interval: float, *, beside_daemon: bool) -> Iterator[Problem]:
    fresh, age = overview["freshness"], overview["freshness"]["age_seconds"]
    ended = next((row for row in overview["passes"] if row["state"] != PassState.RUNNING), None)
    why = f" (pass {ended['id']} is {ended['state']}: {ended['error']})" if ended and ended["error"] else ""
    if age is None:
        if ended is not None or not beside_daemon:  # a daemon without a pass has just begun
            command = DOCTOR if beside_daemon else "syncd once, or see the log of syncd run"
            yield Problem(ProblemCode.NO_COMPLETE_PASS, f"no pass has been complete yet{why}", _remedy(ended, command))
    elif _content_age(fresh, ended) > MISSED_PASSES * pass_interval + LEEWAY:
        text = f"the mirror is {duration(age)} old{why}" + (
            "" if beside_daemon else "; check whether syncd run is running"
        )
        yield Problem(ProblemCode.MIRROR_STALE, text, _remedy(ended, DOCTOR))
    elif ended and ended["state"] in {PassState.FAILED, PassState.PARTIAL}:
        text = f"the last pass was not complete{why}; the next one may be"
        yield Problem(ProblemCode.PASS_NOT_COMPLETE, text, _remedy(ended, DOCTOR))
    if fresh["held_pass_id"] is not None:
        text = f"pass {fresh['held_pass_id']} holds deletions for your decision"
        yield Problem(ProblemCode.DELETIONS_HELD, text, "syncd deletions list")
    elif ended and ended["state"] == PassState.HELD and ended["reason"] == PassReason.KNOWN_SESSIONS_GONE:
        text = (
            f"pass {ended['id']} is held although its hold was rejected, because Albert knows none of the sessions "
            "that it requested first; fix the credentials or ALBERT_BASE_URL, or decide again"
        )
        yield Problem(ProblemCode.KNOWN_SESSIONS_GONE, text, "syncd deletions list --all")


def _content_age(fresh: Mapping[str, Any], ended: Mapping[str, Any] | None) -> float:
    """Return the age of the sessions' content: a held pass reads and writes them, and decides only about deletions."""
    age, listed = fresh["age_seconds"], fresh["listed_age_seconds"]
    if ended is not None and ended["state"] == PassState.HELD and listed is not None:
        return float(min(age, listed))
    return float(age)


def _of_queue(overview: Mapping[str, Any], now: datetime) -> Iterator[Problem]:
    fresh, operations = overview["freshness"], overview["operations"]
    if dead := fresh["operations_dead"]:
        yield dead_operations(dead)
    if overview["retrying"]["operations"]:
        yield _retried_operations(overview["retrying"], now)
    if unreadable := fresh["quarantined_items"]:
        text = counted(unreadable, "listed item cannot be read", "listed items cannot be read")
        yield Problem(ProblemCode.ITEMS_UNREADABLE, text, "syncd quarantine list")
    if conflicts := overview["sources"].get("conflict", 0):
        text = counted(conflicts, "source id is in conflict", "source ids are in conflict")
        yield Problem(ProblemCode.SOURCES_IN_CONFLICT, text, "syncd sources list --state conflict")
    if unknown := operations.get("unknown", 0):
        lost = counted(unknown, "operation's answer was lost", "operations' answers were lost")
        command = "syncd operations list --state unknown"
        yield Problem(ProblemCode.OPERATIONS_UNKNOWN, f"{lost}; look-ups over the settle time decide", command)


def _retried_operations(retrying: Mapping[str, Any], now: datetime) -> Problem:
    seconds = max((now - retrying["since"]).total_seconds(), 0.0)
    operations = counted(retrying["operations"], "operation was tried", "operations were tried")
    code = ProblemCode.OPERATIONS_STUCK if seconds > STUCK_AFTER else ProblemCode.OPERATIONS_RETRYING
    text = f"{operations} without success, the first for {duration(seconds)}, and will be tried again"
    return Problem(code, text, "syncd operations list --state pending")


def dead_operations(count: int) -> Problem:
    """Return the problem that operations are dead."""
    text = counted(count, "operation is dead", "operations are dead")
    return Problem(ProblemCode.OPERATIONS_DEAD, text, DEAD)


def _remedy(ended: Mapping[str, Any] | None, otherwise: str) -> str:
    """Return what to do about passes that end as the last one did."""
    return QUARANTINE if ended is not None and ended["reason"] == PassReason.ITEM_WITHOUT_ID else otherwise


def counted(count: int, singular: str, many: str) -> str:
    """Return a number with the singular or the plural."""
    return f"{count:,} {singular if count == 1 else many}"


def duration(seconds: float) -> str:
    """Write a duration for people: 45 s, 12 min, 3 h, 2 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
