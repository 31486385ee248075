"""The problems that syncd reports: a stable code for each, its meaning and its alert. `health` finds them.

The table in docs/operations.md is made from `PROBLEMS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProblemCode(StrEnum):
    """The codes of problems and notices. They are part of the public interface."""

    DATABASE_UNREADABLE = "database_unreadable"
    DAEMON_SILENT = "daemon_silent"
    LOOP_STALLED = "loop_stalled"
    WORK_FAILING = "work_failing"
    CREDENTIALS_REFUSED = "credentials_refused"
    DATABASE_WAITING = "database_waiting"
    DATABASE_MOVED = "database_moved"
    TENANT_MISMATCH = "tenant_mismatch"
    OPERATIONS_ON_HOLD = "operations_on_hold"
    NO_COMPLETE_PASS = "no_complete_pass"  # noqa: S105 - a pass of the mirror
    MIRROR_STALE = "mirror_stale"
    PASS_NOT_COMPLETE = "pass_not_complete"  # noqa: S105 - a pass of the mirror
    DELETIONS_HELD = "deletions_held"
    KNOWN_SESSIONS_GONE = "known_sessions_gone"
    OPERATIONS_DEAD = "operations_dead"
    OPERATIONS_STUCK = "operations_stuck"
    ITEMS_UNREADABLE = "items_unreadable"
    ALBERT_UNREACHABLE = "albert_unreachable"
    SOURCES_IN_CONFLICT = "sources_in_conflict"
    OPERATIONS_UNKNOWN = "operations_unknown"
    OPERATIONS_RETRYING = "operations_retrying"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """The meaning of a code.

    Attributes
    ----------
    urgent : bool
        The mirror counts as unhealthy. The others are notices, for office hours.
    alert : str | None
        The rule in `config/prometheus-alerts.yaml`; None if only syncd itself reports it.
    ready : bool
        `/readyz` answers 200 in spite of it.
    """

    meaning: str
    urgent: bool = True
    alert: str | None = None
    ready: bool = True


PROBLEMS = {
    ProblemCode.DATABASE_UNREADABLE: ProblemKind(
        "the daemon cannot read its database, has not opened it yet, or the schema is not current",
        alert="SyncdDown", ready=False,
    ),
    ProblemCode.DAEMON_SILENT: ProblemKind(
        "the daemon accepts connections on its port and does not answer; only commands report it", alert="SyncdDown"
    ),
    ProblemCode.LOOP_STALLED: ProblemKind("a loop of the daemon makes no progress", alert="SyncdLoopStalled"),
    ProblemCode.WORK_FAILING: ProblemKind(
        "the same work failed at least three times over 5 seconds with the same error",
        alert="SyncdWorkFailing", ready=False,
    ),
    ProblemCode.CREDENTIALS_REFUSED: ProblemKind(
        "Albert refuses the credentials; the queue is paused and uses no attempts",
        alert="SyncdCredentialsRefused", ready=False,
    ),
    ProblemCode.DATABASE_WAITING: ProblemKind(
        "writes wait for a lock, for room on the disk or for the server", alert="SyncdDatabaseWaiting"
    ),
    ProblemCode.DATABASE_MOVED: ProblemKind("the content was moved to another database, and this one does not act"),
    ProblemCode.TENANT_MISMATCH: ProblemKind("the settings name another tenant than the database mirrors"),
    ProblemCode.OPERATIONS_ON_HOLD: ProblemKind("operations of a restored backup wait for a decision"),
    ProblemCode.NO_COMPLETE_PASS: ProblemKind("no pass has been complete yet", alert="SyncdMirrorStale"),
    ProblemCode.MIRROR_STALE: ProblemKind(
        "the last complete pass ended more than three intervals and a minute ago", alert="SyncdMirrorStale"
    ),
    ProblemCode.PASS_NOT_COMPLETE: ProblemKind("the last pass ended as partial or failed"),
    ProblemCode.DELETIONS_HELD: ProblemKind("a pass holds deletions for a decision", alert="SyncdPassHeld"),
    ProblemCode.KNOWN_SESSIONS_GONE: ProblemKind(
        "passes are held although the hold was rejected: Albert knows none of the mirror's sessions"
    ),
    ProblemCode.OPERATIONS_DEAD: ProblemKind("operations failed for good", alert="SyncdOperationsDead"),
    ProblemCode.OPERATIONS_STUCK: ProblemKind("operations were tried for more than an hour without success"),
    ProblemCode.ALBERT_UNREACHABLE: ProblemKind(
        "Albert has not answered for half a minute or longer", urgent=False, alert="SyncdAlbertFailing"
    ),
    ProblemCode.ITEMS_UNREADABLE: ProblemKind("listed items cannot be read", urgent=False, alert="SyncdQuarantine"),
    ProblemCode.SOURCES_IN_CONFLICT: ProblemKind(
        "source ids are carried by several sessions", urgent=False, alert="SyncdSourceConflicts"
    ),
    ProblemCode.OPERATIONS_UNKNOWN: ProblemKind(
        "answers to operations were lost; they are looked up", urgent=False, alert="SyncdOperationsUnknown"
    ),
    ProblemCode.OPERATIONS_RETRYING: ProblemKind(
        "operations were tried without success and will be tried again", urgent=False
    ),
}  # fmt: skip
