"""A TCP proxy in front of PostgreSQL that cuts connections at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes bytes on; `cut_commits` connections are cut right after a COMMIT went through, before its answer.

    With `instead`, a COMMIT that is to be cut is not passed on, and the function is called in its place. While `hears`
    is not set nothing passes, and `held` shows that data was held back.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.cut_commits = 0
        self.cuts = 0
        self.instead: Callable[[], Awaitable[None]] | None = None
        self.hears, self.held = asyncio.Event(), asyncio.Event()
        self.hears.set()
        self.tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        cutting = asyncio.Event()
        answers = asyncio.create_task(self._answers(server_reader, writer, cutting))
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    if not self.hears.is_set():
                        self.held.set()
                        await self.hears.wait()
                    if b"COMMIT;" in data and self.cut_commits:  # and not "READ COMMITTED"
                        self.cut_commits -= 1
                        self.cuts += 1
                        cutting.set()
                        if self.instead is not None:
                            await self.instead()
                            break
                    server_writer.write(data)
                    await server_writer.drain()
                    if cutting.is_set():
                        await answers
                        break
        finally:  # also of one that is cancelled when the test is over
            answers.cancel()
            writer.transport.abort()
            server_writer.transport.abort()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cutting: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while (data := await reader.read(65536)) and not cutting.is_set():  # an answer: the server has committed
                writer.write(data)
                await writer.drain()
            writer.transport.abort()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy for the server on a port."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(proxy.tasks):
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)
