"""Deadlines that pass without a wait: the time of the running event loop jumps."""

from __future__ import annotations

import asyncio


def skip(seconds: float) -> None:
    """Let this much time pass for every timer of the event loop: timeouts, and sleeps of anyio and asyncio."""
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]
