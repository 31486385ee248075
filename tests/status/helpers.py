"""A status server of a test harness, and a plain HTTP client for it."""

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
from tests.helpers.harness import Harness, open_harness
from tests.helpers.logs import capturing_logger

PASS_INTERVAL = 300.0


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    text: str


@dataclass
class Served:
    """A harness with a status server; `refused` is whether the credentials are refused."""

    harness: Harness
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
        return await send_bytes(self.port, "\r\n".join(lines).encode() + b"\r\n\r\n")

    async def fresh(self, path: str) -> Reply:
        """Ask past the cache."""
        self.readings.snapshot._kept = None
        self.readings.at_head._kept = None
        return await self.ask(path)


async def send_bytes(port: int, sent: bytes) -> Reply:
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
    async with open_harness(folder, **options) as harness:
        metrics, credentials = Metrics(), {"refused": False}
        watchdog = Watchdog(harness.clock, 60.0, lambda: harness.database.waiting)
        log = capturing_logger(harness.log)
        readings = Readings(
            database=harness.database,
            clock=harness.clock,
            watchdog=watchdog,
            wal=WalWatch(database=harness.database, clock=harness.clock, log=log),
            refused=lambda: credentials["refused"],
            unreachable=lambda: None,
            pass_interval=PASS_INTERVAL,
            identity=DaemonIdentity(
                version="1.2.3",
                origin="https://albert.test",
                tenant=lambda: "TEN1",
                host="host-1",
                database=str(harness.database.url),
                started_at=harness.clock.now(),
                leads=lambda: True,
            ),
        )
        listener = listen(host, 0)
        url = url_of(listener)
        async with serve(readings, metrics, listener, host):
            yield Served(harness, url, readings, watchdog, metrics, credentials)
        await readings.aclose()
