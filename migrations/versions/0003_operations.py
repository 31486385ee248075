"""Operations of the kind update, operations on hold, and claims that do not read blocked operations.

`blocked_by` names the operation that one waits for: the last one before it on the same key that is not over. Triggers
keep it, so that every program that inserts, finishes or deletes an operation keeps it. The indexes of due operations
leave blocked ones out. The check of the claim itself decides whether an operation may run.

SQLite cannot change a constraint of a table: the table is built again there. Views and triggers are kept as they are.
"""

from collections.abc import Mapping, Sequence

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
BLOCKED_BY = "the last operation before it on the same key that is not over; null when none is known"
CLOCK_AT = "the clock when syncd last set next_attempt_at or lease_until; a clock that shows less was set back"

ACTIVE = "state IN ('pending', 'running', 'unknown', 'dead')"
WAITING = "(state = 'pending' OR state = 'unknown')"
"""As SQLite needs it to see that `state = 'pending'` implies it."""
INDEXES = {
    "ix_operations_active_source": (["source_session_id", "id"], f"{ACTIVE} AND source_session_id IS NOT NULL"),
    "ix_operations_active_session": (["session_id", "id"], f"{ACTIVE} AND session_id IS NOT NULL"),
    "ix_operations_state": (["state", "id"], None),
    "ix_operations_due": (
        ["state", "next_attempt_at", "id"],
        f"{WAITING} AND blocked_by IS NULL AND on_hold_at IS NULL",
    ),
    "ix_operations_blocked": (["blocked_by"], "blocked_by IS NOT NULL"),
    "ix_operations_on_hold": (["on_hold_at"], "on_hold_at IS NOT NULL"),
    "ix_operations_clock": (["clock_at"], f"{WAITING} AND clock_at IS NOT NULL"),
    "ix_operations_deleted": (["finished_at", "result_session_id"], "kind = 'delete' AND state = 'succeeded'"),
}


KEYS = {"source_session_id": "ix_operations_active_source", "session_id": "ix_operations_active_session"}


def _before(row: str, dialect: str) -> str:
    """Write the expression for the last operation before a row on the same key that is not over."""
    return f"coalesce({', '.join(_before_on(row, name, dialect) for name in KEYS)})"


def _before_on(row: str, name: str, dialect: str) -> str:
    """Write the same for one column.

    The query reads one entry of an index, whatever the statistics say: on PostgreSQL the neighbour of the row in the
    index, which may be on another key.
    """
    if dialect == "sqlite":
        return (
            f"(SELECT max(e.id) FROM operations AS e INDEXED BY {KEYS[name]} "
            f"WHERE e.{name} = {row}.{name} AND e.id < {row}.id AND e.{ACTIVE})"
        )
    return (
        f"(SELECT CASE WHEN e.{name} = {row}.{name} THEN e.id END FROM ("
        f"SELECT x.{name}, x.id FROM operations AS x WHERE x.{name} IS NOT NULL AND x.{ACTIVE} "
        f"AND (x.{name}, x.id) < ({row}.{name}, {row}.id) ORDER BY x.{name} DESC, x.id DESC LIMIT 1) AS e)"
    )


def _find_blockers(dialect: str) -> str:
    before = _before("operations", dialect)
    return f"UPDATE operations SET blocked_by = {before} WHERE {ACTIVE} AND {before} IS NOT NULL"


DIGITS = "[0-9]"
CANONICAL = f"{DIGITS * 4}-{DIGITS * 2}-{DIGITS * 2}T{DIGITS * 2}:{DIGITS * 2}:{DIGITS * 2}.{DIGITS * 6}Z"


def _sqlite_own_time(column: str) -> str:
    """Refuse a time that syncd could not read: as in revision 0001, for the columns that only syncd writes."""
    seconds = f"substr(NEW.{column}, 1, 19)"
    exact = f"{seconds} = coalesce(strftime('%Y-%m-%dT%H:%M:%S', {seconds}, '+0 days'), '')"
    return f"""
CREATE TRIGGER operations_{column}_is_ours BEFORE INSERT ON operations
WHEN NEW.{column} IS NOT NULL AND (NEW.{column} < '0001' OR NOT (NEW.{column} GLOB '{CANONICAL}' AND {exact}))
BEGIN
    SELECT RAISE(ABORT, '{column} is written by syncd alone');
END
"""


