"""What replicas bring: operations a second of 1, 2 and 4 daemons on one PostgreSQL, towards one stand-in Albert.

`python -m benchmarks.replicas [OPERATIONS] [LATENCY] [ROUNDS]`: a durable PostgreSQL of its own, the sandbox in this
process, the daemons in processes of their own; the clock runs from the first effect to the last. Prints one line a
round; the machine's load stands beside it, since all of it shares the machine's cores.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from syncd.sandbox import Habits, Sandbox, serve
from tests.postgres.replicas import fleet
from tests.postgres.server import PostgresServer, in_thread


async def measure(postgres: PostgresServer, processes: int, count: int, latency: float) -> float:
    """Return operations a second."""
    server = Sandbox(habits=Habits(latency=latency), record_requests=False)
    url = postgres.url(await in_thread(postgres.fresh))
    with tempfile.TemporaryDirectory() as folder:
        async with serve(server), fleet(Path(folder), server, url) as ships:
            await ships.started(processes)
            await ships.storm(count)
            await ships.drained(seconds=600)
            await ships.judge(count)
    return count / (server.effects[-1].at - server.effects[0].at)


def main() -> None:
    """Measure rounds of each, interleaved."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    latency = float(sys.argv[2]) if len(sys.argv) > 2 else 0.02
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    postgres = PostgresServer()
    postgres.start()
    try:
        for number in range(rounds):
            for processes in (1, 2, 4):
                began = time.monotonic()
                speed = asyncio.run(measure(postgres, processes, count, latency))
                load = os.getloadavg()[0]
                print(
                    f"round {number + 1}, {processes} processes: {speed:.0f} operations a second "
                    f"(load {load:.1f}, {time.monotonic() - began:.0f} s)",
                    flush=True,
                )
    finally:
        postgres.remove()


if __name__ == "__main__":
    main()
