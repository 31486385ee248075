"""Replicas that start in a moment: one process has imported syncd already, and forks a daemon for each line it reads.

Where a replica is killed every second, new processes would take more CPU than two cores have, and no replica would
work. A line is a JSON object, `environment` and `out`; the answer is the new process's id. The daemons end with this
process.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
MODULES = (
    "alembic.command", "anyio._backends._asyncio", "asyncpg", "sqlalchemy.dialects.postgresql.asyncpg", "syncd.app",
    "syncd.cli.daemon", "syncd.daemon.loops", "syncd.status.metrics", "syncd.status.server",
)  # fmt: skip


def start(environment: dict[str, str], out: str) -> None:
    """Run `syncd run` in a process that was just forked."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), target)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()  # or all of them would wait the same "random" times
    sys.argv = ["syncd", "run"]
    from syncd.cli import main  # noqa: PLC0415 - imported before the fork

    main()


def serve() -> None:
    """Fork a daemon for each line, until the lines end."""
    for name in MODULES:
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children leave no zombies
    answers = os.fdopen(os.dup(1), "w")
    for line in iter(sys.stdin.readline, ""):
        wanted = json.loads(line)
        Path(wanted["out"]).touch()
        process = os.fork()
        if process == 0:
            answers.close()
            start(wanted["environment"], wanted["out"])
        print(process, file=answers, flush=True)


if __name__ == "__main__":
    serve()
