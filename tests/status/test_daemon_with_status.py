"""The daemon as a process, with its status server: ports, healthcheck, credentials, and one stalled loop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from syncd.aio import gather
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.sandbox import Sandbox, serve
from tests.status.helpers import Reply, send_bytes

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Program:
    """`syncd run`, and the events that it logs."""

    process: Process
    events: list[dict[str, Any]]
    environment: dict[str, str]
    port: int

    async def until(self, event: str) -> dict[str, Any]:
        with anyio.fail_after(30):
            while True:
                for entry in self.events:
                    if entry["event"] == event:
                        return entry
                await anyio.sleep(0.02)

    async def get(self, path: str) -> Reply:
        return await send_bytes(
            self.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )

    async def syncd(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
        environment = {**self.environment, **changes}
        return await anyio.run_process([sys.executable, "-m", "syncd", *arguments], check=False, env=environment)


@asynccontextmanager
async def running(folder: Path, server: Sandbox, port: int, **settings: str) -> AsyncIterator[Program]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SYNCD_", "ALBERT_"))},
        "PYTHONPATH": str(ROOT),
        "ALBERT_BASE_URL": server.url or "",
        "ALBERT_TOKEN": server.token,
        "SYNCD_DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'syncd.db'}",
        "SYNCD_PASS_INTERVAL": "0.2",
        "SYNCD_STATUS_PORT": str(port),
        **settings,
    }
    events: list[dict[str, Any]] = []
    async with (
        await anyio.open_process([sys.executable, "-m", "syncd", "run"], env=environment, stderr=None) as process,
        anyio.create_task_group() as group,
    ):

        async def listen() -> None:
            rest = ""
            assert process.stdout is not None
            async for text in TextReceiveStream(process.stdout):
                *lines, rest = (rest + text).split("\n")
                events.extend(json.loads(line) for line in lines)

        group.start_soon(listen)
        try:
            yield Program(process, events, environment, port)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
        group.cancel_scope.cancel()


async def test_daemon_serves_its_status_and_is_found_healthy(tmp_path: Path) -> None:
    async with serve(Sandbox(30)) as server, running(tmp_path, server, free_port()) as program:
        await program.until("pass.complete")
        assert (await program.get("/livez")).status == 200
        assert (await program.get("/readyz")).status == 200
        with anyio.fail_after(10):
            while "Fresh" not in (await program.get("/")).text:  # one reading serves all who ask within a second
                pass
        metrics = (await program.get("/metrics")).text
        assert 'syncd_requests_total{method="GET",outcome="2xx"}' in metrics
        assert 'syncd_sessions{state="live"} 30.0' in metrics
        assert server.token not in metrics
        healthy = await program.syncd("healthcheck")
        assert (healthy.returncode, healthy.stdout) == (0, b"ok\n")
        (tmp_path / "link").symlink_to(tmp_path)
        linked = await program.syncd("healthcheck", SYNCD_DATABASE_URL=f"sqlite:///{tmp_path / 'link' / 'syncd.db'}")
        assert (linked.returncode, linked.stdout) == (0, b"ok\n")
        other = await program.syncd("healthcheck", SYNCD_DATABASE_URL=f"sqlite:///{tmp_path / 'other.db'}")
        assert (other.returncode, other.stdout) == (1, b"")
        place, files = f"127.0.0.1:{program.port}", (tmp_path / "syncd.db", tmp_path / "other.db")
        assert f"the daemon on {place} has another database open: {files[0]}, not {files[1]};" in other.stderr.decode()
        unknown = await program.syncd("healthcheck", SYNCD_DATABASE_URL="")  # known to the daemon alone
        assert (unknown.returncode, unknown.stdout) == (0, b"ok\n")
        program.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(10):
            assert await program.process.wait() == 0
        gone = await program.syncd("healthcheck")
        assert gone.returncode == 1
        assert b"check whether syncd run is running" in gone.stderr
        assert b"Traceback" not in gone.stderr


async def test_refused_credentials_are_not_ready_and_alive(tmp_path: Path) -> None:
    async with serve(Sandbox(3)) as server, running(tmp_path, server, free_port(), ALBERT_TOKEN="wrong") as program:
        await program.until("pass.failed")
        ready = await program.get("/readyz")
        assert (ready.status, "credentials" in ready.text) == (503, True)
        assert (await program.get("/livez")).status == 200
        assert "syncd_credentials_refused 1.0" in (await program.get("/metrics")).text


async def test_daemon_that_waits_for_its_database_at_the_start_is_alive_and_says_what_it_waits_for(
    tmp_path: Path,
) -> None:
    file, port = tmp_path / "syncd.db", free_port()
    async with serve(Sandbox(3)) as server:
        async with running(tmp_path, server, port) as program:
            await program.until("pass.complete")
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with running(tmp_path, server, port) as program:
                await program.until("database.waiting")
                assert (await program.get("/livez")).status == 200
                ready = await program.get("/readyz")
                assert (ready.status, "is starting" in ready.text) == (503, True)
                document = await program.get("/status.json")
                state = json.loads(document.text)
                assert (document.status, state["healthy"]) == (503, False)
                assert [problem["code"] for problem in state["problems"]] == ["database_unreadable", "database_waiting"]
                assert "locked" in state["problems"][1]["text"]
                assert (await program.get("/metrics")).status == 503
                assert "What to do" in (await program.get("/")).text
                healthy, status = await program.syncd("healthcheck"), await program.syncd("status")
                assert (healthy.returncode, status.returncode) == (0, 1)
                assert b"is starting and has not opened its database yet" in status.stdout
                other.execute("ROLLBACK")
                await program.until("pass.complete")
                assert (await program.get("/readyz")).status == 200
                assert len([event for event in program.events if event["event"] == "status.listening"]) == 1


async def test_daemon_that_hangs_is_a_problem_for_status_and_doctor(tmp_path: Path) -> None:
    async with serve(Sandbox(3)) as server, running(tmp_path, server, free_port()) as program:
        await program.until("pass.complete")
        program.process.send_signal(signal.SIGSTOP)
        status, doctor = await gather(lambda command: program.syncd(command, "--json"), ("status", "doctor"), at_once=2)
        assert (status.returncode, doctor.returncode) == (1, 1)
        (problem,) = json.loads(status.stdout)["problems"]
        assert problem["code"] == "daemon_silent"
        assert "accepts connections and does not answer within 4 s" in problem["text"]
        # the database is bad too if the process was stopped inside of a transaction
        (daemon,) = (finding for finding in json.loads(doctor.stdout) if finding["check"] == "daemon")
        assert (daemon["verdict"], daemon["detail"]) == ("bad", f"daemon_silent: {problem['text']}")


async def test_chosen_port_that_is_taken_ends_the_daemon_with_2_before_a_database_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with serve(Sandbox(3)) as server, running(tmp_path, server, port) as program:
            with anyio.fail_after(30):
                assert await program.process.wait() == 2
            assert not server.requests
            assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", ["0"])
async def test_healthcheck_without_a_status_server_is_a_usage_error(tmp_path: Path, port: str) -> None:
    async with serve(Sandbox(3)) as server, running(tmp_path, server, 0, SYNCD_STATUS_PORT=port) as program:
        await program.until("pass.complete")
        assert not [event for event in program.events if event["event"].startswith("status.")]
        asked = await program.syncd("healthcheck")
        assert asked.returncode == 2
        assert b"SYNCD_STATUS_PORT is 0" in asked.stderr
