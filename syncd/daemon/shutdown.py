"""The end of `syncd run` and `syncd once`: signals as an async iterator, the grace, and the forced exit.

The first SIGTERM or SIGINT ends the process in good order. When the grace is over, `ForcedExit` ends it in any case.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

from syncd.aio import task_group
from syncd.daemon.signals import STOP, Signals

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")
SECONDS_TO_END = 1.0
"""Seconds that a daemon gets to end in good order, however short its grace is."""
SECONDS_TO_LOG = 0.2
"""Seconds that the last line may take when the grace is over: the log itself may be the part that hangs."""


class Received:
    """The signals of a process in its event loop."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._event = anyio.Event()

    def wake(self) -> None:
        """Wake every task that waits for a signal."""
        self._event.set()
        self._event = anyio.Event()

    async def wait(self, numbers: tuple[int, ...]) -> signal.Signals:
        """Wait for one of some signals; one that arrived earlier counts."""
        while (number := self._signals.take(numbers)) is None:
            await self._event.wait()
        return signal.Signals(number)


class StopSignals:
    """Each SIGTERM and SIGINT, as an async iterator that may be cancelled and used again."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def __aiter__(self) -> AsyncIterator[signal.Signals]:
        return self

    async def __anext__(self) -> signal.Signals:
        return await self._received.wait(STOP)


@contextmanager
def receive(signals: Signals | None, numbers: tuple[int, ...]) -> Iterator[Received]:
    """Receive signals in the running event loop while the context lasts.

    Parameters
    ----------
    signals : Signals | None
        The handlers that the entry point has installed; None installs new ones.
    """
    if signals is None:
        signals = Signals()
        signals.install(numbers)
    received = Received(signals)
    detach = signals.attach(asyncio.get_running_loop(), received.wake)
    try:
        yield received
    finally:
        detach()


class ForcedExit:
    """Stop signals as they arrive; the first one starts the grace, after which the process ends in any case.

    Waiting for a database that hangs would take minutes. As after a kill, recovery finds what was in flight.
    """

    def __init__(self, signals: AsyncIterator[signal.Signals], grace: float, log: FilteringBoundLogger) -> None:
        self._signals, self._log = signals, log
        self._timer = threading.Timer(max(grace, SECONDS_TO_END), self._end)
        self._timer.daemon = True

    def __aiter__(self) -> AsyncIterator[signal.Signals]:
        return self

    async def __anext__(self) -> signal.Signals:
        number = await anext(self._signals)
        if not self._timer.is_alive():
            self._timer.start()
        return number

    def _end(self) -> None:
        last = threading.Timer(SECONDS_TO_LOG, os._exit, (0,))
        last.daemon = True
        last.start()
        self._log.warning("daemon.stopped", reason="the grace was over, and something was still waited for")
        os._exit(0)


async def unless_stopped(
    signals: AsyncIterator[signal.Signals], work: Callable[[], Awaitable[T]]
) -> T | signal.Signals:
    """Return the result of the work, or the signal that cancelled it."""
    results: list[T] = []
    stopped: list[signal.Signals] = []

    async def watch(scope: anyio.CancelScope) -> None:
        stopped.append(await anext(signals))
        scope.cancel()

    async with task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        results.append(await work())
        group.cancel_scope.cancel()
    return stopped[0] if stopped else results[0]
