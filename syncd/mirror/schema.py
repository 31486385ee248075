"""The schema's version: is it ours, is it current, and how it gets there.

Alembic is imported only when there is something to migrate: it costs a third of a second, and most starts find the
schema at head.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.errors import DatabaseUnusableError
from syncd.mirror import versions

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVISIONS = versions.REVISIONS
HEAD = versions.HEAD


def scripts() -> Path:
    """Return the directory of the migrations: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def revision(connection: Connection) -> str | None:
    """Return the schema's revision; None for a database that is empty.

    Raises
    ------
    DatabaseUnusableError
        The database belongs to another program, or to a newer syncd.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise DatabaseUnusableError(
            "the database holds tables that are not syncd's; point SYNCD_DATABASE_URL at one of its own"
        )
    rows = list(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())
    if not rows and tables == {"alembic_version"}:
        return None
    if len(rows) != 1 or rows[0] not in REVISIONS:
        found = ", ".join(map(str, rows)) or "none"
        raise DatabaseUnusableError(
            f"the database's schema is {found}, and this syncd knows {HEAD} at the latest; "
            "run the newer syncd that wrote it, or restore a backup"
        )
    return str(rows[0])


def require_head(connection: Connection) -> None:
    """Refuse a schema that is empty or old.

    Raises
    ------
    DatabaseUnusableError
        It must be migrated first.
    """
    found = revision(connection)
    if found != HEAD:
        raise DatabaseUnusableError(
            f"the database's schema is {found or 'empty'} and must be {HEAD}; run: syncd migrate"
        )


def migrate(connection: Connection) -> tuple[str | None, str]:
    """Bring the schema to head inside the caller's transaction, so that it is there whole or not at all.

    Returns
    -------
    tuple[str | None, str]
        The revision before and the one after.
    """
    before = revision(connection)
    if before != HEAD:
        from alembic import command  # noqa: PLC0415 - see the module's docstring
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, HEAD