SQLITE_TRIGGERS = (
    *map(_sqlite_own_time, ("on_hold_at", "clock_at")),
    f"""
CREATE TRIGGER operations_find_blocker AFTER INSERT ON operations
WHEN NEW.{ACTIVE} AND {_before("NEW", "sqlite")} IS NOT NULL
BEGIN
    UPDATE operations SET blocked_by = {_before("NEW", "sqlite")} WHERE id = NEW.id;
END
""",
    f"""
CREATE TRIGGER operations_over AFTER UPDATE OF state ON operations
WHEN OLD.{ACTIVE} AND NOT NEW.{ACTIVE}
BEGIN
    UPDATE operations SET blocked_by = {_before("operations", "sqlite")} WHERE blocked_by = NEW.id;
END
""",
    f"""
CREATE TRIGGER operations_gone AFTER DELETE ON operations
WHEN OLD.{ACTIVE}
BEGIN
    UPDATE operations SET blocked_by = {_before("operations", "sqlite")} WHERE blocked_by = OLD.id;
END
""",
)

# The functions work in the schema of the table, whatever the search_path of the caller. Static SQL has a cached plan.
_IN_SCHEMA = "PERFORM set_config('search_path', format('pg_catalog, %I, pg_temp', TG_TABLE_SCHEMA), true);"
_DEFINER = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
_INVOKER = "LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp"

POSTGRESQL_TRIGGERS = (
    # Before the row is written, so that a blocked operation is never in the index of those that are due. The program that
    # inserts may have no other right. Its snapshot may be old under REPEATABLE READ: then the claim finds the blocker.
    f"""
CREATE OR REPLACE FUNCTION syncd_operation_due() RETURNS trigger {_DEFINER} AS $$
BEGIN
    NEW.next_attempt_at := coalesce(NEW.next_attempt_at, NEW.not_before);
    IF NEW.{ACTIVE} AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        {_IN_SCHEMA}
        IF NEW.source_session_id IS NOT NULL THEN
            NEW.blocked_by := {_before_on("NEW", "source_session_id", "postgresql")};
        ELSE
            NEW.blocked_by := {_before_on("NEW", "session_id", "postgresql")};
        END IF;
    END IF;
    RETURN NEW;
END
$$
""",
    f"""
CREATE OR REPLACE FUNCTION syncd_operations_inserted() RETURNS trigger {_DEFINER} AS $$
BEGIN
    {_IN_SCHEMA}
    INSERT INTO source_sessions (source_session_id)
    SELECT DISTINCT source_session_id FROM fresh WHERE source_session_id IS NOT NULL ORDER BY 1
    ON CONFLICT DO NOTHING;
    PERFORM pg_notify('syncd', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME);
    RETURN NULL;
END
$$
""",
    # At the end of the transaction that wrote blocked_by, when the blocker may be over. FOR SHARE makes the transaction
    # that finishes the blocker wait for this commit, or is skipped when that transaction came first.
    f"""
CREATE FUNCTION syncd_operation_blocked() RETURNS trigger {_DEFINER} AS $$
BEGIN
    {_IN_SCHEMA}
    PERFORM 1 FROM operations WHERE id = NEW.blocked_by AND {ACTIVE} FOR SHARE SKIP LOCKED;
    IF NOT FOUND THEN
        UPDATE operations SET blocked_by = NULL WHERE id = NEW.id AND blocked_by = NEW.blocked_by;
    END IF;
    RETURN NULL;
END
$$
""",
    """
CREATE CONSTRAINT TRIGGER operations_blocked AFTER INSERT OR UPDATE OF blocked_by ON operations
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.blocked_by IS NOT NULL)
EXECUTE FUNCTION syncd_operation_blocked()
""",
    f"""
CREATE FUNCTION syncd_operation_over() RETURNS trigger {_INVOKER} AS $$
BEGIN
    {_IN_SCHEMA}
    UPDATE operations AS o SET blocked_by = {_before("o", "postgresql")} WHERE o.blocked_by = OLD.id;
    RETURN NULL;
END
$$
""",
    f"""
CREATE TRIGGER operations_over AFTER UPDATE OF state ON operations
FOR EACH ROW WHEN (OLD.{ACTIVE} AND NOT NEW.{ACTIVE}) EXECUTE FUNCTION syncd_operation_over()
""",
    f"""
CREATE TRIGGER operations_gone AFTER DELETE ON operations
FOR EACH ROW WHEN (OLD.{ACTIVE}) EXECUTE FUNCTION syncd_operation_over()
""",
    "DROP TRIGGER operations_wake_again ON operations",
    """
CREATE TRIGGER operations_wake_again AFTER UPDATE OF state, on_hold_at ON operations
FOR EACH ROW WHEN (
    (OLD.state = 'dead' AND NEW.state IN ('pending', 'cancelled'))
    OR (OLD.state IN ('pending', 'unknown') AND NEW.state = 'cancelled')
    OR (OLD.on_hold_at IS NOT NULL AND NEW.on_hold_at IS NULL)
)
EXECUTE FUNCTION syncd_wake()
""",
)


