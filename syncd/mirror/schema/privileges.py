"""Check that a PostgreSQL server fits syncd, and that its role may write what syncd writes.

`opening` calls `require_rights` before the first request to Albert, `migrate` calls `require_fit`, and `doctor` both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.dialects import by_dialect, do_nothing
from syncd.mirror.db.postgresql import GRANTS

if TYPE_CHECKING:
    from sqlalchemy import Connection

OLDEST = 130000
"""PostgreSQL 13, as `server_version_num`; 12 has no `pg_current_xact_id_if_assigned` and is not supported any more."""
_WRITTEN = (
    "sessions", "session_versions", "passes", "pages", "holds", "hold_sessions", "elapsed_time", "quarantine",
    "operations", "source_sessions", "writers", "mirror_identity", "operator_actions", "mirror_totals", "folders",
    "folder_listing",
)  # fmt: skip
_LACKING = """
SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = current_schema()::regnamespace AND (
    c.relkind = 'r' AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) AND c.relname = ANY($1)
    OR c.relkind = 'S' AND NOT has_sequence_privilege(c.oid, 'USAGE'))
ORDER BY 1
"""


def _require_grants(connection: Connection) -> None:
    require_fit(connection)
    role, schema = connection.exec_driver_sql("SELECT quote_ident(current_user), quote_ident(current_schema())").one()
    lacking = connection.exec_driver_sql(_LACKING, (list(_WRITTEN),)).scalars().all()
    if lacking:
        raise DatabaseUnusableError(
            f"the database cannot be used: the role {role} may not write {', '.join(lacking)}; "
            f"an administrator can fix that with: {GRANTS.format(schema=schema, role=role)}"
        )


_require_rights = by_dialect(sqlite=do_nothing, postgresql=_require_grants)


def require_rights(connection: Connection) -> None:
    """Check that this role can write what syncd writes; the rights on a SQLite file are checked when it is opened.

    Raises
    ------
    DatabaseUnusableError
        The server is too old or not UTF-8, or rights are missing; the message contains the GRANT.
    """
    _require_rights(connection)


def require_fit(connection: Connection) -> None:
    """Check the version and the encoding of a PostgreSQL server.

    Raises
    ------
    DatabaseUnusableError
        It is too old, or cannot store every text.
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
            f"its encoding is {encoding}, which cannot store every text; create one with: "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
    return None
