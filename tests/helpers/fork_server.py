"""Commands in processes that start within milliseconds: one process has imported syncd and forks one for each command.

Importing syncd takes most of a second of a processor, more than nearly every command. The processes differ from those
of a user in what happens before `main`: tests of the start itself, of signals and of terminals start `python -m syncd`.
Variables that the interpreter reads at its start have their effect, as each set of them has a fork server of its own.

::

    test ──(unix socket: arguments, environment, input)──► fork server ──fork──► waits ──fork──► the command
         ◄──────(process id, then exit code and both outputs)───────────────────
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NoReturn

import anyio

ROOT = Path(__file__).parents[2]
PR_SET_PDEATHSIG = 1
THIRD_PARTIES = (
    "aiosqlite", "alembic.command", "anyio._backends._asyncio", "asyncpg", "tqdm",
    "sqlalchemy.dialects.postgresql.asyncpg", "sqlalchemy.dialects.sqlite.aiosqlite", "structlog",
)  # fmt: skip
NOT_IMPORTED = ("syncd.__main__", "syncd.browse")
"""A program, and a package that needs an extra."""
READ_BY_THE_INTERPRETER = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_")
"""Beginnings of the names of variables that have an effect before `main`."""
IGNORED = frozenset({"PYTHONPATH"})
"""All that a command imports is imported, or on the path of the tests."""


def _read_at_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_BY_THE_INTERPRETER) and name not in IGNORED
    }


class ForkServer:
    """A process that forks commands, for environments that are equal for the interpreter."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.mkdtemp(prefix="syncd-fork-")
        self.path = f"{self._folder}/socket"
        kept = {**_read_at_the_start(environment), "PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.fork_server", self.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=kept,
        )  # fmt: skip
        atexit.register(self.end)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def end(self) -> None:
        """End it; it also ends with the process that started it."""
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def _server(read_at_the_start: tuple[tuple[str, str], ...]) -> ForkServer:
    return ForkServer(dict(read_at_the_start))


def server_for(environment: Mapping[str, str]) -> ForkServer:
    """Return the fork server for an environment; it is started with the first one of its kind."""
    return _server(tuple(sorted(_read_at_the_start(environment).items())))


