"""The schema, once: types, tables, and what each column means.

The comments are PostgreSQL's COMMENTs and the text of `docs/schema.md`. The analysts' views are in
`migrations/versions`; `tests/mirror/test_migrations.py` holds this file and the migrations together.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from syncd.clock import read_utc_text, utc_text


def moment(text: str | None) -> datetime | None:
    """Read a time as it is stored; text that some program put there and that is no time is none."""
    try:
        return None if text is None else read_utc_text(text)
    except ValueError:
        return None


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A moment: `timestamptz` on PostgreSQL, sortable ISO text with `Z` on SQLite; naive values are refused."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Use the native type where there is one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:  # noqa: ANN401, ARG002
        """Refuse what has no zone; text it is on PostgreSQL too, see `dialects`."""
        return None if value is None else utc_text(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:  # noqa: ANN401, ARG002
        """Give an aware moment back."""
        return moment(value)


class utc_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, as a default for rows that other programs insert."""

    inherit_cache = True
    type = UtcDateTime()


@compiles(utc_now)
def _(_element: utc_now, _compiler: Any, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return "now()"


@compiles(utc_now, "sqlite")
def _(_element: utc_now, _compiler: Any, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')"


def new_id(result: sa.CursorResult[Any]) -> int:
    """Return the id that the database gave to a row that was just inserted."""
    key = result.inserted_primary_key
    return int(key[0]) if key is not None else 0


class _Jsonb(sa.types.UserDefinedType[str]):
    """PostgreSQL's `jsonb`, given and taken as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
        """Return the type's name."""
        return "JSONB"


JsonText = sa.Text().with_variant(_Jsonb(), "postgresql")
Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

CONTENT = (
    "id",
    "name",
    "parent_id",
    "source_session_id",
    "status",
    "kind",
    "automation_id",
    "automation_run_id",
    "last_message_at",
    "created_by",
    "created_by_name",
    "created_at",
    "updated_by",
    "updated_by_name",
    "updated_at",
    "extra",
)
"""What Albert says of a session, in the order of `listing.Row`."""

CONTENT_COMMENTS = {
    "id": "Albert's id of the session, such as SES123",
    "name": "the session's name",
    "parent_id": "the folder that the session is in",
    "source_session_id": "the external id that the session was created with",
    "status": "active or inactive, or a value that Albert has added since",
    "kind": "chat or automation, or a value that Albert has added since",
    "automation_id": "the automation that owns the session",
    "automation_run_id": "the run that made the session",
    "last_message_at": "when the last message was written",
    "created_by": "the id of the user who created the session",
    "created_by_name": "the name of the user who created the session",
    "created_at": "when Albert created the session",
    "updated_by": "the id of the user who changed the session last",
    "updated_by_name": "the name of the user who changed the session last",
    "updated_at": "when Albert changed the session last",
    "extra": "JSON of the fields that syncd does not know, and of times that could not be read; {} when empty",
}
_TIMES = frozenset(name for name in CONTENT if name.endswith("_at"))
_REQUIRED = frozenset({"id", "name", "source_session_id"})


def _content() -> list[sa.Column[Any]]:
    """Make the columns that hold what Albert says of a session."""

    def column(name: str) -> sa.Column[Any]:
        comment = CONTENT_COMMENTS[name]
        if name == "extra":
            return sa.Column(name, JsonText, nullable=False, server_default="{}", comment=comment)
        kind = UtcDateTime() if name in _TIMES else sa.Text()
        return sa.Column(name, kind, nullable=name not in _REQUIRED, comment=comment)

    return [column(name) for name in CONTENT]


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
    *_content(),
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
    sa.CheckConstraint(
        "change = 'created' OR change = 'updated' OR change = 'deleted' OR change = 'restored'", name="change"
    ),
    sa.CheckConstraint("(change = 'deleted') = (deleted_at IS NOT NULL)", name="deleted"),
    sa.Index("uq_sessions_id", "id", unique=True),
    sa.Index(
        "ix_sessions_live_source",
        "source_session_id",
        "id",
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    ),
    sa.Index(
        "ix_sessions_missing",
        "missing_since",
        sqlite_where=sa.text("missing_since IS NOT NULL"),
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    ),
    sa.Index(
        "ix_sessions_deleted",
        "deleted_at",
        sqlite_where=sa.text("deleted_at IS NOT NULL"),
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    ),
    sqlite_strict=True,
    comment="every session ever seen, with its current version; read the views chat_sessions and chat_sessions_all",
)

session_versions = sa.Table(
    "session_versions",
    metadata,
    sa.Column("session_key", Key, primary_key=True, autoincrement=False, comment="the session's row in sessions"),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False, comment="counts from 1"),
    *_content(),
    sa.Column("change", sa.Text, nullable=False, comment="what made this version"),
    sa.Column("valid_from", UtcDateTime, nullable=False, comment="when syncd wrote this version"),
    sa.Column("valid_to", UtcDateTime, nullable=False, comment="when the next version took its place"),
    sa.Column("pass_id", Key, comment="the pass that wrote this version"),
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
            "missing": "live sessions that this pass did not see",
            "deleted": "sessions that this pass made tombstones of",
            "quarantined": "items that could not be read",
        }.items()
    ),
    sa.Column("error", sa.Text, comment="why it is partial, failed or held"),
    sa.Column("page_key", sa.Text, comment="the checkpoint: the key of the page to ask for next; null for the first"),
    sa.Column("read_at", UtcDateTime, comment="when the last page had been read; what follows is the sweep"),
    sa.Column("without_id", sa.Integer, nullable=False, server_default="0", comment="items without a readable id"),
    sa.Column("candidates_of", Key, comment="the held pass whose candidates are this one's, to the last"),
    sa.Column(
        "fence",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="rises each time the pass is taken up; who writes to it must hold it",
    ),
    sa.Column("decision", sa.Text, comment="approved or rejected by an operator, when held"),
    sa.Column("decided_at", UtcDateTime, comment="when the operator decided"),
    sa.CheckConstraint("state IN ('running', 'complete', 'partial', 'failed', 'held')", name="state"),
    sa.CheckConstraint("decision IN ('approved', 'rejected')", name="decision"),
    sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished"),
    sa.Index(
        "uq_passes_running",
        "state",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
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
    sa.Column("session_keys", sa.LargeBinary, nullable=False, comment="the keys of the sessions on it, packed"),
    sa.Column("quarantine_ids", sa.LargeBinary, nullable=False, comment="the quarantine rows of it, packed"),
    sa.Column(
        "digest",
        sa.LargeBinary,
        comment="SHA-256 of the page's bytes, its first 16, when the mirror holds just what it says",
    ),
    sa.Column("versions", sa.Integer, nullable=False, comment="the sum of the versions of its sessions at that time"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="the pages of the running pass and of the last complete one: what was seen and need not be read again",
)

held_sessions = sa.Table(
    "held_sessions",
    metadata,
    sa.Column("pass_id", Key, primary_key=True, autoincrement=False, comment="the held pass"),
    sa.Column("session_key", Key, primary_key=True, autoincrement=False, comment="a session that would go"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="the sessions that a held sweep would have made tombstones of",
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
    sa.Index(
        "uq_quarantine_open",
        "fingerprint",
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    ),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="listed items that could not be read",
)

_DELETED = "kind = 'delete' AND state = 'succeeded'"
_ACTIVE = "state IN ('pending', 'running', 'unknown', 'dead')"

operations = sa.Table(
    "operations",
    metadata,
    sa.Column(
        "id", Key, sa.Identity(), primary_key=True, comment="the operation; operations on one key run in this order"
    ),
    sa.Column("kind", sa.Text, nullable=False, comment="create or delete"),
    sa.Column(
        "source_session_id",
        sa.Text,
        comment="the external id: what a create makes sure of, or what to delete",
    ),
    sa.Column("session_id", sa.Text, comment="the session to delete"),
    sa.Column("name", sa.Text, comment="the name to create with"),
    sa.Column("parent_id", sa.Text, comment="the folder to create in"),
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
    sa.CheckConstraint("kind IN ('create', 'delete')", name="kind"),
    sa.CheckConstraint("state IN ('pending', 'running', 'unknown', 'succeeded', 'dead', 'cancelled')", name="state"),
    sa.CheckConstraint(
        "kind <> 'create' OR (source_session_id IS NOT NULL AND name IS NOT NULL AND session_id IS NULL)",
        name="create_needs_source_and_name",
    ),
    sa.CheckConstraint(
        "kind <> 'delete' OR (session_id IS NULL) <> (source_session_id IS NULL)",
        name="delete_needs_one_id",
    ),
    sa.CheckConstraint("source_session_id NOT IN ('', '.', '..')", name="source_session_id"),
    sa.CheckConstraint("session_id NOT IN ('', '.', '..')", name="session_id"),
    sa.CheckConstraint("name <> ''", name="name"),
    sa.CheckConstraint("attempts >= 0", name="attempts"),
    sa.CheckConstraint("(state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"),
    sa.Index(
        "ix_operations_active_source",
        "source_session_id",
        "id",
        sqlite_where=sa.text(_ACTIVE),
        postgresql_where=sa.text(_ACTIVE),
    ),
    sa.Index(
        "ix_operations_active_session",
        "session_id",
        "id",
        sqlite_where=sa.text(_ACTIVE),
        postgresql_where=sa.text(_ACTIVE),
    ),
    sa.Index("ix_operations_state", "state", "next_attempt_at", "id"),
    sa.Index(
        "ix_operations_deleted",
        "finished_at",
        "result_session_id",
        sqlite_where=sa.text(_DELETED),
        postgresql_where=sa.text(_DELETED),
    ),
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
    sa.Index(
        "ix_source_sessions_unlinked",
        "state",
        "checked_at",
        sqlite_where=sa.text("state <> 'linked'"),
        postgresql_where=sa.text("state <> 'linked'"),
    ),
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

_SESSION_COMMENTS = {
    **CONTENT_COMMENTS,
    "first_seen_at": "when syncd first saw the session",
    "changed_at": "when syncd last saw it changed; where its current version begins",
}
VIEW_COMMENTS: dict[str, tuple[str, dict[str, str]]] = {
    "chat_sessions": ("the sessions that are live in Albert, missing ones included, one row each", _SESSION_COMMENTS),
    "chat_sessions_all": (
        "every session ever seen, deleted ones included, one row each",
        {
            **_SESSION_COMMENTS,
            "missing_since": "since when complete passes have missed it; null while listed",
            "deleted_at": "when the session was found deleted; null while it is live",
        },
    ),
    "chat_session_history": (
        "one row a version of a session: what it said, from when to when",
        {
            "session_id": "Albert's id of the session; the same as id",
            "change": "what made this version: created, updated, deleted, restored",
            "valid_from": "when syncd wrote this version",
            "valid_to": "when the next version took its place; null for the current one",
            "pass_id": "the pass that wrote this version; null when an operation or a look-up did",
            **_SESSION_COMMENTS,
            "changed_at": "the same as valid_from",
        },
    ),
    "mirror_freshness": (
        "one row: how fresh the mirror is and what needs a person",
        {
            "last_complete_pass_at": "when the last complete pass ended; null before the first",
            "age_seconds": "seconds since then",
            "live_sessions": "sessions that are live, missing ones included",
            "deleted_sessions": "sessions that were found deleted",
            "missing_sessions": "live sessions that complete passes have missed",
            "quarantined_items": "listed items that cannot be read",
            "operations_pending": "operations that wait for their turn",
            "operations_unknown": "operations whose answer was lost and is being looked up",
            "operations_dead": "operations that failed for good and need a person",
            "held_pass_id": "the pass that holds deletions for an operator's decision; null when none does",
        },
    ),
}
"""Each view, and each of its columns in their order: PostgreSQL's COMMENTs and the text of `docs/schema.md`."""
