"""syncd as its user runs it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers import fork_server

ROOT = Path(__file__).parents[2]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment for a syncd whose mirror is in a folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SYNCD_", "ALBERT_", "COV"))}
    return {
        **inherited, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default",
        "SYNCD_DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'syncd.db'}", **more,
    }  # fmt: skip


def syncd(folder: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; where a PYTHONPATH is given, in an interpreter that imports everything for it."""
    argv, env = [*map(str, arguments)], environment(folder, **more)
    if "PYTHONPATH" in more:
        command = [sys.executable, "-m", "syncd", *argv]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=50)
    done = fork_server.run_blocking(argv, environment=env, folder=folder)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def start(folder: Path, *arguments: object, **more: str) -> subprocess.Popen[str]:
    """Start a command without waiting for its end; its output is a pipe."""
    command = [sys.executable, "-m", "syncd", *map(str, arguments)]
    options: dict[str, Any] = {"cwd": folder, "env": environment(folder, **more), "text": True}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def without(folder: Path, module: str) -> str:
    """Return a PYTHONPATH on which a module cannot be imported, as where an extra is not installed."""
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}')\n")
    return f"{hidden}{os.pathsep}{ROOT}"
