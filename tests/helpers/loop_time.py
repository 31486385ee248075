"""Deadlines that pass without a wait: the time of the running event loop jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


def skip(seconds: float) -> None:
    """Let this much time pass for every timer of the event loop: timeouts, and sleeps of anyio and asyncio."""
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]


def hanging(timeout: float) -> Callable[[object], Awaitable[None]]:
    """Return an action of the sandbox that never answers; the client's timeout passes when the request is received."""

    async def hang(_request: object) -> None:
        skip(timeout)
        await asyncio.Event().wait()

    return hang
