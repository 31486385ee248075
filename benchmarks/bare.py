"""The floors of the network and of the queue: aiohttp sends the same requests and stores nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiohttp

from benchmarks.floor import HEADERS
from benchmarks.server import LISTING, source_id
from benchmarks.timer import Timer


def fetch(timer: Timer, url: str, _where: str) -> None:
    """Fetch the same pages one after the other; nothing is parsed except the page key."""

    async def work() -> None:
        async with aiohttp.ClientSession(url, headers=HEADERS) as client:
            timer.start()
            key = ""
            while key != "null":
                async with client.get(LISTING, params={"startKey": key} if key else None) as answer:
                    body = await answer.read()
                key = body[body.rindex(b'"lastKey":') + 10 : -1].strip(b'"').decode()
            timer.stop()

    asyncio.run(work())


def operation(number: int) -> dict[str, str]:
    """Make the create of a number."""
    return {"name": f"Migrated session {number}", "sourceSessionId": source_id(number)}


def queue(timer: Timer, url: str, _where: str, *, operations: int, concurrency: int) -> None:
    """Send the requests of the queue: a look-up and a POST for each create, `concurrency` at once."""

    async def work(client: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for number in numbers:
            body = operation(number)
            async with client.get(f"{LISTING}/source/{body['sourceSessionId']}") as answer:
                await answer.read()
                assert answer.status == 404, answer
            async with client.post(LISTING, json=body) as answer:
                await answer.read()
                assert answer.status == 201, answer

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=concurrency)
        async with aiohttp.ClientSession(url, headers=HEADERS, connector=connector) as client:
            numbers = iter(range(operations))
            timer.start()
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work(client, numbers))
            timer.stop()

    asyncio.run(main())
