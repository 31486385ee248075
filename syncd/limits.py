"""One limit over all requests that the daemon sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncd.clock import Clock


class RateLimit:
    """Space requests evenly, so that no second sees more than `per_second` of them."""

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._gap = 1.0 / per_second
        self._clock = clock
        self._next = clock.monotonic()

    async def __call__(self) -> None:
        """Wait for this request's turn."""
        now = self._clock.monotonic()
        turn = max(self._next, now)
        self._next = turn + self._gap
        if turn > now:
            await self._clock.sleep(turn - now)
