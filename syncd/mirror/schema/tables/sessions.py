"""Sessions, their past versions, and their source ids. The columns that nearly every query reads are in front."""

from __future__ import annotations

import sqlalchemy as sa

from syncd.mirror.schema.tables.columns import content_columns, feed_columns, metadata, partial_index
from syncd.mirror.schema.types import Key, UtcDateTime
from syncd.records.fields import SESSIONS

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
    sa.Column("valid_from", UtcDateTime, nullable=False, comment="when syncd wrote this version"),
    sa.Column("deleted_at", UtcDateTime, comment="when the session was found deleted; the row stays as a tombstone"),
    sa.Column(
        "change",
        sa.Text,
        nullable=False,
        comment="the change that made this version: created, updated, deleted or restored",
    ),
    *content_columns(SESSIONS),
    sa.Column("version", sa.Integer, nullable=False, comment="counts the versions of the session from 1"),
    sa.Column("pass_id", Key, comment="the pass that wrote this version; null when an operation or a look-up did"),
    sa.Column("first_seen_at", UtcDateTime, nullable=False, comment="when syncd first saw the session"),
    sa.Column("observed_at", UtcDateTime, comment="when an operation or a look-up last showed it"),
    sa.Column(
        "missing_since", UtcDateTime, comment="since when complete passes have not listed it; null while it is listed"
    ),
    sa.Column("absences", sa.Integer, nullable=False, server_default="0", comment="404s counted since then"),
    sa.Column("absence_pass_id", Key, comment="the last pass that counted a 404"),
    sa.Column(
        "unlisted_alive_at", UtcDateTime, comment="when Albert last answered 200 for it although it is not listed"
    ),
    sa.Column("missing_elapsed_ms", Key, comment="elapsed_time.milliseconds when it was marked missing"),
    *feed_columns(),
    sa.Column("created_date", sa.Text, comment="the UTC date of created_at, as YYYY-MM-DD"),
    sa.Column("last_message_date", sa.Text, comment="the UTC date of last_message_at, as YYYY-MM-DD"),
    sa.Column("unlisted_alive_elapsed_ms", Key, comment="elapsed_time.milliseconds at unlisted_alive_at"),
    sa.CheckConstraint(
        "change = 'created' OR change = 'updated' OR change = 'deleted' OR change = 'restored'", name="change"
    ),
    sa.CheckConstraint("(change = 'deleted') = (deleted_at IS NOT NULL)", name="deleted"),
    sa.Index("uq_sessions_id", "id", unique=True),
    sa.Index("ix_sessions_source", "source_session_id", "id", "deleted_at"),
    sa.Index("uq_sessions_seq", "seq", unique=True),
    partial_index("ix_sessions_missing", "missing_since", where="missing_since IS NOT NULL"),
    partial_index("ix_sessions_deleted", "deleted_at", where="deleted_at IS NOT NULL"),
    partial_index("ix_sessions_unlisted_alive", "unlisted_alive_at", where="unlisted_alive_at IS NOT NULL"),
    sqlite_strict=True,
    comment="every session ever seen, with its current version; read the views chat_sessions and chat_sessions_all",
)

session_versions = sa.Table(
    "session_versions",
    metadata,
    sa.Column("session_key", Key, primary_key=True, autoincrement=False, comment="the session's row in sessions"),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False, comment="counts from 1"),
    sa.Column("valid_from", UtcDateTime, nullable=False, comment="when syncd wrote this version"),
    sa.Column("valid_to", UtcDateTime, nullable=False, comment="when the next version took its place"),
    sa.Column(
        "change",
        sa.Text,
        nullable=False,
        comment="the change that made this version: created, updated, deleted or restored",
    ),
    *content_columns(SESSIONS),
    sa.Column("pass_id", Key, comment="the pass that wrote this version"),
    *feed_columns(),
    sa.Column("first_seen_at", UtcDateTime, comment="when syncd first saw the session"),
    sa.Index("uq_session_versions_seq", "seq", unique=True),
    sa.Index("ix_session_versions_id", "id", "version"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="past versions; read the view chat_session_history",
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
    sa.Column("checked_at", UtcDateTime, comment="when its state was last confirmed"),
    sa.Column(
        "note",
        sa.Text,
        comment="details for a person: the sessions in conflict, or why Albert cannot be asked for the id",
    ),
    sa.CheckConstraint(
        "state = 'linked' OR state = 'unresolved' OR state = 'missing' OR state = 'conflict'", name="state"
    ),
    sa.CheckConstraint("state <> 'linked' OR session_id IS NOT NULL", name="linked"),
    partial_index("ix_source_sessions_unlinked", "state", "checked_at", where="state <> 'linked'"),
    partial_index("ix_source_sessions_to_ask", "source_session_id", "state", "checked_at", where="state <> 'linked'"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="external ids and their states; any program may INSERT source_session_id",
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
    comment="one row: the end of the change feed, and counts that each change of a session updates",
)
