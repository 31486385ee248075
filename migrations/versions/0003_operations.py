"""Operations of the kind update, operations on hold, and columns for blocked and for waiting operations.

SQLite cannot change a constraint of a table: the table is built again there. Views and triggers are kept as they are.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SQLITE_NOW = "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')"
ACTIVE = "state IN ('pending', 'running', 'unknown', 'dead')"
DELETED = "kind = 'delete' AND state = 'succeeded'"

KIND = "kind IN ('create', 'delete', 'update')"
UPDATE_NEEDS = (
    "kind <> 'update' OR ((session_id IS NULL) <> (source_session_id IS NULL) "
    "AND (name IS NOT NULL OR parent_id IS NOT NULL))"
)
NEW_COMMENTS = {
    "kind": "create, delete or update",
    "source_session_id": "the external id: of the session to create, or of the session to delete or update",
    "session_id": "the session to delete or update",
    "name": "the name to create with, or the new name",
    "parent_id": "the folder to create in or to move to; in an update '' moves the session out of its folder",
}
ON_HOLD_AT = "since when the operation waits for a release after a restore; null when it is not on hold"
BLOCKED_BY = "the operation on the same key that must be over first; null when none is known"
WAITS_SINCE = "when syncd decided to wait until next_attempt_at; null when it does not wait, or waits for not_before"


def upgrade() -> None:
    """Allow updates and add three columns; no row changes."""
    if op.get_context().dialect.name == "sqlite":
        _upgrade_sqlite()
    else:
        _upgrade_postgresql()


def _upgrade_postgresql() -> None:
    op.add_column("operations", sa.Column("on_hold_at", MOMENT, comment=ON_HOLD_AT))
    op.add_column("operations", sa.Column("blocked_by", KEY, comment=BLOCKED_BY))
    op.add_column("operations", sa.Column("waits_since", MOMENT, comment=WAITS_SINCE))
    op.drop_constraint(op.f("ck_operations_kind"), "operations")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", KIND)
    op.create_check_constraint(op.f("ck_operations_update_needs_one_id_and_a_change"), "operations", UPDATE_NEEDS)
    for column, comment in NEW_COMMENTS.items():
        op.alter_column("operations", column, comment=comment)


def _upgrade_sqlite() -> None:
    """Build the table again under its own name, so that its declaration is that of an empty database.

    RENAME changes the views and triggers that name the table. They are dropped first, and created again at the end.
    """
    connection = op.get_bind()
    kept = _dropped(connection, "trigger") + _dropped(connection, "view")
    indexes = connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'operations' AND sql IS NOT NULL"
    )
    for name in indexes.scalars().all():
        connection.exec_driver_sql(f'DROP INDEX "{name}"')
    last_id = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'operations'").scalar()
    columns = connection.exec_driver_sql("SELECT name FROM pragma_table_info('operations') ORDER BY cid").scalars()
    names = ", ".join(columns)
    connection.exec_driver_sql("ALTER TABLE operations RENAME TO operations_0002")
    _create_sqlite_table()
    connection.exec_driver_sql(f"INSERT INTO operations ({names}) SELECT {names} FROM operations_0002 ORDER BY id")
    connection.exec_driver_sql("DROP TABLE operations_0002")
    if last_id is not None:  # the id of a deleted row is never given again
        connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = 'operations'")
        connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('operations', ?)", (last_id,))
    for statement in reversed(kept):
        connection.exec_driver_sql(statement)


def _dropped(connection: sa.Connection, kind: str) -> list[str]:
    """Drop all views or triggers; return their statements, the newest first."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = ? ORDER BY rowid DESC"
    found: Sequence[sa.Row[tuple[str, str]]] = connection.exec_driver_sql(query, (kind,)).all()
    for row in found:
        connection.exec_driver_sql(f'DROP {kind} "{row.name}"')
    return [row.sql for row in found]


def _create_sqlite_table() -> None:
    op.create_table(
        "operations",
        sa.Column(
            "id", KEY, sa.Identity(), nullable=False, comment="the operation; operations on one key run in this order"
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source_session_id", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column("requested_at", MOMENT, server_default=sa.text(SQLITE_NOW), nullable=False),
        sa.Column("not_before", MOMENT, nullable=True),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("result_session_id", sa.Text(), nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("target_session_id", sa.Text(), nullable=True),
        sa.Column("unknown_since", MOMENT, nullable=True),
        sa.Column("lookups", sa.Integer(), server_default="0", nullable=False),
        sa.Column("on_hold_at", MOMENT, nullable=True),
        sa.Column("blocked_by", KEY, nullable=True),
        sa.Column("waits_since", MOMENT, nullable=True),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_operations_finished"),
        ),
        sa.CheckConstraint(
            "kind <> 'create' OR (source_session_id IS NOT NULL AND name IS NOT NULL AND session_id IS NULL)",
            name=op.f("ck_operations_create_needs_source_and_name"),
        ),
        sa.CheckConstraint(
            "kind <> 'delete' OR (session_id IS NULL) <> (source_session_id IS NULL)",
            name=op.f("ck_operations_delete_needs_one_id"),
        ),
        sa.CheckConstraint(UPDATE_NEEDS, name=op.f("ck_operations_update_needs_one_id_and_a_change")),
        sa.CheckConstraint(KIND, name=op.f("ck_operations_kind")),
        sa.CheckConstraint("name <> ''", name=op.f("ck_operations_name")),
        sa.CheckConstraint("session_id NOT IN ('', '.', '..')", name=op.f("ck_operations_session_id")),
        sa.CheckConstraint("source_session_id NOT IN ('', '.', '..')", name=op.f("ck_operations_source_session_id")),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'unknown', 'succeeded', 'dead', 'cancelled')",
            name=op.f("ck_operations_state"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_operations_attempts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_operations_active_session", "operations", ["session_id", "id"], sqlite_where=sa.text(ACTIVE))
    op.create_index(
        "ix_operations_active_source", "operations", ["source_session_id", "id"], sqlite_where=sa.text(ACTIVE)
    )
    op.create_index("ix_operations_state", "operations", ["state", "next_attempt_at", "id"])
    op.create_index(
        "ix_operations_deleted", "operations", ["finished_at", "result_session_id"], sqlite_where=sa.text(DELETED)
    )
