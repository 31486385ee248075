"""The engine that `run.sh` has set up, and its commands."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
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


def docker(*words: str) -> str:
    """Run one command of Docker's and return what it printed."""
    return run("docker", *words)


def run(*words: str, folder: Path | None = None, given: str = "") -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(words, cwd=folder, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout.strip()


def until(look: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something outside of this process; there is nothing to be woken by."""
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.2)


def succeeds(*words: str) -> bool:
    """Tell whether a command of Docker's ends well."""
    return subprocess.run(["docker", *words], capture_output=True, check=False).returncode == 0
