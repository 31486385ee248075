"""The schema, once: tables, and what each column means.

The comments are PostgreSQL's COMMENTs and the text of `docs/schema.md`. The analysts' views are in
`migrations/versions`; `tests/mirror/test_migrations.py` holds this file and the migrations together.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from syncd.mirror.schema.types import Boolean, JsonText, Key, Number, UtcDateTime, utc_now
from syncd.records.enums import ACTIVE_STATES
from syncd.records.fields import EXTRA, FOLDERS, SESSIONS, FieldList, FieldType
from syncd.records.operation_kinds import SPECS

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_COLUMN_TYPES: dict[FieldType, Any] = {
    FieldType.TEXT: sa.Text(),
    FieldType.NUMBER: Number,
    FieldType.BOOLEAN: Boolean(),
    FieldType.TIME: UtcDateTime(),
    FieldType.JSON: JsonText,
}


def content_columns(fields: FieldList[Any]) -> list[sa.Column[Any]]:
    """Make the columns that hold what Albert says of a record."""
    return [
        sa.Column(
            name,
            _COLUMN_TYPES[one.type],
            nullable=not one.required,
            server_default="{}" if name == EXTRA else None,
            comment=one.wire.comment,
        )
        for name, one in fields.by_column.items()
    ]


def _feed() -> list[sa.Column[Any]]:
    """Return the columns that place a version in the change feed."""
    return [
        sa.Column(
            "seq",
            Key,
            nullable=False,
            server_default="0",
            comment="the place of this version among all versions, in the order of commits",
        ),
        sa.Column(
            "changed_fields",
            sa.Text,
            nullable=False,
            server_default="[]",
            comment="JSON list of the columns that this version changed; [] for created and deleted",
        ),
    ]


def _some(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    """Make an index of those rows that a condition names."""
    condition = sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column(
        "key",
        Key,
        sa.Identity(),
        primary_key=True,
        comment="syncd's own number of the session; a pass keeps one bit for each",
    ),
    *content_columns(SESSIONS),
    sa.Column("version", sa.Integer, nullable=False, comment="counts the versions of the session from 1"),
    sa.Column(
        "change",
        sa.Text,
        nullable=False,
        comment="what made this version: created, updated, deleted, restored",
    ),
    sa.Column("valid_from", UtcDateTime, nullable=False, comment="when syncd wrote this version"),
    sa.Column("pass_id", Key, comment="the pass that wrote this version; null when an operation or a look-up did"),
    sa.Column("first_seen_at", UtcDateTime, nullable=False, comment="when syncd first saw the session"),
    sa.Column("observed_at", UtcDateTime, comment="the last time that something other than a listing showed it"),
    sa.Column("missing_since", UtcDateTime, comment="since when complete passes have missed it; null while listed"),
    sa.Column("absences", sa.Integer, nullable=False, server_default="0", comment="404s counted since then"),
    sa.Column("absence_pass_id", Key, comment="the last pass that counted one"),
    sa.Column("deleted_at", UtcDateTime, comment="when the session was found deleted; the row stays as a tombstone"),
    sa.Column(
        "unlisted_alive_at", UtcDateTime, comment="when Albert last answered 200 for it although it is not listed"
    ),
    sa.Column("missing_elapsed_ms", Key, comment="elapsed_time.milliseconds when it was marked missing"),
    *_feed(),
    sa.Column("created_date", sa.Text, comment="the UTC date of created_at, as YYYY-MM-DD"),
    sa.Column("last_message_date", sa.Text, comment="the UTC date of last_message_at, as YYYY-MM-DD"),
    sa.CheckConstraint(
        "change = 'created' OR change = 'updated' OR change = 'deleted' OR change = 'restored'", name="change"
    ),
    sa.CheckConstraint("(change = 'deleted') = (deleted_at IS NOT NULL)", name="deleted"),
    sa.Index("uq_sessions_id", "id", unique=True),
    sa.Index("ix_sessions_source", "source_session_id", "id", "deleted_at"),
    sa.Index("uq_sessions_seq", "seq", unique=True),
    _some("ix_sessions_missing", "missing_since", where="missing_since IS NOT NULL"),
    _some("ix_sessions_deleted", "deleted_at", where="deleted_at IS NOT NULL"),
    _some("ix_sessions_unlisted_alive", "unlisted_alive_at", where="unlisted_alive_at IS NOT NULL"),
    sqlite_strict=True,
    comment="every session ever seen, with its current version; read the views chat_sessions and chat_sessions_all",
)

session_versions = sa.Table(
    "session_versions",
    metadata,
    sa.Column("session_key", Key, primary_key=True, autoincrement=False, comment="the session's row in sessions"),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False, comment="counts from 1"),
    *content_columns(SESSIONS),
    sa.Column("change", sa.Text, nullable=False, comment="what made this version"),
    sa.Column("valid_from", UtcDateTime, nullable=False, comment="when syncd wrote this version"),
    sa.Column("valid_to", UtcDateTime, nullable=False, comment="when the next version took its place"),
    sa.Column("pass_id", Key, comment="the pass that wrote this version"),
    *_feed(),
    sa.Column("first_seen_at", UtcDateTime, comment="when syncd first saw the session"),
    sa.Index("uq_session_versions_seq", "seq", unique=True),
    sa.Index("ix_session_versions_id", "id", "version"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="the versions that are past; read the view chat_session_history",
)

passes = sa.Table(
    "passes",
    metadata,
    sa.Column("id", Key, sa.Identity(), primary_key=True, comment="the pass"),
    sa.Column(
        "state",
        sa.Text,
        nullable=False,
        server_default="running",
        comment="running, complete, partial, failed or held",
    ),
    sa.Column("started_at", UtcDateTime, nullable=False, comment="when its first page was asked for"),
    sa.Column("finished_at", UtcDateTime, comment="when it ended, in whatever way"),
    *(
        sa.Column(name, sa.Integer, nullable=False, server_default="0", comment=comment)
        for name, comment in {
            "pages": "pages read",
            "seen": "distinct sessions with a readable id, quarantined ones included",
            "inserted": "sessions that were new",
            "updated": "sessions that had changed",
            "unchanged": "sessions that were as before",
            "restored": "deleted sessions that were listed again",
            "missing": "live sessions that this pass found missing",
            "deleted": "sessions that this pass deleted from the mirror",
            "quarantined": "items that could not be read",
        }.items()
    ),
    sa.Column("error", sa.Text, comment="why it is partial, failed or held"),
    sa.Column("page_key", sa.Text, comment="the checkpoint: the key of the page to ask for next; null for the first"),
    sa.Column("read_at", UtcDateTime, comment="when the last page had been read; what follows is the sweep"),
    sa.Column("without_id", sa.Integer, nullable=False, server_default="0", comment="items without a readable id"),
    sa.Column(
        "fence",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="rises each time the pass is resumed; only the holder of the current number can write to the pass",
    ),
    sa.Column("listed_at", UtcDateTime, comment="when its last page was read, if every page was read"),
    sa.Column("reason", sa.Text, comment="the code of the reason in error"),
    sa.Column("hold_id", Key, comment="the hold that this pass opened or met again"),
    sa.CheckConstraint("state IN ('running', 'complete', 'partial', 'failed', 'held')", name="state"),
    sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished"),
    _some("uq_passes_running", "state", where="state = 'running'", unique=True),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="one row a pass: one logical listing of every session, which may span restarts",
)

pages = sa.Table(
    "pages",
    metadata,
    sa.Column("pass_id", Key, primary_key=True, autoincrement=False, comment="the pass that read the page"),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False, comment="counts the pages from 1"),
    sa.Column("next_key", sa.Text, comment="the key that the page gave for the next one"),
    sa.Column(
        "digest",
        sa.LargeBinary,
        comment="SHA-256 of the page's bytes, its first 16, when the mirror holds just what it says",
    ),
    sa.Column("versions", sa.Integer, nullable=False, comment="the sum of the versions of its sessions at that time"),
    sa.Column("sessions", sa.LargeBinary, nullable=False, comment="the keys of the sessions on it, a bitmap"),
    sa.Column(
        "unreadable",
        sa.LargeBinary,
        nullable=False,
        comment="the quarantine rows that the pass counted for it, a bitmap",
    ),
    sa.Column(
        "repeated",
        sa.LargeBinary,
        nullable=False,
        comment="the quarantine rows on it of sessions that the pass had counted as readable, a bitmap",
    ),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="the pages of the running pass and of the last complete one: what was seen and need not be read again",
)

holds = sa.Table(
    "holds",
    metadata,
    sa.Column("id", Key, sa.Identity(), primary_key=True, comment="the hold"),
    sa.Column("pass_id", Key, nullable=False, comment="the first pass that was held; operators name the hold by it"),
    sa.Column("last_pass_id", Key, nullable=False, comment="the newest pass that was held for the same sessions"),
    sa.Column("state", sa.Text, nullable=False, server_default="open", comment="open, approved, rejected or closed"),
    sa.Column("reason", sa.Text, nullable=False, comment="the code of the reason"),
    sa.Column("detail", sa.Text, nullable=False, comment="the reason as a sentence, from the newest of its passes"),
    sa.Column("opened_at", UtcDateTime, nullable=False, comment="when the first of its passes ended"),
    sa.Column("updated_at", UtcDateTime, nullable=False, comment="when a pass or an operator changed it last"),
    sa.Column("decided_at", UtcDateTime, comment="when an operator decided last"),
    sa.Column("decided_by", sa.Text, comment="the person who decided last"),
    sa.CheckConstraint("state IN ('open', 'approved', 'rejected', 'closed')", name="state"),
    _some("uq_holds_open", "state", where="state = 'open'", unique=True),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="deletions that wait for a person, and decisions that are still in force",
)

hold_sessions = sa.Table(
    "hold_sessions",
    metadata,
    sa.Column("hold_id", Key, primary_key=True, autoincrement=False, comment="the hold"),
    sa.Column("session_key", Key, primary_key=True, autoincrement=False, comment="a session that it is about"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="the sessions of each hold that is not closed",
)

elapsed_time = sa.Table(
    "elapsed_time",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1: there is one row"),
    sa.Column("milliseconds", Key, nullable=False, comment="elapsed between passes, as far as it was measured"),
    sa.Column("machine", sa.Text, nullable=False, comment="the boot of the machine that took the last reading"),
    sa.Column("monotonic_ms", Key, nullable=False, comment="that machine's monotonic clock at the last reading"),
    sa.Column("database_at", UtcDateTime, comment="the PostgreSQL server's clock at the last reading"),
    sa.CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
    comment="time that passed while passes looked, which no step of a wall clock changes",
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", Key, sa.Identity(), primary_key=True, comment="the item"),
    sa.Column("pass_id", Key, comment="the pass that met it first"),
    sa.Column("session_id", sa.Text, comment="the id of the session, when it could be read"),
    sa.Column("reason", sa.Text, nullable=False, comment="why it could not be read"),
    sa.Column("payload", sa.Text, nullable=False, comment="the item as Albert sent it, as JSON"),
    sa.Column("seen_at", UtcDateTime, nullable=False, comment="when it was first met"),
    sa.Column("resolved_at", UtcDateTime, comment="when a good version came, or the item went"),
    sa.Column("fingerprint", sa.Text, nullable=False, comment="tells the same item again"),
    sa.Column("accepted_at", UtcDateTime, comment="when an operator accepted it as unreadable"),
    sa.Index("ix_quarantine_fingerprint", "fingerprint"),
    _some("uq_quarantine_open", "fingerprint", where="resolved_at IS NULL", unique=True),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="listed items that could not be read",
)

_DELETED = "kind = 'delete' AND state = 'succeeded'"
ACTIVE = f"state IN ({', '.join(repr(state.value) for state in ACTIVE_STATES)})"
"""The operations that are not over. The partial indexes and the statements that use them have this text in common."""
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
        comment="the external id: of the session to create, or of the session to delete or update",
    ),
    sa.Column("session_id", sa.Text, comment="the session to delete or update"),
    sa.Column("name", sa.Text, comment="the name to create with, or the new name"),
    sa.Column(
        "parent_id",
        sa.Text,
        comment="the folder to create in or to move to; in an update '' moves the session out of its folder",
    ),
    sa.Column("requested_by", sa.Text, comment="whoever wants it; free text"),
    sa.Column("requested_at", UtcDateTime, nullable=False, server_default=utc_now(), comment="when it was asked for"),
    sa.Column("not_before", UtcDateTime, comment="do not begin before this moment"),
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
        comment="attempts that were begun and count",
    ),
    sa.Column("next_attempt_at", UtcDateTime, comment="when it is due again"),
    sa.Column("last_error", sa.Text, comment="what went wrong last, or what an adopted session has different"),
    sa.Column("last_status", sa.Integer, comment="the HTTP status of the last answer"),
    sa.Column("result_session_id", sa.Text, comment="the session that was created, adopted or deleted"),
    sa.Column("finished_at", UtcDateTime, comment="when it became succeeded, dead or cancelled"),
    sa.Column(
        "fence",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="rises with each claim; who finishes must hold it",
    ),
    sa.Column("lease_until", UtcDateTime, comment="the claim is good until this moment"),
    sa.Column("lease_owner", sa.Text, comment="the daemon that holds the claim"),
    sa.Column(
        "target_session_id",
        sa.Text,
        comment="what a delete by source id was found to mean, kept before it is sent",
    ),
    sa.Column("unknown_since", UtcDateTime, comment="when the answer of the last create was lost"),
    sa.Column(
        "lookups",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="look-ups since then that found nothing",
    ),
    sa.Column(
        "on_hold_at",
        UtcDateTime,
        comment="since when the operation waits for a release after a restore; null when it is not on hold",
    ),
    sa.Column(
        "blocked_by",
        Key,
        comment="the last operation before it on the same key that is not over; null when none is known",
    ),
    sa.Column(
        "clock_at",
        UtcDateTime,
        comment="the clock when syncd last set next_attempt_at or lease_until; a clock that shows less was set back",
    ),
    sa.CheckConstraint(f"kind IN ({', '.join(map(repr, map(str, SPECS)))})", name="kind"),
    sa.CheckConstraint("state IN ('pending', 'running', 'unknown', 'succeeded', 'dead', 'cancelled')", name="state"),
    *(sa.CheckConstraint(spec.condition, name=spec.check) for spec in SPECS.values()),
    sa.CheckConstraint("source_session_id NOT IN ('', '.', '..')", name="source_session_id"),
    sa.CheckConstraint("session_id NOT IN ('', '.', '..')", name="session_id"),
    sa.CheckConstraint("name <> ''", name="name"),
    sa.CheckConstraint("attempts >= 0", name="attempts"),
    sa.CheckConstraint("(state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"),
    _some(
        "ix_operations_active_source",
        "source_session_id",
        "id",
        where=f"{ACTIVE} AND source_session_id IS NOT NULL",
    ),
    _some("ix_operations_active_session", "session_id", "id", where=f"{ACTIVE} AND session_id IS NOT NULL"),
    sa.Index("ix_operations_state", "state", "id"),
    _some(
        "ix_operations_due",
        "state",
        "next_attempt_at",
        "id",
        where=f"{_WAITING} AND blocked_by IS NULL AND on_hold_at IS NULL",
    ),
    _some("ix_operations_blocked", "blocked_by", where="blocked_by IS NOT NULL"),
    _some("ix_operations_on_hold", "on_hold_at", where="on_hold_at IS NOT NULL"),
    _some("ix_operations_clock", "clock_at", where=f"{_WAITING} AND clock_at IS NOT NULL"),
    _some("ix_operations_deleted", "finished_at", "result_session_id", where=_DELETED),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="the queue; any program may INSERT kind, what the kind needs, requested_by, requested_at and not_before",
)

source_sessions = sa.Table(
    "source_sessions",
    metadata,
    sa.Column("source_session_id", sa.Text, primary_key=True, comment="an external id"),
    sa.Column(
        "state",
        sa.Text,
        nullable=False,
        server_default="unresolved",
        comment="unresolved, linked, missing or conflict",
    ),
    sa.Column("session_id", sa.Text, comment="the session it is linked to"),
    sa.Column("checked_at", UtcDateTime, comment="when its state was last made sure of"),
    sa.Column(
        "note",
        sa.Text,
        comment="what a person should know: the sessions in conflict, why it cannot be asked for",
    ),
    sa.CheckConstraint(
        "state = 'linked' OR state = 'unresolved' OR state = 'missing' OR state = 'conflict'", name="state"
    ),
    sa.CheckConstraint("state <> 'linked' OR session_id IS NOT NULL", name="linked"),
    _some("ix_source_sessions_unlinked", "state", "checked_at", where="state <> 'linked'"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="external ids and where they stand; any program may INSERT source_session_id",
)

writers = sa.Table(
    "writers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="the process; a number of its own that it draws at its start"),
    sa.Column("number", Key, nullable=False, comment="its last transaction that wrote anything"),
    sa.Column("written_at", UtcDateTime, nullable=False, comment="when that was"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="on PostgreSQL, what tells whether a commit whose answer was lost has happened",
)

mirror_identity = sa.Table(
    "mirror_identity",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1: there is one row"),
    sa.Column("origin", sa.Text, comment="scheme, host, port and path of the Albert that is mirrored"),
    sa.Column("tenant_id", sa.Text, comment="the tenant, when the credentials name one"),
    sa.Column("pinned_at", UtcDateTime, comment="when origin and tenant were stored"),
    sa.Column("copied_at", UtcDateTime, comment="set in a backup: when the copy was made"),
    sa.Column("moved_to", sa.Text, comment="where migrate-store moved this mirror, without a password"),
    sa.Column("moved_at", UtcDateTime, comment="when that was"),
    sa.CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
    comment="whose sessions this database mirrors, and whether it is a copy or was moved away",
)

operator_actions = sa.Table(
    "operator_actions",
    metadata,
    sa.Column("id", Key, sa.Identity(), primary_key=True, comment="the action"),
    sa.Column("at", UtcDateTime, nullable=False, comment="when it was done"),
    sa.Column("by", sa.Text, nullable=False, comment="who did it: --by, or the user of the operating system"),
    sa.Column(
        "action",
        sa.Text,
        nullable=False,
        comment="such as approve, reject, retry, cancel, release, accept, restore, prune",
    ),
    sa.Column("subject", sa.Text, nullable=False, comment="what it was done to, such as operation 12 or pass 7"),
    sa.Column("detail", sa.Text, comment="what changed, such as the state before"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="what operators decided, and who and when",
)

mirror_totals = sa.Table(
    "mirror_totals",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1: there is one row"),
    sa.Column("last_seq", Key, nullable=False, comment="the highest seq that was given to a version"),
    sa.Column("live_sessions", Key, nullable=False, comment="sessions without deleted_at"),
    sa.Column("deleted_sessions", Key, nullable=False, comment="sessions with deleted_at"),
    sa.CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
    comment="one row: the end of the change feed, and counts that are kept by each change of a session",
)

folders = sa.Table(
    "folders",
    metadata,
    *content_columns(FOLDERS),
    sa.Column(
        "path",
        sa.Text,
        nullable=False,
        comment="the names of the folder and of the folders above it, from the top, with ' / ' between them",
    ),
    sa.Column("first_seen_at", UtcDateTime, nullable=False, comment="when syncd first saw the folder"),
    sa.Column("changed_at", UtcDateTime, nullable=False, comment="when syncd last saw the folder changed"),
    sa.Column(
        "absences",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="complete listings in a row that missed it, each confirmed by a 404 or 410 of its own",
    ),
    sa.Column("deleted_at", UtcDateTime, comment="when the folder was found deleted"),
    sa.PrimaryKeyConstraint("id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="every folder ever seen; read the view chat_folders",
)

folder_listing = sa.Table(
    "folder_listing",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1: there is one row"),
    sa.Column("fence", sa.Integer, nullable=False, comment="rises with each listing; only its holder can write"),
    sa.Column("state", sa.Text, comment="complete, partial, failed or unavailable"),
    sa.Column("error", sa.Text, comment="why the last listing is not complete"),
    sa.Column("finished_at", UtcDateTime, comment="when the last listing ended"),
    sa.Column("complete_at", UtcDateTime, comment="when the last complete listing ended"),
    sa.CheckConstraint("id = 1", name="one_row"),
    sa.CheckConstraint("state IN ('complete', 'partial', 'failed', 'unavailable')", name="state"),
    sqlite_strict=True,
    comment="one row: the last listing of the folders",
)
