"""Asks whether Albert answers at all, before a failure counts against an operation. `runner` calls it.

One or two operations that fail do not prove an outage, and a queue is mostly short. If a listing is not answered
either, the failure is an outage and uses no attempt. Once three operations have failed, `outage` recognizes that by the
pages of passes, and a listing is requested only if there was none lately.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from syncd.albert import AlbertException
from syncd.records.fields import SESSIONS
from syncd.records.parse import GarbledError, read_page

if TYPE_CHECKING:
    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock

KEPT_SECONDS = 5.0
"""Seconds for which an answer is used again: longer than an operation waits between its first attempts."""


@dataclass(kw_only=True)
class Probe:
    """The last request of a listing's first page, shared by all operations."""

    albert: ChatSessionCollection
    clock: Clock
    _lock: anyio.Lock = field(default_factory=anyio.Lock)
    _known_at: float = float("-inf")
    """When the last request ended, in monotonic seconds: callers that waited for it use its result."""
    _answered: bool = False

    async def albert_answers(self) -> bool:
        """Return whether Albert answers the first page of a listing; the request is not repeated."""
        async with self._lock:
            if self.clock.monotonic() - self._known_at >= KEPT_SECONDS:
                try:
                    read_page(await self.albert.list_raw(start_key=None), SESSIONS)
                except (AlbertException, GarbledError):
                    self._answered = False
                else:
                    self._answered = True
                self._known_at = self.clock.monotonic()
            return self._answered
