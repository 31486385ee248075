"""A status server of a test world, and a plain HTTP client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncd.status.metrics import Metrics
from syncd.status.server import listen, serve, url_of
from syncd.status.snapshot import DaemonIdentity, Readings
from syncd.status.wal_monitor import WalWatch
from syncd.status.watchdog import Watchdog
from tests.helpers.harness import World, world
from tests.helpers.logs import capturing_logger

PASS_INTERVAL = 300.0


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    text: str


@dataclass
class Served:
    """A world with a status server; `refused` is whether the credentials are refused."""

    world: World
    url: str
    readings: Readings
    watchdog: Watchdog
    metrics: Metrics
    credentials: dict[str, bool] = field(default_factory=lambda: {"refused": False})

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def ask(self, path: str, *, method: str = "GET", host: str | None = "localhost", **headers: str) -> Reply:
        lines = [f"{method} {path} HTTP/1.1", "Connection: close", *(f"{k}: {v}" for k, v in headers.items())]
        if host is not None:
            lines.append(f"Host: {host}")
        return await raw(self.port, "\r\n".join(lines).encode() + b"\r\n\r\n")

    async def fresh(self, path: str) -> Reply:
        """Ask past the cache."""
        self.readings.snapshot._kept = None
        self.readings.at_head._kept = None
        return await self.ask(path)


async def raw(port: int, sent: bytes) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        await writer.drain()
        got = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Reply(int(lines[0].split()[1]), headers, body.decode())


@asynccontextmanager
async def served(folder: Path, *, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Served]:
    async with world(folder, **options) as w:
        metrics, credentials = Metrics(), {"refused": False}
        watchdog = Watchdog(w.clock, 60.0, lambda: w.database.waiting)
        log = capturing_logger(w.log)
        readings = Readings(
            database=w.database,
            clock=w.clock,
            watchdog=watchdog,
            wal=WalWatch(database=w.database, clock=w.clock, log=log),
            refused=lambda: credentials["refused"],
            unreachable=lambda: None,
            pass_interval=PASS_INTERVAL,
            identity=DaemonIdentity(
                version="1.2.3",
                origin="https://albert.test",
                tenant=lambda: "TEN1",
                host="host-1",
                database=str(w.database.url),
                started_at=w.clock.now(),
                leads=lambda: True,
            ),
        )
        listener = listen(host, 0)
        url = url_of(listener)
        async with serve(readings, metrics, listener, host):
            yield Served(w, url, readings, watchdog, metrics, credentials)
        await readings.aclose()
