"""What a contender took: CPU of all its threads and of the database server that it used, wall, peak memory."""

from __future__ import annotations

import os
import resource
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WATCHED = "BENCH_POSTMASTER"
"""The environment's name for the process of the PostgreSQL that contenders use."""


@dataclass
class Timer:
    """Takes what happens between `start` and `stop`; `facts` is what else the contender wants to tell."""

    facts: dict[str, Any] = field(default_factory=dict)
    cpu: float = 0.0
    server: float = 0.0
    wall: float = 0.0

    def start(self) -> None:
        """Begin."""
        self.server = server_seconds()
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        """End."""
        self.cpu, self.wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        self.server = server_seconds() - self.server

    def result(self) -> dict[str, Any]:
        """Return all of it: seconds, and MB."""
        return {"cpu": self.cpu, "wall": self.wall, "rss": peak_rss(), "server": self.server, **self.facts}


def peak_rss() -> float:
    """Return the most memory that this process had at once, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would be at least what the parent had when it started this process
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024


def server_seconds() -> float:
    """Return the CPU seconds of the PostgreSQL that is watched, with all of its processes; 0 when there is none."""
    if WATCHED not in os.environ:
        return 0.0
    parent = int(os.environ[WATCHED])
    # its own, those of processes that have ended, and those of the others: utime, stime, cutime, cstime of proc(5)
    ticks = sum(_ticks(parent)) + sum(sum(_ticks(child)[:2]) for child in _children(parent))
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]
    except OSError:  # it has just ended
        return [0]


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def thread_seconds() -> dict[str, float]:
    """Return the CPU seconds of each thread that Python knows of, by its name."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }
