"""Run syncd as a process, and read its output, exit code and database."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from syncd.mirror.db.sqlite_module import sqlite3
from syncd.sandbox import Sandbox
from tests.helpers import fork_server

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "syncd")
SECRET = "canary-4f1c-do-not-print"
DEADLINE = 40.0
LOOK = 0.02


def bare_environment(**changes: str) -> dict[str, str]:
    """Return the environment of a shell that knows nothing of syncd."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", **changes}


async def eventually(look: Callable[[], Any], *, seconds: float = DEADLINE, why: str = "") -> Any:
    """Return what `look` returns as soon as that is true."""
    with anyio.move_on_after(seconds):
        while True:
            if result := look():
                return result
            await anyio.sleep(LOOK)
    raise AssertionError(f"not within {seconds} s: {why or look}")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass
class Running:
    """A command that runs."""

    process: anyio.abc.Process | fork_server.Started
    out: Path
    err: Path

    @property
    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def events(self, name: str | None = None, **facts: Any) -> list[dict[str, Any]]:
        whole = self.out.read_text().rpartition("\n")[0]
        events = [json.loads(line) for line in whole.split("\n") if line]
        return [
            event
            for event in events
            if name in (None, event["event"]) and all(event.get(key) == value for key, value in facts.items())
        ]

    async def event(self, name: str, *, seconds: float = DEADLINE, **facts: Any) -> dict[str, Any]:
        """Return the first event of this name, once it is there."""

        def look() -> list[dict[str, Any]]:
            ended = self.process.returncode
            events = self.events(name, **facts)
            if not events and ended is not None:
                raise AssertionError(f"ended with {ended}: {self.err.read_text()}{self.out.read_text()}")
            return events

        events: list[dict[str, Any]] = await eventually(look, seconds=seconds, why=f"{name} {facts}")
        return events[0]

    async def code(self, *, seconds: float = DEADLINE) -> int:
        with anyio.fail_after(seconds):
            return await self.process.wait()

    async def stop(self, *, seconds: float = DEADLINE) -> int:
        self.process.terminate()
        return await self.code(seconds=seconds)


@dataclass
class Syncd:
    """syncd in a folder of its own, towards a sandbox."""

    folder: Path
    sandbox: Sandbox
    environment: dict[str, str] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)
    """Other values of constants in each process, by their full names: intervals that a test does not wait for."""
    _started: list[Running] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "syncd.db"

    async def call(self, *arguments: str, given: bytes = b"", **changes: str) -> Done:
        """Run a command to its end."""
        with anyio.fail_after(100):
            ended = await fork_server.run(
                arguments,
                environment={**self.environment, **changes},
                folder=self.folder,
                given=given,
                constants=self.constants,
            )
        done = Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
        assert "Traceback" not in done.err + done.out, done.err
        assert SECRET not in done.err + done.out
        return done

    async def start(self, *arguments: str, **changes: str) -> Running:
        """Start a command and leave it running; it is killed at the test's end."""
        out, err = self._outputs()
        process = await fork_server.start(
            arguments,
            environment={**self.environment, **changes},
            folder=self.folder,
            out=out,
            err=err,
            constants=self.constants,
        )
        return self._add(process)

    async def start_program(self, program: Sequence[str], **changes: str) -> Running:
        """Start any program in the same way, in an interpreter of its own."""
        out, err = self._outputs()
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = await anyio.open_process(
                program, stdin=None, stdout=stdout, stderr=stderr, cwd=self.folder,
                env={**self.environment, **changes},
            )  # fmt: skip
        return self._add(process)

    def _add(self, process: anyio.abc.Process | fork_server.Started) -> Running:
        running = Running(process, *self._outputs())
        self._started.append(running)
        return running

    def _outputs(self) -> tuple[Path, Path]:
        """Name the files of the next process that is started."""
        number = len(self._started)
        return self.folder / f"out{number}.log", self.folder / f"err{number}.log"

    async def run(self, **changes: str) -> Running:
        """Start the daemon and wait until it is there."""
        running = await self.start("run", **changes)
        await running.event("daemon.started")
        return running

    def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run SQL as any other program would."""
        with closing(sqlite3.connect(self.file, timeout=5, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, parameters)]

    def rows(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run SQL that may come too early, while there are no tables yet."""
        try:
            return self.sql(statement, *parameters) if self.file.exists() else []
        except sqlite3.OperationalError:
            return []

    async def end(self) -> None:
        for running in self._started:
            if running.process.returncode is None:
                running.process.kill()
            await running.process.aclose()
            text = running.out.read_text() + running.err.read_text()
            assert SECRET not in text
            assert "Traceback" not in text, text


SOON_BUSY = {"syncd.mirror.db.sqlite.BUSY_SECONDS": 0.05}
"""A lock of another program is waited for in turns of this many seconds."""
FAST: Mapping[str, str] = {
    "SYNCD_PASS_INTERVAL": "0.3",
    "SYNCD_RECONCILE_INTERVAL": "0.3",
    "SYNCD_RETRY_BASE": "0.05",
    "SYNCD_RETRY_MAX": "0.5",
    "SYNCD_REQUEST_TIMEOUT": "5",
    "SYNCD_DELETE_GRACE": "0",
    "SYNCD_DELETE_CONFIRMATIONS": "1",
    "SYNCD_STATUS_PORT": "0",
}


@asynccontextmanager
async def at_work(folder: Path, sandbox: Sandbox) -> AsyncIterator[Syncd]:
    """Have a syncd in a folder."""
    environment = bare_environment(ALBERT_BASE_URL=sandbox.url, ALBERT_TOKEN=sandbox.token, **FAST)
    syncd = Syncd(folder, sandbox, environment)
    try:
        yield syncd
    finally:
        with anyio.CancelScope(shield=True):
            await syncd.end()
