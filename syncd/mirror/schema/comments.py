"""The comments of the analysts' views: PostgreSQL's COMMENTs, and the text of `docs/schema.md`.

`migrations/env.py` writes them to the database when the schema has reached head; `read/catalog` describes the views
with them. The comments of the tables are in `tables`.
"""

from __future__ import annotations

from collections.abc import Iterator

from syncd.records.fields import SESSIONS

_SESSION_COMMENTS = {
    **{name: one.wire.comment for name, one in SESSIONS.by_column.items()},
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


def comment_statements() -> Iterator[str]:
    """Yield the statements that give the views at head the comments of this release, on PostgreSQL."""
    for view, (comment, columns) in VIEW_COMMENTS.items():
        yield _comment(f"VIEW {view}", comment)
        for name, meaning in columns.items():
            yield _comment(f"COLUMN {view}.{name}", meaning)


def _comment(on: str, text: str) -> str:
    quoted = text.replace("'", "''")
    return f"COMMENT ON {on} IS '{quoted}'"
