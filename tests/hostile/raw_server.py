"""A server on a raw socket that answers with the bytes a test gives."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from structlog.testing import LogCapture

from syncd.albert import AsyncAlbertSession, ChatSessionCollection
from syncd.clock import SystemClock
from syncd.lookups import Lookups
from syncd.mirror.db.database import Database
from syncd.mirror.schema import migrate
from syncd.mirror.store import operation_views, operations
from syncd.pull.flow import PassOutcome, Pull, PullSettings
from syncd.push.flow import Push, PushSettings
from syncd.push.record import RetryPolicy
from syncd.rules.deletion import Guard
from syncd.rules.retry import Backoff
from syncd.witness import Witness
from tests.helpers.logs import capturing_logger

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] | None
"""Bytes to send as they are and close, a function of the writer, or None for a reset without an answer."""

LIMIT = 1 << 20
BY_ID = re.compile(r"GET /api/v3/chats/sessions/([^/? ]+) ")
AT_ONCE = Backoff(0, 0)


def http(body: bytes, *, status: str = "200 OK", length: int | None = None, headers: str = "") -> bytes:
    """Write an answer; `length` is the value of Content-Length."""
    said = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += f"Content-Length: {said}\r\n{headers}\r\n"
    return head.encode() + body


def listing(*items: object, key: str | None = None) -> bytes:
    """Write a good page."""
    return http(json.dumps({"Items": items, "lastKey": key}).encode())


def item(session_id: str, **more: object) -> dict[str, object]:
    """Make a session."""
    return {"id": session_id, "name": f"name of {session_id}", "sourceSessionId": f"s-{session_id}", **more}


@dataclass
class RawServer:
    """Answers requests in turn; the last answer is repeated.

    `by_id` answers each request for one session by its id instead, with a 404 for others, so that a pass gets as far as
    its listing.
    """

    answers: list[Answer] = field(default_factory=list)
    by_id: dict[str, bytes] | None = None
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    by_line: Callable[[str], Answer] | None = None
    url: str = ""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    handlers: list[asyncio.Task[None]] = field(default_factory=list)

    def asked(self, method: str) -> int:
        """Return how many requests of a method came."""
        return sum(line.startswith(f"{method} ") for line, _ in self.requests)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accept a connection, and keep its writer and its task."""
        self.writers.append(writer)
        self.handlers.append(asyncio.create_task(self.handle(reader, writer)))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, answer it, and close."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.split(b"\r\n")[0].decode()
            length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-l")), 0)
            self.requests.append((line, head + await reader.readexactly(length)))
            answer: Answer
            if self.by_id is not None and (match := BY_ID.match(line)):
                answer = self.by_id.get(match[1], http(b"{}", status="404 Not Found"))
            elif self.by_line is not None:
                answer = self.by_line(line)
            else:
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is None:
                writer.transport.abort()
                return
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer)
                await writer.drain()
        with suppress(ConnectionError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def serve_raw(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Serve on loopback."""
    raw = RawServer(list(answers))
    server = await asyncio.start_server(raw.accept, "127.0.0.1", 0, ssl=tls, limit=1 << 22)
    port = server.sockets[0].getsockname()[1]
    raw.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    try:
        yield raw
    finally:
        server.close()
        for writer in raw.writers:
            writer.transport.abort()
        for handler in raw.handlers:
            handler.cancel()
        await asyncio.gather(*raw.handlers, return_exceptions=True)
        await asyncio.sleep(0)


@dataclass
class Rig:
    """A mirror, and the client of a hostile server."""

    database: Database
    session: AsyncAlbertSession
    log: LogCapture

    @property
    def albert(self) -> ChatSessionCollection:
        return ChatSessionCollection(session=self.session)

    def _lookups(self) -> Lookups:
        log, clock = capturing_logger(self.log), SystemClock()
        witness = Witness(database=self.database, albert=self.albert, clock=clock, log=log)
        return Lookups(albert=self.albert, clock=clock, witness=witness)

    async def one_pass(self, **changes: Any) -> PassOutcome:
        guard = Guard(grace=0, confirmations=1, max_count=0, max_fraction=0)
        settings = PullSettings(max_pages=50, max_seconds=60, backoff=AT_ONCE, guard=guard, settle=60, **changes)
        log = capturing_logger(self.log)
        return await Pull(
            database=self.database, lookups=self._lookups(), clock=SystemClock(), settings=settings, log=log
        ).run()

    async def one_create(self) -> dict[str, Any]:
        """Queue a create, work the queue once, and return the operation."""
        row = {"kind": "create", "source_session_id": "s", "name": "n"}
        (number,) = await self.database.write(lambda c: operations.enqueue(c, [row]))
        settings = PushSettings(
            concurrency=1, lease=60, retry_policy=RetryPolicy(max_attempts=3, backoff=Backoff(3600, 3600), settle=3600)
        )
        log, clock = capturing_logger(self.log), SystemClock()
        push = Push(
            database=self.database, lookups=self._lookups(), clock=clock, settings=settings, jitter=lambda: 1.0, log=log
        )
        await push.drain()
        operation = await self.database.read(lambda c: operation_views.get(c, number))
        assert operation is not None
        return dict(operation)

    async def sql(self, statement: str) -> list[Any]:
        return await self.database.read(lambda c: list(c.exec_driver_sql(statement)))


@asynccontextmanager
async def rig(
    folder: Path,
    url: str,
    *,
    timeout: float = 5.0,  # noqa: ASYNC109 - the client's
    **options: Any,
) -> AsyncIterator[Rig]:
    """Make a mirror in a folder and a session to a server; bodies are bounded to a megabyte."""
    options.setdefault("max_response_bytes", LIMIT)
    async with (
        Database.create(sa.make_url(f"sqlite+aiosqlite:///{folder / 'syncd.db'}"), busy_timeout=5) as database,
        AsyncAlbertSession(base_url=url, token="a-token", timeout=timeout, **options) as session,
    ):
        await database.write(migrate.migrate)
        yield Rig(database, session, LogCapture())