async def run(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    given: bytes = b"",
    module: str = "syncd",
    constants: Mapping[str, float] = MappingProxyType({}),
) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m MODULE ARGUMENTS` to its end.

    Parameters
    ----------
    environment : Mapping[str, str]
        All variables of the process.
    folder : Path
        The working directory.
    given : bytes
        What its standard input holds.
    module : str
        `syncd`, or a module with a function `main`.
    constants : Mapping[str, float]
        Other values of constants, by their full names: intervals that a test does not wait for.
    """
    server = await anyio.to_thread.run_sync(server_for, environment)
    request = _request(arguments, environment, folder, constants, given=given.decode("latin-1"), module=module)
    async with await anyio.connect_unix(server.path) as stream:
        await stream.send(request)
        _, answer = b"".join([chunk async for chunk in stream]).splitlines()
    return _completed(arguments, answer)


def run_blocking(
    arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[bytes]:
    """Do the same as `run`, in a test that has no event loop."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(50)
        connection.connect(server_for(environment).path)
        connection.sendall(_request(arguments, environment, folder, {}))
        with connection.makefile("rb") as lines:
            _, answer = lines.read().splitlines()
    return _completed(arguments, answer)


async def start(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    out: Path,
    err: Path,
    constants: Mapping[str, float] = MappingProxyType({}),
) -> Started:
    """Start a command without waiting for its end, with its outputs in files; see `run` for the other arguments."""
    server = await anyio.to_thread.run_sync(server_for, environment)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server.path)
    connection.sendall(_request(arguments, environment, folder, constants, out=str(out), err=str(err)))
    connection.settimeout(0)
    started = Started(connection)
    await started.begin()
    return started


class Started:
    """A process that was started; it has the methods of `anyio.abc.Process` that tests use."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._answer = connection, b""
        self.pid = 0

    async def begin(self) -> None:
        """Wait until the process is there."""
        while b"\n" not in self._answer:
            await anyio.wait_readable(self._connection)
            self._read()
        self.pid = int(self._answer.partition(b"\n")[0])

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            chunk = self._connection.recv(4096)
            assert chunk, "the fork server has ended"
            self._answer += chunk

    @property
    def returncode(self) -> int | None:
        """The exit code; None while the process runs."""
        if not self._answer.endswith(b"]"):
            self._read()
        return json.loads(self._answer.partition(b"\n")[2])[0] if self._answer.endswith(b"]") else None

    async def wait(self) -> int:
        """Return the exit code once there is one."""
        while (code := self.returncode) is None:
            await anyio.wait_readable(self._connection)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the process if it runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its exit code is on its way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """End the process if it still runs."""
        self.kill()
        await self.wait()
        self._connection.close()


def _completed(arguments: Sequence[str], answer: bytes) -> subprocess.CompletedProcess[bytes]:
    code, out, err = json.loads(answer)
    return subprocess.CompletedProcess([*arguments], code, out.encode("latin-1"), err.encode("latin-1"))


def _request(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    constants: Mapping[str, float],
    *,
    module: str = "syncd",
    **more: str,
) -> bytes:
    request = {
        "words": [*arguments], "environment": dict(environment), "folder": str(folder), "constants": dict(constants),
        "module": "syncd.__main__" if module == "syncd" else module, "given": "", **more,
    }  # fmt: skip
    return json.dumps(request).encode() + b"\n"


def _import_all() -> None:
    for name in THIRD_PARTIES:
        importlib.import_module(name)
    import syncd  # noqa: PLC0415 - only the server imports all of it

    for module in pkgutil.walk_packages(syncd.__path__, "syncd.", onerror=lambda _: None):
        if not module.name.startswith(NOT_IMPORTED):
            importlib.import_module(module.name)


def _die_with(parent: int) -> None:
    """End this process with the one that forked it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def serve(path: str) -> None:
    """Fork for each connection, until the standard input ends."""
    _import_all()
    gc.collect()
    gc.freeze()  # or a collection in a command would copy every page that the processes share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children leave no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        os.write(1, b"ready\n")
        parent = os.getpid()
        while True:
            readable, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in readable:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _die_with(parent)
                break
            connection.close()
    _attend(connection)


def _attend(connection: socket.socket) -> None:
    """Read a request, run its command in a process, and send its id, and at its end the exit code and what it wrote."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("rb") as lines:
        request = json.loads(lines.readline())
    parent, (reader, writer) = os.getpid(), os.pipe()
    with _output(request.get("out")) as out, _output(request.get("err")) as err:
        command = os.fork()
        if command == 0:
            connection.close()
            os.close(writer)
            _die_with(parent)
            _become(request, reader, out, err)
        os.close(reader)
        connection.sendall(b"%d\n" % command)
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as given:
            given.write(request["given"].encode("latin-1"))
        code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        answer: list[int | str] = [code]
        for output in () if "out" in request else (out, err):
            output.seek(0)
            answer.append(output.read().decode("latin-1"))
    with contextlib.suppress(OSError):  # the test has given up
        connection.sendall(json.dumps(answer).encode())
    os._exit(0)


def _output(path: str | None) -> IO[bytes]:
    return tempfile.TemporaryFile() if path is None else Path(path).open("wb")


def _become(request: dict[str, Any], given: int, out: IO[bytes], err: IO[bytes]) -> NoReturn:
    """Run as the command: with its streams, its folder, its environment and its arguments."""
    for number, target in ((given, 0), (out.fileno(), 1), (err.fileno(), 2)):
        os.dup2(number, target)
    os.close(given)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    random.seed()  # or all commands would draw the same numbers
    for name, value in request["constants"].items():
        owner = importlib.import_module(name.rpartition(".")[0])
        assert hasattr(owner, name.rpartition(".")[2]), name
        setattr(owner, name.rpartition(".")[2], value)
    module = importlib.import_module(request["module"])
    sys.argv = [str(module.__file__), *request["words"]]
    module.main()
    sys.exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
