"""A server that sends the bytes a test gives and records each request. All client tests of this folder use it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx

from syncd.albert import AsyncAlbertSession

TOKEN = "tok-3f9c1d7e5b2a4860"

Open = Callable[..., AsyncAlbertSession]


@dataclass
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    raw_headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """The bytes of an answer; `then` says whether the connection is kept, closed or reset after them."""

    raw: bytes = b""
    then: str = "keep"


Answer = Reply | Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


def reply(status: int = 200, body: object = b"", *, then: str = "keep", **headers: str) -> Reply:
    """Build a well-formed answer; ``body`` is bytes, text or JSON, header names have _ for -."""
    text = body if isinstance(body, bytes | str) else json.dumps(body)
    content = text.encode() if isinstance(text, str) else text
    names = {"content-length": str(len(content))} | {k.replace("_", "-"): v for k, v in headers.items()}
    head = "".join(f"{k}: {v}\r\n" for k, v in names.items())
    return Reply(f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + content, then)


@dataclass
class Wire:
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    script: deque[Answer] = field(default_factory=deque)
    default: Callable[[Seen], Answer] = lambda _: reply(200, {"Items": []})
    connections: int = 0
    request_seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def arrived(self, count: int) -> None:
        """Wait until the total number of requests is `count`."""
        while len(self.seen) < count:
            self.request_seen.clear()
            await self.request_seen.wait()

    def then(self, *answers: Answer) -> None:
        self.script.extend(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        pairs = [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in head[1:] if line)]
        headers = {k.lower(): v for k, v in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(method, target, headers, pairs, body)
        self.seen.append(seen)
        self.request_seen.set()
        answer = self.script.popleft() if self.script else self.default(seen)
        if not isinstance(answer, Reply):
            await answer(seen, writer)
            return True
        writer.write(answer.raw)
        await writer.drain()
        if answer.then == "reset":
            writer.transport.abort()
        return answer.then == "keep"


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Wire]:
    wire = Wire()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await wire.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, **options)
    scheme = "https" if "ssl" in options else "http"
    wire.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def hang(_: Seen, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def plain_get(url: str) -> httpx.Response:
    """Send a request with httpx alone, to show the effect of a proxy or a redirect."""
    async with httpx.AsyncClient() as client:
        return await client.get(url)


def everything_shown(error: BaseException) -> str:
    """Return all text that a log, a traceback or a crash report could show of an error and its causes."""
    shown, todo, met = [], [error], set()
    while todo:
        each = todo.pop()
        if id(each) in met:
            continue
        met.add(id(each))
        shown += [str(each), repr(each), repr(each.args), repr(getattr(each, "__dict__", {}))]
        shown += traceback.format_exception(each)
        todo += [behind for behind in (each.__cause__, each.__context__) if behind is not None]
    return "\n".join(shown)
