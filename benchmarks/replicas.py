"""Measures operations a second of 1, 2 and 4 daemons on one PostgreSQL, against one stand-in for Albert.

`python -m benchmarks.replicas [OPERATIONS] [LATENCY] [ROUNDS]`: it starts a durable PostgreSQL, runs the sandbox in
this process, and the daemons in processes of their own. The time is measured from the first effect to the last. Prints
one line for each round, with the load of the machine, because all processes share its cores. At the end it prints a
table of medians. Then it kills the leader in the middle of a pass several times, and prints the time until another one
leads, and the number of lost rows.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from syncd.sandbox import Habits, Sandbox, serve
from tests.helpers.postgres_server import PostgresServer, in_thread
from tests.helpers.replicas import running_replicas, until

PROCESSES = (1, 2, 4)


async def measure(postgres: PostgresServer, processes: int, count: int, latency: float) -> float:
    """Return operations a second."""
    server = Sandbox(habits=Habits(latency=latency), record_requests=False)
    url = postgres.url(await in_thread(postgres.fresh))
    with tempfile.TemporaryDirectory() as folder:
        async with serve(server), running_replicas(Path(folder), server, url) as replicas:
            await replicas.started(processes)
            await replicas.queue_operations(count)
            await replicas.drained(seconds=600)
            await replicas.judge(count)
    return count / (server.effects[-1].at - server.effects[0].at)


async def measure_takeover(postgres: PostgresServer) -> tuple[float, float, int]:
    """Kill the leader in the middle of a pass; return the seconds until another leads and until the pass is complete.

    Returns
    -------
    tuple[float, float, int]
        Both times, and the number of sessions that are missing from the mirror.
    """
    server = Sandbox(2000, habits=Habits(page_size=20, latency=0.02), record_requests=False)
    url = postgres.url(await in_thread(postgres.fresh))
    with tempfile.TemporaryDirectory() as folder:
        async with serve(server), running_replicas(Path(folder), server, url) as replicas:
            await replicas.started(2)
            await until(lambda: any(process.leads for process in replicas.processes), why="a leader")
            (leader,) = [process for process in replicas.processes if process.leads]
            (other,) = [process for process in replicas.processes if process is not leader]
            await until(lambda: sum(event["event"] == "page.mirrored" for event in leader.events) >= 10, why="pages")
            leader.kill()
            killed = time.monotonic()
            await until(lambda: other.leads, why="another leader")
            led = time.monotonic() - killed
            await until(lambda: other.saw("pass.complete"), why="the pass")
            done = time.monotonic() - killed
            rows = await replicas.database.read(
                lambda c: c.exec_driver_sql("SELECT id FROM chat_sessions").scalars().all()
            )
    return led, done, len(server.live().keys() - set(rows))


def main() -> None:
    """Measure rounds of each, interleaved."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    latency = float(sys.argv[2]) if len(sys.argv) > 2 else 0.02
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    rates: dict[int, list[float]] = {processes: [] for processes in PROCESSES}
    postgres = PostgresServer()
    postgres.start()
    try:
        for number in range(rounds):
            for processes in PROCESSES:
                began = time.monotonic()
                rates[processes].append(asyncio.run(measure(postgres, processes, count, latency)))
                took, load = time.monotonic() - began, os.getloadavg()[0]
                speed = f"{rates[processes][-1]:.0f} operations a second"
                print(f"round {number + 1}, {processes} processes: {speed} (load {load:.1f}, {took:.0f} s)", flush=True)
        print(f"\n| processes | operations a second, median of {rounds} rounds of {count} | slowest | fastest |")
        print("| --- | --- | --- | --- |")
        for processes, speeds in rates.items():
            print(f"| {processes} | {median(speeds):.0f} | {min(speeds):.0f} | {max(speeds):.0f} |")
        for _ in range(rounds):
            led, done, lacking = asyncio.run(measure_takeover(postgres))
            print(
                f"leader killed: another after {led:.1f} s, its pass complete after {done:.1f} s, {lacking} rows lost"
            )
    finally:
        postgres.remove()


if __name__ == "__main__":
    main()
