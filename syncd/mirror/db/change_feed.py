"""Noticing that somebody has committed: SQLite's data version, or PostgreSQL's NOTIFY with polling behind it."""

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
"""How often SQLite is asked whether somebody committed; a look costs microseconds and no write."""
POLL_SECONDS = 1.0
"""How often the queue is looked at where nothing tells of changes (no LISTEN behind a transaction-pooling proxy)."""
POLL_SECONDS_LISTENING = 10.0
"""The same while PostgreSQL tells of changes: only in case that it does not."""
ANSWER_SECONDS = 5.0
CHANNEL = "syncd"


class ChangeFeed(Protocol):
    """What tells of commits."""

    async def wait(self) -> None:
        """Wait until somebody may have committed something."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


@dataclass
class PollingFeed:
    """SQLite: look at the data version, often."""

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
        """Do nothing: the database closes what it looks with."""


@dataclass
class NotifyFeed:
    """PostgreSQL: LISTEN on a connection of its own, and poll in case that nobody tells."""

    database: Database
    _connection: Any = None
    _schema: str = ""
    _rung: anyio.Event = field(default_factory=anyio.Event)

    async def wait(self) -> None:
        """Wait for a notification, or as long as polling waits."""
        if self._connection is None or self._connection.is_closed():
            await self._listen()
        poll_seconds = POLL_SECONDS if self._connection is None else POLL_SECONDS_LISTENING
        with anyio.move_on_after(poll_seconds) as waiting:
            await self._rung.wait()
        self._rung = anyio.Event()
        if waiting.cancelled_caught:
            await self._make_sure()

    async def _make_sure(self) -> None:
        """Notice that nobody is there any more who could tell: a machine that is gone closes no connection."""
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
            return  # what is told would be told to whoever has the connection then
        try:
            connection = await postgresql.connect(self.database.url)
        except DatabaseUnusableError:
            return
        except Exception as error:
            if postgresql.classify_error(error) is None:
                raise
            return  # the next wait tries again, and the queue's own statements tell what is wrong
        try:
            self._schema = await connection.fetchval("SELECT current_schema()", timeout=ANSWER_SECONDS)
            await connection.add_listener(CHANNEL, self._hear)
            connection.add_termination_listener(lambda _: self._rung.set())
        except Exception as error:
            connection.terminate()
            if postgresql.classify_error(error) is None:
                raise
            return
        self._connection = connection
        self._rung.set()  # what was committed before anybody listened

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload.startswith(f"{self._schema}."):
            self._rung.set()

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def change_feed(database: Database, clock: Clock) -> ChangeFeed:
    """Return what tells of commits to this database."""
    return PollingFeed(database, clock) if database.dialect == "sqlite" else NotifyFeed(database)
