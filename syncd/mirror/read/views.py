"""What the analysts' views say, for the commands that show it to operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.schema import enums
from syncd.mirror.schema.tables import passes as passes_table
from syncd.mirror.schema.tables import source_sessions
from syncd.mirror.schema.types import UtcDateTime
from syncd.mirror.store import identity, operation_views, restored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

FRESHNESS = sa.text("SELECT * FROM mirror_freshness").columns(last_complete_pass_at=UtcDateTime())


def freshness(connection: Connection) -> Mapping[str, Any]:
    """Return the one row of `mirror_freshness`."""
    return dict(connection.execute(FRESHNESS).mappings().one())


def last_passes(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Return the last passes, newest first."""
    columns = [passes_table.c[name] for name in enums.PASS_SHOWN]
    query = sa.select(*columns).order_by(passes_table.c.id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def one_pass(connection: Connection, pass_id: int) -> dict[str, Any]:
    """Return a pass."""
    query = sa.select(*(passes_table.c[name] for name in enums.PASS_SHOWN)).where(passes_table.c.id == pass_id)
    return dict(connection.execute(query).mappings().one())


def source_counts(connection: Connection) -> dict[str, int]:
    """Return how many source ids are in each state."""
    query = sa.select(source_sessions.c.state, sa.func.count()).group_by(source_sessions.c.state)
    found = {row[0]: row[1] for row in connection.execute(query)}
    return {state: found.get(state, 0) for state in enums.SOURCES}


def stored_identity(connection: Connection) -> dict[str, Any]:
    """Return the tenant that the database mirrors, the marks of copies and moves, and the operations on hold."""
    stored = identity.read(connection)
    return {
        "origin": stored.pinned.origin, "tenant_id": stored.pinned.tenant_id, "copied_at": stored.copied_at,
        "moved_to": stored.moved_to, "moved_at": stored.moved_at,
        "operations_on_hold": restored.count_on_hold(connection),
    }  # fmt: skip


def overview(connection: Connection, *, passes_shown: int = 5) -> dict[str, Any]:
    """Return all that `syncd status` shows, in one snapshot."""
    return {
        "identity": stored_identity(connection),
        "freshness": dict(freshness(connection)),
        "operations": operation_views.counts(connection),
        "sources": source_counts(connection),
        "passes": last_passes(connection, passes_shown),
    }
