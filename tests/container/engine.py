"""The engine that `run.sh` has set up, and its commands."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "syncd"
IN_AN_ENGINE = [
    pytest.mark.skipif(
        os.environ.get("SYNCD_TEST_CONTAINER") != "1", reason="no engine was set up; make image-test does it"
    ),
    pytest.mark.timeout(300),
]


def docker(*arguments: str) -> str:
    """Run one command of Docker's and return what it printed."""
    return run("docker", *arguments)


def run(*command: str, folder: Path | None = None, given: str = "") -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.strip()


def run_redirected(*command: str, folder: Path, source: str | None = None, target: str | None = None) -> str:
    """Run a command whose standard input or output is a file, as a shell does; return the rest of its output."""
    with ExitStack() as stack:
        given = stack.enter_context((folder / source).open("rb")) if source is not None else subprocess.DEVNULL
        written = stack.enter_context((folder / target).open("wb")) if target is not None else subprocess.PIPE
        done = subprocess.run(command, cwd=folder, stdin=given, stdout=written, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return (done.stdout or b"").decode().strip()


def until(look: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something outside of this process; there is nothing to be woken by."""
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.2)


def succeeds(*arguments: str) -> bool:
    """Tell whether a command of Docker's ends well."""
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0
