"""Passes: their pages, their holds, and the items that they could not read."""

from __future__ import annotations

import sqlalchemy as sa

from syncd.mirror.schema.tables.columns import metadata, partial_index
from syncd.mirror.schema.types import Key, UtcDateTime

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
    sa.Column("started_at", UtcDateTime, nullable=False, comment="when its first page was requested"),
    sa.Column("finished_at", UtcDateTime, comment="when it ended, in any state"),
    *(
        sa.Column(name, sa.Integer, nullable=False, server_default="0", comment=comment)
        for name, comment in {
            "pages": "pages read",
            "seen": "distinct sessions with a readable id, quarantined ones included",
            "inserted": "sessions that were new",
            "updated": "sessions that had changed",
            "unchanged": "sessions without a change",
            "restored": "deleted sessions that were listed again",
            "missing": "live sessions that this pass found missing",
            "deleted": "sessions that this pass deleted from the mirror",
            "quarantined": "items that could not be read",
        }.items()
    ),
    sa.Column("error", sa.Text, comment="why it is partial, failed or held"),
    sa.Column("page_key", sa.Text, comment="the checkpoint: the key of the next page; null for the first page"),
    sa.Column("read_at", UtcDateTime, comment="when the last page was read; the sweep follows"),
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
    sa.Column("hold_id", Key, comment="the hold that this pass opened or continued"),
    sa.CheckConstraint("state IN ('running', 'complete', 'partial', 'failed', 'held')", name="state"),
    sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished"),
    partial_index("uq_passes_running", "state", where="state = 'running'", unique=True),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="one row for each pass: a logical listing of all sessions, which can span restarts",
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
        comment="the first 16 bytes of the page's SHA-256, if the mirror holds exactly its content",
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
    comment="the pages of the running pass and of the last complete one; a page with a known digest is not read again",
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
    partial_index("uq_holds_open", "state", where="state = 'open'", unique=True),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="deletions that wait for a person, and decisions that are still in force",
)

hold_sessions = sa.Table(
    "hold_sessions",
    metadata,
    sa.Column("hold_id", Key, primary_key=True, autoincrement=False, comment="the hold"),
    sa.Column("session_key", Key, primary_key=True, autoincrement=False, comment="a session of the hold"),
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
    sa.Column("clock_at", UtcDateTime, comment="the shared clock at the last reading"),
    sa.CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
    comment="one row: the time between passes, measured without wall clocks",
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", Key, sa.Identity(), primary_key=True, comment="the item"),
    sa.Column("pass_id", Key, comment="the first pass with the item"),
    sa.Column("session_id", sa.Text, comment="the id of the session, if it could be read"),
    sa.Column("reason", sa.Text, nullable=False, comment="why it could not be read"),
    sa.Column("payload", sa.Text, nullable=False, comment="the item as Albert sent it, as JSON"),
    sa.Column("seen_at", UtcDateTime, nullable=False, comment="when it was first listed"),
    sa.Column("resolved_at", UtcDateTime, comment="when it was read, or no longer listed"),
    sa.Column("fingerprint", sa.Text, nullable=False, comment="identifies the same item in later passes"),
    sa.Column("accepted_at", UtcDateTime, comment="when an operator accepted it as unreadable"),
    sa.Index("ix_quarantine_fingerprint", "fingerprint"),
    partial_index("uq_quarantine_open", "fingerprint", where="resolved_at IS NULL", unique=True),
    sqlite_strict=True,
    sqlite_autoincrement=True,
    comment="listed items that could not be read",
)