def upgrade() -> None:
    """Allow updates, add three columns, and find the blocker of each operation."""
    if op.get_context().dialect.name == "sqlite":
        _upgrade_sqlite()
    else:
        _upgrade_postgresql()


def _upgrade_postgresql() -> None:
    op.add_column("operations", sa.Column("on_hold_at", MOMENT, comment=ON_HOLD_AT))
    op.add_column("operations", sa.Column("blocked_by", KEY, comment=BLOCKED_BY))
    op.add_column("operations", sa.Column("clock_at", MOMENT, comment=CLOCK_AT))
    op.drop_constraint(op.f("ck_operations_kind"), "operations")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", KIND)
    op.create_check_constraint(op.f("ck_operations_update_needs_one_id_and_a_change"), "operations", UPDATE_NEEDS)
    for column, comment in NEW_COMMENTS.items():
        op.alter_column("operations", column, comment=comment)
    for name in ("ix_operations_active_source", "ix_operations_active_session", "ix_operations_state"):
        op.drop_index(name, "operations")
    _create_indexes({name: index for name, index in INDEXES.items() if name != "ix_operations_deleted"})
    _run(_find_blockers("postgresql"))
    for statement in POSTGRESQL_TRIGGERS:
        _run(statement)


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
    columns = connection.exec_driver_sql("SELECT name FROM pragma_table_info('operations') ORDER BY cid").scalars()
    names = ", ".join(columns)
    connection.exec_driver_sql("ALTER TABLE operations RENAME TO operations_0002")
    _create_sqlite_table()
    connection.exec_driver_sql(f"INSERT INTO operations ({names}) SELECT {names} FROM operations_0002 ORDER BY id")
    # the id of a deleted row is never given again
    connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = 'operations'")
    connection.exec_driver_sql("UPDATE sqlite_sequence SET name = 'operations' WHERE name = 'operations_0002'")
    connection.exec_driver_sql("DROP TABLE operations_0002")
    _create_indexes(INDEXES)
    connection.exec_driver_sql(_find_blockers("sqlite"))
    for statement in (*reversed(kept), *SQLITE_TRIGGERS):
        connection.exec_driver_sql(statement)


def _create_indexes(indexes: Mapping[str, tuple[list[str], str | None]]) -> None:
    for name, (columns, condition) in indexes.items():
        where = None if condition is None else sa.text(condition)
        op.create_index(name, "operations", columns, sqlite_where=where, postgresql_where=where)


def _run(statement: str) -> None:
    """Run a statement as it is: a colon in it is not a parameter."""
    op.execute(sa.text(statement.replace(":", r"\:")))


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
        sa.Column("clock_at", MOMENT, nullable=True),
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
