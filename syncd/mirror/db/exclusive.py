"""Keeps every daemon away from a database while a command replaces, moves or re-labels its content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from syncd.mirror.db.daemon_lock import daemon_lock
from syncd.mirror.db.leader import nobody_else

if TYPE_CHECKING:
    import sqlalchemy as sa


@asynccontextmanager
async def without_daemon(url: sa.URL, command: str) -> AsyncIterator[None]:
    """Hold the database so that no daemon can start on it, for as long as the context lasts.

    Parameters
    ----------
    command : str
        The name of the command, for the message of a daemon that is refused meanwhile.

    Raises
    ------
    DatabaseUnusableError
        A daemon works on the database, or it cannot be used; the message names the daemon.
    """
    if url.get_backend_name() == "sqlite":
        with daemon_lock(Path(url.database or ""), command):
            yield
    else:
        async with nobody_else(url):
            yield
