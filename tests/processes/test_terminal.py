"""On a terminal: progress while long work runs, readable logs, and neither in the other's way."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import anyio.to_thread

from syncd.sandbox import Sandbox, serve
from tests.processes.helpers import COMMAND, Syncd, bare_environment

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(
    arguments: list[str], environment: dict[str, str], folder: Path, out: Path | None = None
) -> tuple[int, str]:
    """Run a command with a terminal for its streams; return its exit code and what the terminal got.

    Standard output goes to a file when one is given.
    """
    ours, theirs = pty.openpty()
    with ExitStack() as stack:
        stdout = stack.enter_context(out.open("wb")) if out is not None else theirs
        process = stack.enter_context(
            subprocess.Popen(
                [*COMMAND, *arguments], env={**environment, "TERM": "xterm", "COLUMNS": "120"}, cwd=folder,
                stdin=theirs, stdout=stdout, stderr=theirs,
            )
        )  # fmt: skip
        os.close(theirs)
        got = b""
        while piece := read(ours):
            got += piece
        os.close(ours)
        return process.wait(30), got.decode()


def read(terminal: int) -> bytes:
    """Read what there is; nothing when the other side is closed, which Linux calls an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


async def test_once_shows_progress_and_readable_logs_on_lines_of_their_own(syncd: Syncd) -> None:
    syncd.sandbox.habits.latency = 0.2
    code, got = await anyio.to_thread.run_sync(on_terminal, ["once"], syncd.environment, syncd.folder)
    assert code == 0, got
    plain = CONTROL.sub("", got)
    assert "sessions" in plain
    assert "{" not in plain
    lines = [line.rpartition("\r")[2] for line in plain.replace("\r\n", "\n").split("\n")]
    for event in ("pass.started", "pass.complete"):
        (line,) = [line for line in lines if event in line]
        assert re.match(r"\s*\d{4}-\d\d-\d\dT", line), line


async def test_log_follows_a_redirection_of_the_shell_while_progress_stays_on_the_terminal(
    syncd: Syncd,
) -> None:
    syncd.sandbox.habits.latency = 0.2
    log = syncd.folder / "log.jsonl"
    code, got = await anyio.to_thread.run_sync(on_terminal, ["once"], syncd.environment, syncd.folder, log)
    assert code == 0
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    pages = ["page.mirrored"] * 3
    assert events == ["tenant.pinned", "database.opened", "pass.started", *pages, "pass.complete", "folders.mirrored"]
    assert "sessions" in got
    assert not any(event in got for event in events)


async def test_import_and_demo_show_progress_and_leave_no_bar_behind(syncd: Syncd) -> None:
    rows = "source_session_id,name\n" + "".join(f"s{number},N\n" for number in range(5000))
    (syncd.folder / "rows.csv").write_text(rows)
    code, got = await anyio.to_thread.run_sync(
        on_terminal, ["enqueue", "import", "rows.csv"], syncd.environment, syncd.folder
    )
    assert code == 0
    assert "queueing" in got
    assert CONTROL.sub("", got).rstrip().endswith("queued 5,000 operations")

    code, got = await anyio.to_thread.run_sync(
        on_terminal, ["demo", "--sessions", "500"], bare_environment(), syncd.folder
    )
    assert code == 0
    assert "sessions" in got
    assert "agree." in CONTROL.sub("", got)


async def test_pipe_gets_no_control_characters(tmp_path: Path) -> None:
    async with serve(Sandbox(10)) as server:
        environment = bare_environment(ALBERT_BASE_URL=server.url, ALBERT_TOKEN=server.token)
        ended = await Syncd(tmp_path, server, environment).call("once", SYNCD_LOG_FORMAT="console")
    assert ended.code == 0
    assert "\x1b" not in ended.out + ended.err
