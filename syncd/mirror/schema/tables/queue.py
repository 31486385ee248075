"""The queue, and the log of operators' actions."""

from __future__ import annotations

import sqlalchemy as sa

from syncd.mirror.schema.enums import ACTIVE
from syncd.mirror.schema.tables.columns import metadata, partial_index
from syncd.mirror.schema.types import Key, UtcDateTime, utc_now
from syncd.records.operation_kinds import SPECS

_DELETED = "kind = 'delete' AND state = 'succeeded'"
_WAITING = "(state = 'pending' OR state = 'unknown')"
"""As SQLite needs it to see that `state = 'pending'` implies it."""

operations = sa.Table(
    "operations",
    metadata,
    sa.Column(
        "id", Key, sa.Identity(), primary_key=True, comment="the operation; operations on one key run in this order"
    ),
    sa.Column("kind", sa.Text, nullable=False, comment="create, delete or update"),
    sa.Column(
        "source_session_id",
        sa.Text,
        comment="the external id of the session to create, delete or update",
    ),
    sa.Column("session_id", sa.Text, comment="the session to delete or update"),
    sa.Column("name", sa.Text, comment="the name to create with, or the new name"),
    sa.Column(
        "parent_id",
        sa.Text,
        comment="the folder to create in or to move to; in an update '' moves the session out of its folder",
    ),
    sa.Column("requested_by", sa.Text, comment="the program or person that requested it; free text"),
    sa.Column("requested_at", UtcDateTime, nullable=False, server_default=utc_now(), comment="when it was requested"),
    sa.Column("not_before", UtcDateTime, comment="the earliest time of the first attempt"),
    sa.Column(
        "state",
        sa.Text,
        nullable=False,
        server_default="pending",
        comment="pending, running, unknown, succeeded, dead, cancelled",
    ),
    sa.Column(
        "attempts",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="attempts so far; those of an outage do not count",
    ),
    sa.Column("next_attempt_at", UtcDateTime, comment="when it is due again"),
    sa.Column(
        "last_error", sa.Text, comment="the last error, or the difference between an adopted session and the request"
    ),
    sa.Column("last_status", sa.Integer, comment="the HTTP status of the last answer"),
    sa.Column("result_session_id", sa.Text, comment="the session that was created, adopted or deleted"),
    sa.Column("finished_at", UtcDateTime, comment="when it became succeeded, dead or cancelled"),
    sa.Column(
        "fence",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="rises with each claim; only the holder of the current number can finish the operation",
    ),
    sa.Column("lease_until", UtcDateTime, comment="when the claim expires"),
    sa.Column("lease_owner", sa.Text, comment="the daemon that holds the claim"),
    sa.Column(
        "target_session_id",
        sa.Text,
        comment="the session that an operation by source id was found to mean, stored before a change is sent",
    ),
    sa.Column("unknown_since", UtcDateTime, comment="when the answer to the last create, or to a delete, was lost"),
    sa.Column(
        "lookups",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="look-ups since then that found no session",
    ),
    sa.Column(
        "on_hold_at",
        UtcDateTime,
        comment="since when the operation waits for a release after a restore; null without a hold",
    ),
    sa.Column(
        "blocked_by",
        Key,
        comment="the last earlier operation on the same key that is not over; null if there is none",
    ),
    sa.Column(
        "clock_at",
        UtcDateTime,
        comment="the clock when syncd last set next_attempt_at or lease_until; a clock below it was set back",
    ),
    sa.Column(
        "settle_machine", sa.Text, comment="the machine, since its last restart, whose clock settle_us was read from"
    ),
    sa.Column("settle_us", Key, comment="microseconds of its monotonic clock when the settle time began"),
    sa.Column(
        "settle_for", UtcDateTime, comment="the unknown_since whose settle time it is; for another one it begins again"
    ),
    sa.CheckConstraint(f"kind IN ({', '.join(map(repr, map(str, SPECS)))})", name="kind"),
    sa.CheckConstraint("state IN ('pending', 'running', 'unknown', 'succeeded', 'dead', 'cancelled')", name="state"),
    *(sa.CheckConstraint(spec.condition, name=spec.check) for spec in SPECS.values()),
    sa.CheckConstraint("source_session_id NOT IN ('', '.', '..')", name="source_session_id"),
    sa.CheckConstraint("session_id NOT IN ('', '.', '..')", name="session_id"),
    sa.CheckConstraint("name <> ''", name="name"),
    sa.CheckConstraint("attempts >= 0", name="attempts"),
    sa.CheckConstraint("(state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"),
    partial_index(
        "ix_operations_active_source",
        "source_session_id",
        "id",
        where=f"{ACTIVE} AND source_session_id IS NOT NULL",
    ),
    partial_index("ix_operations_active_session", "session_id", "id", where=f"{ACTIVE} AND session_id IS NOT NULL"),
    sa.Index("ix_operations_state", "state", "id"),
    partial_index(
        "ix_operations_due",
        "state",
        "next_attempt_at",
        "id",
        where=f"{_WAITING} AND blocked_by IS NULL AND on_hold_at IS NULL",
    ),
    partial_index("ix_operations_blocked", "blocked_by", where="blocked_by IS NOT NULL"),
    partial_index("ix_operations_on_hold", "on_hold_at", where="on_hold_at IS NOT NULL"),
    partial_index("ix_operations_clock", "clock_at", where=f"{_WAITING} AND clock_at IS NOT NULL"),
    partial_index("ix_operations_deleted", "finished_at", "result_session_id", where=_DELETED),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="the queue; any program may INSERT kind, the columns it needs, requested_by, requested_at and not_before",
)

operator_actions = sa.Table(
    "operator_actions",
    metadata,
    sa.Column("id", Key, sa.Identity(), primary_key=True, comment="the action"),
    sa.Column("at", UtcDateTime, nullable=False, comment="when it was done"),
    sa.Column("by", sa.Text, nullable=False, comment="the person: --by, or the user of the operating system"),
    sa.Column(
        "action",
        sa.Text,
        nullable=False,
        comment="such as approve, reject, retry, cancel, release, accept, restore, prune",
    ),
    sa.Column("subject", sa.Text, nullable=False, comment="the object of the action, such as operation 12 or pass 7"),
    sa.Column("detail", sa.Text, comment="what changed, such as the state before"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="the decisions of operators, each with the person and the time",
)
