"""Whether a database keeps what was committed to it: the version of SQLite, and settings of a PostgreSQL server.

`syncd run` logs the result at its start, and `syncd doctor` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.dialects import by_dialect, do_nothing
from syncd.mirror.db.sqlite_module import is_safe, sqlite3

if TYPE_CHECKING:
    from sqlalchemy import Connection

_WEAK = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name"


@dataclass(frozen=True)
class Durability:
    """The database's version, and how it can lose or damage committed data.

    Parameters
    ----------
    problem : str | None
        None if nothing is known.
    fix : str | None
        What to do about the problem.
    """

    version: str
    problem: str | None = None
    fix: str | None = None


def sqlite_durability() -> Durability:
    """Return the durability of the SQLite library in use."""
    version = f"SQLite {sqlite3.sqlite_version}"
    if is_safe():
        return Durability(version)
    return Durability(
        version,
        "it can corrupt a WAL database when two connections write and checkpoint at the same time",
        "install pysqlite3 (it has wheels for Linux x86_64 and macOS arm64), or a Python with SQLite 3.51.3 or newer; "
        "until then, let other programs write through syncd enqueue",
    )


def _of_file(_connection: Connection) -> Durability:
    return sqlite_durability()


def _of_server(connection: Connection) -> Durability:
    version = f"PostgreSQL {connection.exec_driver_sql('SHOW server_version').scalar_one()}"
    weak = connection.exec_driver_sql(_WEAK).scalars().all()
    if not weak:
        return Durability(version)
    return Durability(
        version,
        f"the server runs with {' and '.join(f'{name}=off' for name in weak)}, and loses or damages commits in a crash",
        f"set {' and '.join(f'{name} = on' for name in weak)} in postgresql.conf, and restart the server",
    )


durability = by_dialect(sqlite=_of_file, postgresql=_of_server)
"""Return the durability of the database of a connection."""


def _quick_check(connection: Connection) -> None:
    verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if verdict != "ok":
        raise DatabaseUnusableError(f"the database is damaged ({verdict}); restore a backup")


_require_intact = by_dialect(sqlite=_quick_check, postgresql=do_nothing)


def require_intact(connection: Connection) -> None:
    """Check the structure of a SQLite file; PostgreSQL checks its pages itself.

    Raises
    ------
    DatabaseUnusableError
        The file is damaged.
    """
    _require_intact(connection)
