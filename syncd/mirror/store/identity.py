"""The identity of a mirror: the tenant it belongs to, and whether the database is a copy or was moved away.

`mirror_identity` has at most one row. `syncd.tenant_guard` stores the tenant before the first request, `syncd backup`
marks its copies, and `syncd migrate-store` marks its source.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.mirror.schema.tables import mirror_identity
from syncd.rules.identity import Identity, combined, same_tenant

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

_INSERT = "INSERT INTO mirror_identity (id) VALUES (1) ON CONFLICT DO NOTHING"


@dataclass(frozen=True, slots=True)
class StoredIdentity:
    """The row of `mirror_identity`; all None in a database that was never used.

    `copied_at` is set in a copy that has not been started yet. `moved_to` is the URL of the database that
    `migrate-store` moved the content to, without its password.
    """

    pinned: Identity = field(default_factory=Identity)
    pinned_at: datetime | None = None
    copied_at: datetime | None = None
    moved_to: str | None = None
    moved_at: datetime | None = None


def read(connection: Connection) -> StoredIdentity:
    """Return the identity of a mirror whose schema is at head."""
    return _stored(connection.execute(sa.select(mirror_identity)).first())


def read_any_revision(connection: Connection) -> StoredIdentity:
    """Return the identity of a database that may be empty, or older than the table."""
    if not sa.inspect(connection).has_table(mirror_identity.name):
        return StoredIdentity()
    return read(connection)


def pin(connection: Connection, named: Identity, now: datetime) -> StoredIdentity:
    """Store the unknown parts of the identity, in the caller's transaction.

    The row is locked: of several replicas that start at the same time, the first one determines the identity.

    Returns
    -------
    StoredIdentity
        The identity afterwards. It is unchanged if it does not match `named`: the caller must compare them.
    """
    stored = _locked(connection)
    after = combined(stored.pinned, named)
    if after == stored.pinned or not same_tenant(stored.pinned, named):
        return stored
    _update(connection, origin=after.origin, tenant_id=after.tenant_id, pinned_at=now)
    return read(connection)


def accept(connection: Connection, named: Identity, now: datetime) -> StoredIdentity:
    """Replace the identity by another one; return the one before."""
    before = _locked(connection)
    _update(connection, origin=named.origin, tenant_id=named.tenant_id, pinned_at=now)
    return before


def forget_copy(connection: Connection) -> datetime | None:
    """Remove the mark of a copy; return when the copy was made, None if the database has no mark."""
    copied_at = read(connection).copied_at and _locked(connection).copied_at
    if copied_at is not None:
        _update(connection, copied_at=None)
    return copied_at


def mark_moved(connection: Connection, target: str, now: datetime) -> None:
    """Record that the content was moved to another database, whose URL has no password in it."""
    _locked(connection)
    _update(connection, moved_to=target, moved_at=now)


def unmark_moved(connection: Connection) -> str | None:
    """Remove the mark of a move; return the URL that it named, None if the database has no mark."""
    target = read(connection).moved_to
    if target is not None:
        _update(connection, moved_to=None, moved_at=None)
    return target


def _stored(row: sa.Row[tuple[object, ...]] | None) -> StoredIdentity:
    if row is None:
        return StoredIdentity()
    pinned = Identity(row.origin, row.tenant_id)
    return StoredIdentity(pinned, row.pinned_at, row.copied_at, row.moved_to, row.moved_at)


def _locked(connection: Connection) -> StoredIdentity:
    """Return the identity, with its row present and locked until the transaction ends."""
    connection.exec_driver_sql(_INSERT)
    return _stored(connection.execute(sa.select(mirror_identity).with_for_update()).first())


def _update(connection: Connection, **values: object) -> None:
    connection.execute(sa.update(mirror_identity).values(values))
