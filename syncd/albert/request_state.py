"""The progress of one request. The session keeps it to find out whether Albert can have received the request."""

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
    """The deadline of one request, and whether Albert may have received it."""

    __slots__ = ("deadline", "sent")
    deadline: anyio.CancelScope

    def __init__(self) -> None:
        self.sent = False

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
