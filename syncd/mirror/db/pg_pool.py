"""Finds out whether a proxy such as PgBouncer shares the sessions of PostgreSQL between its clients.

The leader's lock belongs to a session, so `leader` must know; `syncd doctor` reports it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import postgresql

if TYPE_CHECKING:
    import sqlalchemy as sa

TIMEOUT = 5.0
"""Seconds for the answer to one query."""


async def shares_sessions(url: sa.URL) -> bool:
    """Return whether two connections at the same time are one session, which a proxy shares between its clients."""
    first, second = await postgresql.connect(url), None
    try:
        session = await _session_of(first)
        second = await postgresql.connect(url)
        return bool(await _session_of(second) == session)
    finally:
        for connection in (first, second):
            if connection is not None:
                with anyio.CancelScope(shield=True), suppress(Exception):
                    await connection.close(timeout=1)


async def check_connections(url: sa.URL) -> str:
    """Return how connections to a server behave, as text for `syncd doctor`.

    Raises
    ------
    DatabaseUnusableError
        A proxy shares sessions between clients, and the URL does not say so; or there is no connection.
    """
    if postgresql.is_pooled(url):
        return "the URL declares a pool by transaction: the queue is polled every second, LISTEN is not used"
    try:
        shared = await shares_sessions(url)
    except Exception as error:
        raise postgresql.classify_error(error) or error from error
    if shared:
        raise DatabaseUnusableError(f"two connections at the same time are one session: {postgresql.POOLING}")
    return "each connection is a session of its own"


async def _session_of(connection: Any) -> Any:  # noqa: ANN401 - asyncpg's
    return await connection.fetchval("SELECT pg_backend_pid()", timeout=TIMEOUT)
