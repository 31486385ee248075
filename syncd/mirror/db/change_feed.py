"""Notices that another connection has committed: by SQLite's files, or by PostgreSQL's NOTIFY together with polling.

The daemon's `watch` loop waits on a change feed and then wakes the queue and the reconciliation.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from syncd.aio import AutoResetEvent
from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inotify_simple import INotify

    from syncd.clock import Clock
    from syncd.mirror.db.database import Database

LOOK_SECONDS = 0.05
"""Seconds between two checks of SQLite's write-ahead log; a check is one system call and writes nothing."""
SURE_SECONDS = 1.0
"""Seconds after which the data version is read in any case, for file systems that do not report changes."""
COMMIT_PAUSES = (0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.1, 0.2, 0.2, 0.2)
"""Seconds between readings of the data version after the log was written. A commit is visible only after the log was
synced, which changes no file that can be watched. A second write can have the same file time as the first one."""
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
    """SQLite: check the write-ahead log, and read the data version if the log may have changed.

    Linux reports each write to a file in the folder (inotify). Elsewhere the log is checked many times a second.

    Parameters
    ----------
    log : Path
        The write-ahead log.
    """

    database: Database
    clock: Clock
    log: Path
    _version: int | None = None
    _state: tuple[int, int] | None = None
    _pauses: Iterator[float] = field(default_factory=lambda: iter(()))
    """The remaining pauses after the last write to the log."""
    _pause: float = 0.0
    _read_at: float = 0.0
    """When the data version is read next, in monotonic seconds."""
    _next_return_at: float = 0.0
    _written: AutoResetEvent = field(default_factory=AutoResetEvent)
    _inotify: INotify | None = None

    def __post_init__(self) -> None:
        self._inotify = _watched(self.log)
        if self._inotify is not None:
            asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._on_write, self._inotify)

    async def wait(self) -> None:
        """Wait until any connection has committed.

        Raises
        ------
        DatabaseReplacedError
            The file is not the one that was opened.
        """
        if (rest := self._next_return_at - self.clock.monotonic()) > 0:  # the commits of a busy moment are one
            await self.clock.sleep(rest)
        while not self._has_changed():
            if self._inotify is None:
                await self.clock.sleep(min(LOOK_SECONDS, self._pause))
            else:
                await self._written.wait(self._pause, sleep=self.clock.sleep)
        self._next_return_at = self.clock.monotonic() + LOOK_SECONDS

    def _on_write(self, inotify: INotify) -> None:
        names = {event.name for event in inotify.read(timeout=0)}
        if self.log.name in names or "" in names:  # an event without a name: some were lost
            self._written.set()

    def _has_changed(self) -> bool:
        now, state = self.clock.monotonic(), _state(self.log)
        # The log first, the version after it: a commit in between is seen now, and a later one changes the log.
        if state != self._state:
            self._state, self._pauses = state, iter(COMMIT_PAUSES)
        elif now < self._read_at:
            return False
        self._pause = next(self._pauses, SURE_SECONDS)
        self._read_at = now + self._pause * 0.9  # a timer may be a little early
        before, self._version = self._version, self.database.data_version()
        return self._version != before

    async def close(self) -> None:
        """Stop watching the folder."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()


def _watched(log: Path) -> INotify | None:
    """Return a watch on the folder of a file; None if the system has none."""
    with suppress(ImportError, OSError):
        from inotify_simple import INotify, flags  # noqa: PLC0415 - on Linux only

        inotify = INotify()
        try:
            inotify.add_watch(log.parent, flags.MODIFY | flags.CREATE)
        except OSError:
            inotify.close()
            raise
        return inotify
    return None


def _state(log: Path) -> tuple[int, int]:
    """Return what a commit changes in the log: its size, or the time when it was written; zeros if there is no log."""
    try:
        status = log.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


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
