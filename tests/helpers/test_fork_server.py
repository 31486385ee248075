"""Commands of the fork server are processes like those that a user starts."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio
import pytest

from tests.helpers import fork_server
from tests.helpers.programs import environment
from tests.processes.helpers import eventually

ROWS = b"source_session_id,name\ncrm-1,N\xc3\xa4me\n"


@pytest.mark.slow
async def test_command_reads_writes_and_ends_as_in_an_interpreter_of_its_own(tmp_path: Path) -> None:
    env = environment(tmp_path)
    (tmp_path / "wrong.csv").write_text("a,b\n")
    for line in ("enqueue import -", "enqueue import wrong.csv", "operations show 1 --json"):
        arguments = line.split()
        command = [sys.executable, "-m", "syncd", *arguments]
        started = await anyio.run_process(command, env=env, cwd=tmp_path, input=ROWS, check=False)
        if arguments[-1] == "-":
            (tmp_path / "syncd.db").unlink()
        forked = await fork_server.run(arguments, environment=env, folder=tmp_path, given=ROWS)
        assert (forked.returncode, forked.stderr) == (started.returncode, started.stderr)
        assert len(forked.stdout) == len(started.stdout)  # times differ


@pytest.mark.slow
async def test_started_process_is_the_command_in_its_folder(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    arguments = ["sandbox", "--port", "0", "--sessions", "1"]
    process = await fork_server.start(arguments, environment=environment(tmp_path), folder=tmp_path, out=out, err=err)
    await eventually(out.read_text)
    assert process.returncode is None
    assert Path(f"/proc/{process.pid}/cwd").readlink() == tmp_path
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    await process.aclose()


@pytest.mark.slow
async def test_constant_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    for name, code in (("syncd.opening.COMMAND_BUSY_TIMEOUT", 0), ("syncd.opening.NO_SUCH_CONSTANT", 1)):
        done = await fork_server.run(
            ["--version"], environment=environment(tmp_path), folder=tmp_path, constants={name: 1.0}
        )
        assert done.returncode == code, done.stderr
