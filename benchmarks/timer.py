"""Measures a contender: CPU of all threads and of its database server, wall time, peak memory."""

from __future__ import annotations

import os
import resource
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WATCHED = "BENCH_POSTMASTER"
"""The environment variable with the process id of the PostgreSQL that contenders use."""


@dataclass
class Timer:
    """Measures the work between `start` and `stop`; `facts` has further results of the contender."""

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
        """Return all measurements, in seconds and MB."""
        return {"cpu": self.cpu, "wall": self.wall, "rss": peak_rss(), "server": self.server, **self.facts}


def peak_rss() -> float:
    """Return the peak memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would be at least what the parent had when it started this process
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024


def server_seconds() -> float:
    """Return the CPU seconds of all processes of the measured PostgreSQL; 0 without one."""
    if WATCHED not in os.environ:
        return 0.0
    parent = int(os.environ[WATCHED])
    # its own, those of processes that have ended, and those of the others: utime, stime, cutime, cstime of proc(5)
    ticks = sum(_ticks(parent)) + sum(sum(_ticks(child)[:2]) for child in _children(parent))
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]
    except OSError:  # the process has just ended
        return [0]


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def thread_seconds() -> dict[str, float]:
    """Return the CPU seconds of each thread of Python, by its name."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }
