"""A deterministic event loop: virtual time, no sockets, no threads, numbered tasks.

When nothing is ready to run, time jumps to the next timer. Turns of the loop are counted, and a call can be scheduled
for a turn. In this way a cancellation or a kill is tested at every await.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from anyio._backends._asyncio import CancelScope

# anyio keeps scopes in sets too, and cancels them in the order of these: not that of their addresses
CancelScope.__hash__ = lambda _: 0  # type: ignore[method-assign, assignment]


class StuckError(BaseException):
    """Every task waits for another one: a deadlock."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address: anyio keeps tasks in sets."""

    _numbers = itertools.count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._place = next(self._numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._place


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self.moment = 0.0
        self.turns = 0
        self.calls: dict[int, Callable[[], None]] = {}
        NumberedTask._numbers = itertools.count()
        self.set_task_factory(lambda loop, coroutine, **kwargs: NumberedTask(coroutine, loop=loop, **kwargs))

    def time(self) -> float:
        """Return virtual seconds since the start."""
        return self.moment

    def select(self, timeout: float | None) -> list[Any]:
        """Stand in for the selector: jump to the next timer."""
        if timeout is None:
            raise StuckError("nothing is ready and no timer is set")
        self.moment += timeout
        return []

    def call_in(self, turns: int, action: Callable[[], None]) -> int:
        """Call a function after a number of turns; the result cancels it (`calls.pop`)."""
        at = self.turns + max(turns, 1)
        self.calls[at] = action
        return at

    def _run_once(self) -> None:
        self.turns += 1
        action = self.calls.pop(self.turns, None)
        if action is not None:
            action()
        super()._run_once()  # type: ignore[misc]

    def _process_events(self, _events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine to its end in virtual time."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        asyncio.set_event_loop(None)
        loop.close()
