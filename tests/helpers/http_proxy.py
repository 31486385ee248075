"""A small HTTP proxy on loopback: CONNECT tunnels, and requests in absolute form for plain http."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class HttpProxy:
    """A running proxy.

    Attributes
    ----------
    heads : list[str]
        The head of every request that it received.
    forwarded : bytearray
        Every byte that clients sent through it, after the head.
    answer : bytes | None
        Sent to each request instead of forwarding it; empty to close the connection.
    """

    port: int = 0
    password: str | None = None
    answer: bytes | None = None
    silent: bool = False
    heads: list[str] = field(default_factory=list)
    forwarded: bytearray = field(default_factory=bytearray)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def connects(self) -> list[str]:
        """Return the targets of the CONNECT requests."""
        return [head.split(" ")[1] for head in self.heads if head.startswith("CONNECT ")]

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            if self.silent:
                await asyncio.Event().wait()
            if (refusal := self._refusal(head)) is not None:
                writer.write(refusal)
                await writer.drain()
                return
            method, target, _ = head.split("\r\n")[0].split(" ")
            if method == "CONNECT":
                host, _, port = target.rpartition(":")
                there = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await self._tunnel(reader, writer, *there)
                return
            await self._forward(head, target, reader, writer)

    def _refusal(self, head: str) -> bytes | None:
        if self.answer is not None:
            return self.answer
        if self.password is None:
            return None
        wanted = b64encode(f"user:{self.password}".encode()).decode()
        if f"proxy-authorization: basic {wanted}".lower() in head.lower():
            return None
        return b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

    async def _tunnel(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> None:
        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, keep: bool) -> None:
            with suppress(OSError, ssl.SSLError):
                while data := await source.read(65536):
                    if keep:
                        self.forwarded += data
                    sink.write(data)
                    await sink.drain()
            sink.close()

        try:
            await asyncio.gather(pump(reader, there_writer, keep=True), pump(there_reader, writer, keep=False))
        finally:
            there_writer.transport.abort()

    async def _forward(
        self, head: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send one request on as a proxy does: in origin form, without the credentials for the proxy."""
        place, _, path = target.removeprefix("http://").partition("/")
        host, _, port = place.rpartition(":")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        kept = [line for line in lines if not line.lower().startswith("proxy-")]
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        try:
            request = "\r\n".join([f"{first.split(' ')[0]} /{path} HTTP/1.1", *kept, "", ""]).encode("latin-1")
            there_writer.write(request + await reader.readexactly(_length(head)))
            answer = await there_reader.readuntil(b"\r\n\r\n")
            writer.write(answer + await there_reader.readexactly(_length(answer.decode("latin-1"))))
            await writer.drain()
        finally:
            there_writer.transport.abort()


def _length(head: str) -> int:
    lines = head.lower().split("\r\n")
    return next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)


@asynccontextmanager
async def http_proxy(**options: Any) -> AsyncIterator[HttpProxy]:
    """Run a proxy on loopback; `tls` is the context of an https proxy."""
    tls = options.pop("tls", None)
    proxy = HttpProxy(**options)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(proxy.tasks):
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)
        await asyncio.sleep(0)


@asynccontextmanager
async def tls_front(port: int, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve TLS on loopback in front of a plain server on a port; yields the https URL."""
    front = HttpProxy()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await front._tunnel(reader, writer, *there)

    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(accept(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
