"""The progress of one request. The session ends it, and finds out whether Albert can have received the request."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syncd.albert.errors import AlbertException
    from syncd.albert.wire import Request


class RequestState:
    """The deadline of one request, whether Albert may have received it, and whether the session was closed since."""

    __slots__ = ("closed", "deadline", "sent")
    deadline: anyio.CancelScope

    def __init__(self) -> None:
        self.sent = False
        self.closed = False

    def note_wait(self, waits: bool) -> None:  # noqa: FBT001 - its one argument
        """Note that the request waits for a connection, or has one: then Albert may have received it."""
        self.sent = not waits

    def close(self) -> None:
        """End the request, because the session is closed."""
        self.closed = True
        self.deadline.cancel()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock of the deadline."""
        left = self.deadline.deadline - anyio.current_time()
        self.deadline.deadline = math.inf
        try:
            yield
        finally:
            self.deadline.deadline = anyio.current_time() + left


def placed(error: AlbertException, request: Request) -> AlbertException:
    """Return an error after adding the request that it belongs to."""
    error.method = request.method
    error.path = request.path
    return error
