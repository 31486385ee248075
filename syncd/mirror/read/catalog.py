"""The views and tables of the mirror with their columns, types and meanings.

One source for `docs/schema.md`, `syncd export`, `syncd browse` and PostgreSQL's COMMENTs. The columns of tables are
described in `schema.tables`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.schema import enums, tables
from syncd.mirror.schema.types import Key, UtcDateTime
from syncd.records.fields import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FOLDER = {
    "folder_name": "the name of the folder; null without a folder, or when Albert does not list it",
    "folder_path": "the names of the folder and of the folders above it, such as Root / Child",
}
_OF_VERSION = {
    "session_id": "Albert's id of the session; the same as id",
    "change": "what made this version: created, updated, deleted, restored",
    "valid_from": "when syncd wrote this version",
    "valid_to": "when the next version took its place; null for the current one",
    "pass_id": "the pass that wrote this version; null when an operation or a look-up did",
}
_HELD = "the pass that holds deletions for an operator's decision; null when none does"
_MORE_TYPES: dict[str, Any] = {"valid_to": UtcDateTime(), "changed_at": UtcDateTime()}


def _of(table: sa.Table, *names: str, **comments: str) -> list[sa.Column[Any]]:
    """Return columns of a view that it takes from a table, with their own meanings where they differ."""

    def column(name: str) -> sa.Column[Any]:
        source = table.c.get(name)
        kind = _MORE_TYPES.get(name, sa.Text()) if source is None else source.type
        return sa.Column(name, kind, comment=comments.get(name) or (None if source is None else source.comment))

    return [column(name) for name in names]


def _counts(**comments: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, Key, comment=comment) for name, comment in comments.items()]


def _view(name: str, comment: str, *columns: sa.Column[Any]) -> sa.Table:
    """Describe a view as a table, in a `MetaData` of its own: no migration must create it."""
    return sa.Table(name, sa.MetaData(), *columns, comment=comment)


def _session() -> list[sa.Column[Any]]:
    changed = "when syncd last saw it changed; where its current version begins"
    return _of(tables.sessions, *SESSIONS.first_columns, "first_seen_at", "changed_at", changed_at=changed)


def _session_ends() -> list[sa.Column[Any]]:
    dates = "created_date", "last_message_date"
    return _of(tables.sessions, *_FOLDER, *dates, *SESSIONS.later_columns, **_FOLDER)


def _version() -> list[sa.Column[Any]]:
    names = (*_OF_VERSION, *SESSIONS.first_columns, "first_seen_at", "changed_at", *SESSIONS.later_columns)
    return _of(tables.sessions, *names, **_OF_VERSION, changed_at="the same as valid_from")


VIEWS = {
    view.name: view
    for view in (
        _view(
            "chat_sessions",
            "the sessions that are live in Albert, missing ones included, one row each",
            *_session(),
            *_session_ends(),
        ),
        _view(
            "chat_sessions_all",
            "every session ever seen, deleted ones included, one row each",
            *_session(),
            *_of(
                tables.sessions,
                "missing_since",
                "deleted_at",
                missing_since="since when complete passes have missed it; null while listed, and null when deleted",
                deleted_at="when the session was found deleted; null while it is live",
            ),
            *_session_ends(),
        ),
        _view("chat_session_history", "one row a version of a session: its content, from when to when", *_version()),
        _view(
            "chat_session_changes",
            "the change feed: one row a version, numbered in the order of commits",
            *_of(tables.sessions, "seq", "changed_fields"),
            *_version(),
        ),
        _view(
            "chat_sessions_daily",
            "one row a kind of session and UTC date on which one of its counts changed",
            sa.Column("date", sa.Text, comment="the UTC date, as YYYY-MM-DD"),
            sa.Column("kind", sa.Text, comment="the kind of the current version of the sessions"),
            *_counts(
                live="sessions at the end of the date: all created until then without all deleted until then",
                created="sessions by the date of created_at; by that of first_seen_at if created_at is null or later",
                deleted="sessions by the date of deleted_at; a session that was restored counts as never deleted",
                active="sessions of which a version has last_message_at on the date; deleted sessions included",
            ),
        ),
        _view(
            "chat_folders",
            "the folders of chat sessions, one row each",
            *_of(
                tables.folders, "id", "name", "parent_id", "type", "path", "created_at", "updated_at", "extra",
                "first_seen_at", "changed_at",
            ),
        ),
        _view(
            "mirror_freshness",
            "one row: how fresh the mirror is and what needs a person",
            sa.Column(
                "last_complete_pass_at", UtcDateTime(), comment="when the last complete pass ended; null before it"
            ),
            sa.Column("age_seconds", sa.Double(), comment="seconds since then"),
            *_counts(
                live_sessions="sessions that are live, missing ones included",
                deleted_sessions="sessions that were found deleted",
                missing_sessions="live sessions that complete passes have missed",
                quarantined_items="listed items that cannot be read",
                operations_pending="operations that wait for their turn",
                operations_unknown="operations whose answer was lost and is being looked up",
                operations_dead="operations that failed for good and need a person",
            ),
            sa.Column("held_pass_id", Key, comment=_HELD),
            sa.Column(
                "last_listed_at", UtcDateTime(),
                comment="when the last pass whose every page was read, complete or not, had read its last page",
            ),
            sa.Column("listed_age_seconds", sa.Double(), comment="seconds since then"),
            *_counts(
                operations_on_hold="operations that wait for a release after a restore",
                unlisted_alive_sessions="live sessions that Albert does not list and answers 200 for",
            ),
        ),
    )
}  # fmt: skip
TABLES = {table.name: table for table in (tables.passes, tables.operations, tables.source_sessions, tables.quarantine)}
"""The tables whose columns in `PROMISED` are stable across releases."""
INTERNAL = {name: table for name, table in sorted(tables.metadata.tables.items()) if name not in TABLES}
"""The tables that may change from one release to the next: read the views instead."""

OPERATION_COLUMNS = (
    "id", "kind", "source_session_id", "session_id", "name", "parent_id", "requested_by", "requested_at", "not_before",
    "state", "attempts", "next_attempt_at", "last_error", "last_status", "result_session_id", "finished_at",
)  # fmt: skip
PROMISED = {
    "passes": enums.PASS_COLUMNS,
    "operations": OPERATION_COLUMNS,
    "source_sessions": tuple(tables.source_sessions.c.keys()),
    "quarantine": ("id", "pass_id", "session_id", "reason", "payload", "seen_at", "resolved_at"),
}
"""The stable columns of tables; the others are internal."""
EXPORTED: Mapping[str, Sequence[str]] = {name: tuple(view.c.keys()) for name, view in VIEWS.items()} | PROMISED
"""What an export can contain, and the columns of each."""
CHANGES = "chat_session_changes"
"""The view that `syncd export --since` writes."""
EXPORTED_BY_DEFAULT = (
    "chat_sessions", "chat_sessions_all", "chat_session_history", "chat_folders", "passes", "operations",
    "source_sessions", "quarantine",
)  # fmt: skip
"""What an export contains unless `--only` or `--since` names something else."""


def columns(name: str) -> list[sa.Column[Any]]:
    """Return the columns of a view or a table that an export contains."""
    table = VIEWS.get(name)
    return [(TABLES[name] if table is None else table).c[column] for column in EXPORTED[name]]
