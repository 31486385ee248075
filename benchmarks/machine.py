"""The machine: the cores of server and contenders, its description, and processes with a time limit."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from syncd.mirror.db.sqlite_module import sqlite3

ROOT = Path(__file__).resolve().parent.parent
CLIENT_CORE, SERVER_CORE = 0, 1
PACKAGES = ("httpx", "httpcore", "sniffio", "orjson", "aiohttp", "sqlalchemy", "pydantic", "msgspec")
TOKEN = "bench"
LONGEST_RUN = 3600.0
"""Seconds after which a contender is killed."""


def pin(core: int) -> None:
    """Bind this process to one core, if the system and the number of cores allow it."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


def describe(folder: Path) -> dict[str, Any]:
    """Describe the properties of the machine that affect the figures."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) // 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_mb": memory,
        "system": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem(folder),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _filesystem(folder: Path) -> str:
    mounts = [line.split()[1:3] for line in _lines("/proc/mounts")]
    inside = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(inside, key=lambda mount: len(mount[0]))[1] if inside else "unknown"


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


def load_average() -> list[float]:
    """Return the load of the machine over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a contender: this one without the settings of syncd."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("SYNCD_", "ALBERT_"))}
    return {**ours, "PYTHONPATH": str(ROOT), **more}


class ServerHandle:
    """A server that runs in a process of its own."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def _get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def set(self, **listing: float) -> None:
        """Set the listing to serve (`server.Listing`) and reset the counts."""
        self._get(f"/bench/set?{urlencode(listing)}")

    def counts(self) -> dict[str, int]:
        """Return the counts of requests since the last `set`."""
        return dict(self._get("/bench/counts"))

    def arrivals(self) -> dict[str, float]:
        """Return when each source id was first looked up, in seconds of `time.monotonic`."""
        return dict(self._get("/bench/arrivals"))


@contextmanager
def serving() -> Iterator[ServerHandle]:
    """Run a server until the block ends."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    ) as process:
        assert process.stdout is not None
        try:
            yield ServerHandle(int(process.stdout.readline()))
        finally:
            process.terminate()


def contend(
    name: str,
    url: str,
    where: str,
    *,
    python: str = sys.executable,
    module: str = "benchmarks.contenders",
    **options: object,
) -> dict[str, Any]:
    """Run one contender in a process of its own, on the clients' core; return its measurements.

    Returns
    -------
    dict
        `cpu` and `wall` in seconds, `rss` (peak) in MB, and further facts of the contender.
    """
    pairs = [f"{key}={value}" for key, value in options.items()]
    command = [python, "-m", module, name, url, where, *pairs]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment(), timeout=LONGEST_RUN
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
