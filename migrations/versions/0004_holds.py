"""Holds with decisions that last, codes for the reasons of passes, and a measure of time that no wall clock changes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

AGE = {
    "sqlite": "round((julianday('now') - julianday(p.finished_at)) * 86400.0, 3)",
    "postgresql": "round(extract(epoch from now() - p.finished_at)::numeric, 3)::double precision",
}
# On PostgreSQL the view is replaced, because readers would lose their rights to a view that is dropped.
FRESHNESS = """
CREATE {replace} VIEW mirror_freshness AS
SELECT p.finished_at AS last_complete_pass_at,
       {age} AS age_seconds,
       (SELECT count(*) FROM sessions WHERE deleted_at IS NULL) AS live_sessions,
       (SELECT count(*) FROM sessions WHERE deleted_at IS NOT NULL) AS deleted_sessions,
       (SELECT count(*) FROM sessions WHERE missing_since IS NOT NULL AND deleted_at IS NULL) AS missing_sessions,
       (SELECT count(*) FROM quarantine WHERE resolved_at IS NULL) AS quarantined_items,
       (SELECT count(*) FROM operations WHERE state = 'pending') AS operations_pending,
       (SELECT count(*) FROM operations WHERE state = 'unknown') AS operations_unknown,
       (SELECT count(*) FROM operations WHERE state = 'dead') AS operations_dead,
       (SELECT h.pass_id FROM holds AS h WHERE h.state = 'open') AS held_pass_id
FROM (SELECT 1 AS one) AS always
LEFT JOIN passes AS p ON p.id = (SELECT max(id) FROM passes WHERE state = 'complete')
"""

REASONS = """
UPDATE passes SET reason = CASE
    WHEN error LIKE 'Albert refuses the credentials%' THEN 'credentials_refused'
    WHEN error LIKE '%its checkpoint is too old' THEN 'checkpoint_expired'
    WHEN error LIKE 'stopped at the ceiling%' THEN 'ceiling'
    WHEN error LIKE 'gave up on a page%' THEN 'page_failed'
    WHEN error LIKE 'the listing was empty%' THEN 'listing_empty'
    WHEN error LIKE '%not listed any more%' THEN 'too_many_gone'
    WHEN error LIKE 'the server gave a page key twice%' THEN 'page_key_repeated'
    WHEN error LIKE '%had no readable id%' THEN 'item_without_id'
    ELSE 'listing_refused'
END
WHERE error IS NOT NULL AND state <> 'running'
"""

# A hold of the old form is a group of held passes that name the same candidates. The newest group without a decision
# is open, unless a later pass is complete. An approval is in force while it has sessions. A rejection did not last.
OLD_HOLDS = """
INSERT INTO holds (pass_id, last_pass_id, state, reason, detail, opened_at, updated_at, decided_at)
SELECT g.first_id, g.last_id, g.state, coalesce(l.reason, 'too_many_gone'), coalesce(l.error, ''),
       f.finished_at, l.finished_at, l.decided_at
FROM (
    SELECT min(id) AS first_id, max(id) AS last_id, coalesce(max(decision), 'open') AS state,
           coalesce(candidates_of, id) AS candidates
    FROM passes WHERE state = 'held' AND (decision IS NULL OR decision = 'approved')
    GROUP BY coalesce(candidates_of, id)
) AS g
JOIN passes AS f ON f.id = g.first_id
JOIN passes AS l ON l.id = g.last_id
WHERE EXISTS (SELECT 1 FROM held_sessions AS s WHERE s.pass_id = g.candidates)
  AND (g.state = 'approved'
       OR g.last_id = (SELECT max(id) FROM passes WHERE state = 'complete' OR (state = 'held' AND decision IS NULL)))
ORDER BY g.first_id
"""
OLD_SESSIONS = """
INSERT INTO hold_sessions (hold_id, session_key)
SELECT h.id, s.session_key
FROM holds AS h
JOIN passes AS p ON p.id = h.pass_id
JOIN held_sessions AS s ON s.pass_id = coalesce(p.candidates_of, p.id)
WHERE h.state = 'approved' OR s.session_key NOT IN (
    SELECT a.session_key FROM held_sessions AS a JOIN passes AS q ON q.id = a.pass_id AND q.decision = 'approved'
)
"""
OLD_PASSES = """
UPDATE passes SET hold_id = (SELECT h.id FROM holds AS h
    WHERE h.pass_id = passes.id OR h.pass_id = passes.candidates_of
       OR h.pass_id = (SELECT min(o.id) FROM passes AS o WHERE o.candidates_of = passes.candidates_of))
WHERE state = 'held'
"""

COLUMNS = (
    "id, state, started_at, finished_at, pages, seen, inserted, updated, unchanged, restored, missing, deleted, "
    "quarantined, error, page_key, read_at, without_id, fence, listed_at, reason, hold_id"
)
MISSING = "live sessions that this pass found missing"
DELETED = "sessions that this pass deleted from the mirror"
FENCE = "rises each time the pass is resumed; only the holder of the current number can write to the pass"


def upgrade() -> None:
    """Add holds, carry open and approved ones over, and rebuild `passes` without what they replace."""
    dialect = op.get_context().dialect.name
    _create_tables()
    op.add_column(
        "sessions", sa.Column("missing_elapsed_ms", KEY, comment="elapsed_time.milliseconds when it was marked missing")
    )
    op.add_column("passes", sa.Column("reason", sa.Text(), comment="the code of the reason in error"))
    op.add_column("passes", sa.Column("hold_id", KEY, comment="the hold that this pass opened or met again"))
    for statement in (REASONS, OLD_HOLDS, OLD_SESSIONS, OLD_PASSES):
        op.execute(statement)
    if dialect == "sqlite":
        _rebuild_passes()
    else:
        _alter_passes()
    op.drop_table("held_sessions")


def _create_tables() -> None:
    op.create_table(
        "holds",
        sa.Column("id", KEY, sa.Identity(), nullable=False, comment="the hold"),
        sa.Column(
            "pass_id", KEY, nullable=False, comment="the first pass that was held; operators name the hold by it"
        ),
        sa.Column("last_pass_id", KEY, nullable=False, comment="the newest pass that was held for the same sessions"),
        sa.Column(
            "state", sa.Text(), server_default="open", nullable=False, comment="open, approved, rejected or closed"
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="the code of the reason"),
        sa.Column(
            "detail", sa.Text(), nullable=False, comment="the reason as a sentence, from the newest of its passes"
        ),
        sa.Column("opened_at", MOMENT, nullable=False, comment="when the first of its passes ended"),
        sa.Column("updated_at", MOMENT, nullable=False, comment="when a pass or an operator changed it last"),
        sa.Column("decided_at", MOMENT, nullable=True, comment="when an operator decided last"),
        sa.Column("decided_by", sa.Text(), nullable=True, comment="the person who decided last"),
        sa.CheckConstraint("state IN ('open', 'approved', 'rejected', 'closed')", name=op.f("ck_holds_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
        comment="deletions that wait for a person, and decisions that are still in force",
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "uq_holds_open",
        "holds",
        ["state"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "hold_sessions",
        sa.Column("hold_id", KEY, autoincrement=False, nullable=False, comment="the hold"),
        sa.Column("session_key", KEY, autoincrement=False, nullable=False, comment="a session that it is about"),
        sa.PrimaryKeyConstraint("hold_id", "session_key", name=op.f("pk_hold_sessions")),
        comment="the sessions of each hold that is not closed",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "elapsed_time",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="always 1: there is one row"),
        sa.Column("milliseconds", KEY, nullable=False, comment="elapsed between passes, as far as it was measured"),
        sa.Column("machine", sa.Text(), nullable=False, comment="the boot of the machine that took the last reading"),
        sa.Column("monotonic_ms", KEY, nullable=False, comment="that machine's monotonic clock at the last reading"),
        sa.Column("database_at", MOMENT, nullable=True, comment="the PostgreSQL server's clock at the last reading"),
        sa.CheckConstraint("id = 1", name=op.f("ck_elapsed_time_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_elapsed_time")),
        comment="time that passed while passes looked, which no step of a wall clock changes",
        sqlite_strict=True,
    )


def _alter_passes() -> None:
    """Change `passes` in place on PostgreSQL."""
    op.execute(FRESHNESS.format(replace="OR REPLACE", age=AGE["postgresql"]).replace(":", r"\:"))
    for column in ("candidates_of", "decision", "decided_at"):
        op.drop_column("passes", column)
    for column, comment in (("missing", MISSING), ("deleted", DELETED), ("fence", FENCE)):
        op.execute(f"COMMENT ON COLUMN passes.{column} IS '{comment}'")


def _rebuild_passes() -> None:
    """Rebuild `passes` on SQLite, which cannot drop a column that a constraint names; keep the numbers it gave out.

    RENAME changes the views and triggers that name the table. They are dropped first, and created again at the end.
    """
    connection = op.get_bind()
    kept = _dropped(connection, "trigger") + _dropped(connection, "view")
    op.drop_index("uq_passes_running", "passes")
    op.rename_table("passes", "passes_before_0004")
    op.create_table(
        "passes",
        sa.Column("id", KEY, sa.Identity(), nullable=False, comment="the pass"),
        sa.Column(
            "state",
            sa.Text(),
            server_default="running",
            nullable=False,
            comment="running, complete, partial, failed or held",
        ),
        sa.Column("started_at", MOMENT, nullable=False, comment="when its first page was asked for"),
        sa.Column("finished_at", MOMENT, nullable=True, comment="when it ended, in whatever way"),
        sa.Column("pages", sa.Integer(), server_default="0", nullable=False, comment="pages read"),
        sa.Column(
            "seen",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="distinct sessions with a readable id, quarantined ones included",
        ),
        sa.Column("inserted", sa.Integer(), server_default="0", nullable=False, comment="sessions that were new"),
        sa.Column("updated", sa.Integer(), server_default="0", nullable=False, comment="sessions that had changed"),
        sa.Column(
            "unchanged", sa.Integer(), server_default="0", nullable=False, comment="sessions that were as before"
        ),
        sa.Column(
            "restored",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="deleted sessions that were listed again",
        ),
        sa.Column("missing", sa.Integer(), server_default="0", nullable=False, comment=MISSING),
        sa.Column("deleted", sa.Integer(), server_default="0", nullable=False, comment=DELETED),
        sa.Column(
            "quarantined", sa.Integer(), server_default="0", nullable=False, comment="items that could not be read"
        ),
        sa.Column("error", sa.Text(), nullable=True, comment="why it is partial, failed or held"),
        sa.Column(
            "page_key",
            sa.Text(),
            nullable=True,
            comment="the checkpoint: the key of the page to ask for next; null for the first",
        ),
        sa.Column(
            "read_at", MOMENT, nullable=True, comment="when the last page had been read; what follows is the sweep"
        ),
        sa.Column(
            "without_id", sa.Integer(), server_default="0", nullable=False, comment="items without a readable id"
        ),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False, comment=FENCE),
        sa.Column("listed_at", MOMENT, nullable=True, comment="when its last page was read, if every page was read"),
        sa.Column("reason", sa.Text(), nullable=True, comment="the code of the reason in error"),
        sa.Column("hold_id", KEY, nullable=True, comment="the hold that this pass opened or met again"),
        sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name=op.f("ck_passes_finished")),
        sa.CheckConstraint(
            "state IN ('running', 'complete', 'partial', 'failed', 'held')", name=op.f("ck_passes_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passes")),
        comment="one row a pass: one logical listing of every session, which may span restarts",
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.execute(f"INSERT INTO passes ({COLUMNS}) SELECT {COLUMNS} FROM passes_before_0004")
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'passes'")
    op.execute("UPDATE sqlite_sequence SET name = 'passes' WHERE name = 'passes_before_0004'")
    op.execute("DROP TABLE passes_before_0004")
    op.create_index("uq_passes_running", "passes", ["state"], unique=True, sqlite_where=sa.text("state = 'running'"))
    op.execute(FRESHNESS.format(replace="", age=AGE["sqlite"]).replace(":", r"\:"))
    for statement in reversed(kept):
        connection.exec_driver_sql(statement)


def _dropped(connection: sa.Connection, kind: str) -> list[str]:
    """Drop all views or triggers; return the statements of those that stay as they are, the newest first."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = ? ORDER BY rowid DESC"
    found: Sequence[sa.Row[tuple[str, str]]] = connection.exec_driver_sql(query, (kind,)).all()
    for row in found:
        connection.exec_driver_sql(f'DROP {kind} "{row.name}"')
    return [row.sql for row in found if row.name != "mirror_freshness"]
