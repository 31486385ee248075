"""A bell between tasks that loses no ring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


class Wake:
    """A bell: it can be rung any number of times, and each who waits hears it once.

    A ring that comes while nobody waits is heard by the next who does.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        """Wake whoever waits, now or next."""
        self._event.set()

    async def wait(
        self, seconds: float | None = None, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        """Wait for the bell, at most so long; `sleep` is the clock's."""
        event = self._event
        if seconds is None:
            await event.wait()
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(_alarm, sleep, seconds, group.cancel_scope)
                await event.wait()
                group.cancel_scope.cancel()
        # another who waits may have hung up a new one, and it may have rung
        if event.is_set() and self._event is event:
            self._event = anyio.Event()


async def _alarm(sleep: Callable[[float], Awaitable[None]], seconds: float, scope: anyio.CancelScope) -> None:
    await sleep(seconds)
    scope.cancel()
