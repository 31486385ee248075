"""A job that follows the change feed, as docs/queries.md describes, while others write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import sqlalchemy as sa

from syncd.mirror.db.database import Database

POLL_SECONDS = 0.01
NEWER = "SELECT seq, session_id, change FROM chat_session_changes WHERE seq > ? ORDER BY seq"
Version = tuple[int, str, str]


@dataclass
class FeedReader:
    """Remembers the highest number that it has seen, and asks for higher ones only."""

    database: Database
    read: list[Version] = field(default_factory=list)
    polls: int = 0

    async def poll(self) -> None:
        last = self.read[-1][0] if self.read else 0

        def work(connection: sa.Connection) -> list[Version]:
            return [(row[0], row[1], row[2]) for row in connection.exec_driver_sql(NEWER, (last,))]

        self.read += await self.database.read(work)
        self.polls += 1

    async def follow(self) -> None:
        while True:
            await self.poll()
            await anyio.sleep(POLL_SECONDS)

    async def judge(self) -> None:
        """Compare the versions that were read one after another with the whole feed, while others may still write."""
        whole = FeedReader(self.database)
        await whole.poll()
        await self.poll()
        assert self.read[: len(whole.read)] == whole.read
        assert len({version[0] for version in self.read}) == len(self.read)


@asynccontextmanager
async def following(url: str) -> AsyncIterator[FeedReader]:
    """Follow the feed until the end of the block; then compare what was read with the whole feed."""
    async with Database(sa.make_url(url), busy_timeout=30) as database:
        reader = FeedReader(database)
        async with anyio.create_task_group() as group:
            group.start_soon(reader.follow)
            yield reader
            group.cancel_scope.cancel()
        await reader.judge()
