"""Whether a PostgreSQL is one that syncd can live in, and its role one that may write what syncd writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.postgresql import GRANTS, MENDS

if TYPE_CHECKING:
    from sqlalchemy import Connection

OLDEST = 130000
"""As PostgreSQL counts its versions; 12 has no `pg_current_xact_id_if_assigned`, and no support any more."""
_WRITTEN = (
    "sessions", "session_versions", "passes", "pages", "holds", "hold_sessions", "elapsed_time", "quarantine",
    "operations", "source_sessions", "writers", "mirror_identity", "operator_actions",
)  # fmt: skip


def require_rights(connection: Connection) -> None:
    """Make sure, before anything is asked of Albert, that this role can write what syncd writes.

    Raises
    ------
    DatabaseUnusableError
        The server is old, not UTF-8 or read-only, or rights are missing; the message says how to mend it.
    """
    require_fit(connection)
    if connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on":
        raise DatabaseUnusableError("the database cannot be used: " + MENDS["25006"])
    role, schema = connection.exec_driver_sql("SELECT quote_ident(current_user), quote_ident(current_schema())").one()
    lacking = connection.exec_driver_sql(
        "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = current_schema()::regnamespace AND ("
        "c.relkind = 'r' AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') "
        "AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) AND c.relname = ANY($1) "
        "OR c.relkind = 'S' AND NOT has_sequence_privilege(c.oid, 'USAGE')) ORDER BY 1",
        (list(_WRITTEN),),
    ).scalars().all()  # fmt: skip
    if lacking:
        raise DatabaseUnusableError(
            f"the database cannot be used: the role {role} may not write {', '.join(lacking)}; "
            f"an administrator mends that with: {GRANTS.format(schema=schema, role=role)}"
        )


def require_fit(connection: Connection) -> None:
    """Make sure that this is a PostgreSQL that syncd can live in.

    Raises
    ------
    DatabaseUnusableError
        It is too old, or cannot hold every text.
    """
    version, encoding = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')"
    ).one()
    if (unfit := _unfit(version, encoding)) is not None:
        raise DatabaseUnusableError(f"the database cannot be used: {unfit}")


def _unfit(version: int, encoding: str) -> str | None:
    if version < OLDEST:
        return f"PostgreSQL {version // 10000} is too old; syncd needs {OLDEST // 10000} or newer"
    if encoding != "UTF8":
        return (
            f"its encoding is {encoding}, which cannot hold every text; make one with: "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
    return None
