"""Notice that another connection has committed: SQLite's data version, or PostgreSQL's NOTIFY together with polling.

The daemon's `watch` loop waits on a change feed and then wakes the queue and the reconciliation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import postgresql

if TYPE_CHECKING:
    from syncd.clock import Clock
    from syncd.mirror.db.database import Database

LOOK_SECONDS = 0.125
"""Seconds between two looks at SQLite's data version; a look costs microseconds and writes nothing."""
POLL_SECONDS = 1.0
"""Seconds between two wake-ups where nothing announces changes: LISTEN does not work behind a pool by transaction."""
POLL_SECONDS_LISTENING = 10.0
"""The same while PostgreSQL announces changes, in case an announcement is lost."""
ANSWER_SECONDS = 5.0
CHANNEL = "syncd"


class ChangeFeed(Protocol):
    """Announces commits."""

    async def wait(self) -> None:
        """Wait until another connection may have committed something."""
        ...

    async def close(self) -> None:
        """Stop."""
        ...


@dataclass
class PollingFeed:
    """SQLite: compare the data version, several times a second."""

    database: Database
    clock: Clock
    _seen: int | None = None

    async def wait(self) -> None:
        """Wait until any connection has committed.

        Raises
        ------
        DatabaseReplacedError
            The file is not the one that was opened.
        """
        while (version := self.database.data_version()) == self._seen:
            await self.clock.sleep(LOOK_SECONDS)
        self._seen = version

    async def close(self) -> None:
        """Do nothing: the connection belongs to the database."""


@dataclass
class NotifyFeed:
    """PostgreSQL: LISTEN on a connection of its own, and poll in case nothing is announced."""

    database: Database
    _connection: Any = None
    _schema: str = ""
    _notified: anyio.Event = field(default_factory=anyio.Event)

    async def wait(self) -> None:
        """Wait for a notification, at most as long as the polling interval."""
        if self._connection is None or self._connection.is_closed():
            await self._listen()
        poll_seconds = POLL_SECONDS if self._connection is None else POLL_SECONDS_LISTENING
        with anyio.move_on_after(poll_seconds) as waiting:
            await self._notified.wait()
        self._notified = anyio.Event()
        if waiting.cancelled_caught:
            await self._check_connection()

    async def _check_connection(self) -> None:
        """Drop a connection whose server does not answer: a machine that disappears does not close it."""
        if self._connection is None:
            return
        try:
            await self._connection.fetchval("SELECT 1", timeout=ANSWER_SECONDS)
        except Exception as error:
            if postgresql.classify_error(error) is None:
                raise
            self._connection.terminate()
            self._connection = None

    async def _listen(self) -> None:
        self._connection = None
        if postgresql.is_pooled(self.database.url):
            return  # a notification would reach whichever client has the connection then
        try:
            connection = await postgresql.connect(self.database.url)
        except DatabaseUnusableError:
            return
        except Exception as error:
            if postgresql.classify_error(error) is None:
                raise
            return  # the next wait tries again, and the statements of the queue report the problem
        try:
            self._schema = await connection.fetchval("SELECT current_schema()", timeout=ANSWER_SECONDS)
            await connection.add_listener(CHANNEL, self._on_notify)
            connection.add_termination_listener(lambda _: self._notified.set())
        except Exception as error:
            connection.terminate()
            if postgresql.classify_error(error) is None:
                raise
            return
        self._connection = connection
        self._notified.set()  # for what was committed before the LISTEN

    def _on_notify(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload.startswith(f"{self._schema}."):
            self._notified.set()

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
