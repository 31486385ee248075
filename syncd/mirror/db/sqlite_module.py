"""The SQLite library that syncd uses: the one of the package `pysqlite3`, or Python's own where that is not installed.

Every module that opens a SQLite file imports `sqlite3` from here. Two copies of SQLite in one process must never have
the same file open: when one closes it, the operating system drops the locks of the other (POSIX advisory locks).

The package contains a current SQLite (3.53.4 in 0.6.1). Releases before 3.51.3 can corrupt a WAL database when two
connections write and checkpoint at the same time, and Python on Debian 12 and 13 is linked to such a release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3  # noqa: TID251 - the types of both are the same
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:  # no wheel for this platform
        import sqlite3  # noqa: TID251 - the one place
    else:
        # pysqlite3 looks for an adapter for each None, in Python and without a cache, unless one is registered.
        # Measured: rows of sessions, a third of whose values are None, are inserted 3 times faster with it.
        sqlite3.register_adapter(type(None), {}.get)

__all__ = ["decode", "is_safe", "sqlite3"]

_FIXED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The releases that fix the corruption of WAL databases; each also stands for the later ones of its branch."""


def is_safe(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Return whether a SQLite release is free of the WAL corruption bug."""
    return version >= _FIXED[-1] or any(version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED)


def decode(raw: bytes) -> str:
    """Decode text of SQLite, with lone surrogates in the place of bytes that are not UTF-8."""
    return raw.decode("utf-8", "surrogateescape")
