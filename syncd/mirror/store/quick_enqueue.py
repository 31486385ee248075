"""Queues one operation on the bare driver, as any program may; `syncd enqueue` calls it.

The general way is `operations.enqueue` in a transaction of `Database`, after the checks of `cli.common.write`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncd.mirror.store import bare_sqlite
from syncd.records.ids import OperationId
from syncd.rules.identity import Identity, same_tenant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syncd.mirror.db.sqlite_module import sqlite3

_IDENTITY = "SELECT origin, tenant_id, copied_at, moved_to FROM mirror_identity"


def enqueue(url: str, operation: Mapping[str, str | None], named: Identity) -> OperationId | None:
    """Queue an operation in the SQLite file at a URL.

    Parameters
    ----------
    operation : Mapping[str, str | None]
        The columns of `operations`, accepted by `files.imports.check_operation`.
    named : Identity
        The tenant that the settings name.

    Returns
    -------
    OperationId | None
        None if nothing was queued: `bare_sqlite` cannot write to the file, or the mirror is of another tenant, was
        moved, or is a backup that was not started yet.

    Raises
    ------
    DatabaseReplacedError
        The file was replaced by another one at the same time.
    """
    statement = f"INSERT INTO operations ({', '.join(operation)}) VALUES ({', '.join('?' * len(operation))})"  # noqa: S608 - columns

    def work(connection: sqlite3.Connection) -> OperationId | None:
        if not _is_active(connection, named):
            return None
        operation_id = connection.execute(statement, tuple(operation.values())).lastrowid
        return OperationId(operation_id) if operation_id else None

    return bare_sqlite.write(url, work)


def _is_active(connection: sqlite3.Connection, named: Identity) -> bool:
    row = connection.execute(_IDENTITY).fetchone()
    if row is None:
        return True
    pinned = Identity(row["origin"], row["tenant_id"])
    return row["copied_at"] is None and row["moved_to"] is None and same_tenant(pinned, named)
