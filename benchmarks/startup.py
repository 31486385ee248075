"""`python -m benchmarks.startup [--rounds N] [--write]`: CPU and memory of imports, of commands and of an idle daemon.

Each is a process of its own, and the round with the least CPU counts. rich is hidden: structlog imports it wherever a
development tool has installed it, and syncd does not install it. Writes `startup.json` and the part `startup` of
`docs/performance.md`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.machine import environment, load_average

IMPORTS = (
    "asyncio", "click", "pydantic", "syncd.settings", "anyio", "structlog", "sqlalchemy", "aiosqlite", "aiohttp",
    "msgspec", "prometheus_client", "syncd.albert", "syncd.mirror.schema.tables", "syncd.mirror.db.database",
    "syncd.pull.flow", "syncd.push.flow", "syncd.status.server", "syncd.app",
    "sqlalchemy.ext.asyncio", "alembic.command", "asyncpg", "httpx",
)  # fmt: skip
"""Imported in this order in one process, so each shows what it adds. `run` on SQLite does not load the last four."""
COMMANDS = (
    ("python -c pass", None),
    ("syncd --version", None),
    ("syncd status", None),
    ("syncd operations list", 0.35),
    ("syncd enqueue delete --id SES1", 0.35),
    ("syncd doctor", 0.6),
)
"""Each command with its target in seconds of CPU."""
IDLE_SECONDS, IDLE_MB = 6.0, 65
PROBE = """
import resource, sys, time
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
before, began = memory(), time.process_time()
print(f"start {before:.2f} 0")
for name in sys.argv[1:]:
    __import__(name)
    now, cpu = memory(), time.process_time()
    print(f"{name} {now - before:.2f} {1000 * (cpu - began):.1f}")
    before, began = now, cpu
"""


@contextmanager
def installation(folder: Path) -> Iterator[dict[str, str]]:
    """Give the environment of commands on a mirror in a folder, in which rich cannot be imported."""
    hidden = folder / "hidden" / "rich"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden')\n")
    made = environment()
    made["PYTHONPATH"] = f"{hidden.parent}{os.pathsep}{made['PYTHONPATH']}"
    command = [sys.executable, "-m", "syncd", "sandbox", "--sessions", "500", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=made) as sandbox:
        assert sandbox.stdout is not None
        url = next(line.strip().partition("=")[2] for line in sandbox.stdout if line.startswith("ALBERT_BASE_URL="))
        try:
            yield {**made, "ALBERT_BASE_URL": url, "ALBERT_TOKEN": "sandbox-token", "SYNCD_STATUS_PORT": "0"}
        finally:
            sandbox.terminate()


def words(command: str) -> list[str]:
    """Return the arguments of a command for this interpreter."""
    program, *rest = command.split()
    return [sys.executable, *rest] if program == "python" else [sys.executable, "-m", "syncd", *rest]


def cpu_and_memory(command: list[str], folder: Path, env: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its CPU in seconds and its peak of memory in MB."""
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def idle_memory(folder: Path, env: dict[str, str]) -> float:
    """Return the memory of `syncd run` in MB, some seconds after its start on a mirror that it knows."""
    process = subprocess.Popen(words("syncd run"), cwd=folder, env=env, stdout=subprocess.DEVNULL)
    try:
        time.sleep(IDLE_SECONDS)
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1000
    finally:
        process.terminate()
        process.wait()


def imports(rounds: int, folder: Path, env: dict[str, str]) -> dict[str, dict[str, float]]:
    """Return what each import adds: MB of memory, and the least CPU in milliseconds."""
    costs: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *IMPORTS], cwd=folder, env=env, capture_output=True, text=True, check=True
        )
        for line in done.stdout.splitlines():
            name, memory, cpu = line.split()
            least = min(float(cpu), costs.get(name, {}).get("cpu_ms", float("inf")))
            costs[name] = {"memory_mb": float(memory), "cpu_ms": least}
    return costs


def measure(rounds: int) -> dict[str, Any]:
    """Measure imports, commands and the idle daemon."""
    with tempfile.TemporaryDirectory(prefix="syncd-startup-") as made:
        folder = Path(made)
        with installation(folder) as env:
            subprocess.run(words("syncd once"), cwd=folder, env=env, stdout=subprocess.DEVNULL, check=True)
            commands = {}
            for command, _ in COMMANDS:
                taken = [cpu_and_memory(words(command), folder, env) for _ in range(rounds)]
                cpu, memory = min(taken)
                commands[command] = {"cpu_s": round(cpu, 3), "memory_mb": round(memory, 1)}
            return {
                "imports": imports(rounds, folder, env),
                "commands": commands,
                "idle_mb": round(idle_memory(folder, env), 1),
            }


def section(results: dict[str, Any]) -> str:
    """Write the tables for `docs/performance.md`."""
    targets = dict(COMMANDS)
    commands: list[tuple[str, ...]] = [("command", "CPU, s", "target", "peak memory, MB")]
    for command, took in results["commands"].items():
        target = targets.get(command)
        missed = target is not None and took["cpu_s"] > target
        cpu = f"**{took['cpu_s']:.2f}**" if missed else f"{took['cpu_s']:.2f}"
        wanted = "" if target is None else f"≤ {target:g}"
        commands.append((f"`{command}`", cpu, wanted, report.number(took["memory_mb"])))
    added: list[tuple[str, ...]] = [("import", "CPU, ms", "memory, MB")]
    for name, took in results["imports"].items():
        added.append((f"`{name}`", report.number(took["cpu_ms"]), f"{took['memory_mb']:.1f}"))
    about = (
        f"Taken {results['taken_at']}, {results['rounds']} rounds, load average before {results['load_average']}. "
        f"An idle `syncd run` has {results['idle_mb']:.0f} MB (target {IDLE_MB})."
    )
    return f"{about}\n\n{report.markdown(commands)}\n\n{report.markdown(added)}"


def main() -> None:
    """Measure, and print the results or write them to files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write startup.json and docs/performance.md")
    options = parser.parse_args()
    results = {
        "taken_at": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rounds": options.rounds,
        "load_average": load_average(),
        **measure(options.rounds),
    }
    print(section(results))
    if options.write:
        report.STARTUP.write_text(json.dumps(results, indent=1) + "\n")
        report.write()


if __name__ == "__main__":
    main()
