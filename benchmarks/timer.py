"""What a contender took: CPU of all its threads, wall, peak memory."""

from __future__ import annotations

import resource
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

RSS_UNIT = 1024 if sys.platform == "linux" else 1024 * 1024
"""`ru_maxrss` in an MB: it counts kilobytes on Linux, bytes on macOS."""


@dataclass
class Timer:
    """Takes what happens between `start` and `stop`; `facts` is what else the contender wants to tell."""

    facts: dict[str, Any] = field(default_factory=dict)
    cpu: float = 0.0
    wall: float = 0.0

    def start(self) -> None:
        """Begin."""
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        """End."""
        self.cpu, self.wall = time.process_time() - self.cpu, time.perf_counter() - self.wall

    def result(self) -> dict[str, Any]:
        """Return all of it: seconds, and MB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / RSS_UNIT
        return {"cpu": self.cpu, "wall": self.wall, "rss": peak, **self.facts}


def thread_seconds() -> dict[str, float]:
    """Return the CPU seconds of each thread that Python knows of, by its name."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }
