"""Signals of `syncd run` and `syncd once`, received from the first instruction of the process to its last.

`__main__` installs the handlers before the command line and its libraries are imported. A signal that arrives earlier
than the event loop is kept, and the loop finds it. The handlers stay when the loop is closed, so that a second signal
does not end the process by its default action.

Until the handlers are installed a signal ends the process, so this module imports only what the interpreter contains:
`_signal` is the part of `signal` that is written in C. The rest of `signal` loads `enum`, which takes most of the time.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # it has no types
import os

TYPE_CHECKING = False  # `typing` is not imported either
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from types import FrameType
    from typing import Self

SIGTERM, SIGINT, SIGHUP = int(_signal.SIGTERM), int(_signal.SIGINT), int(_signal.SIGHUP)
STOP = (SIGTERM, SIGINT)
"""The signals that end the process in good order."""
OF_COMMANDS = {"run": (*STOP, SIGHUP), "once": STOP}
"""The signals that a command receives; all others keep their default action, and all commands that are not here."""


class Signals:
    """The signals that a process has received and not handled yet."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._wake: Callable[[], object] | None = None

    @classmethod
    def of_command(cls, names: list[str]) -> Self | None:
        """Install the handlers of a command; None for a command that needs none."""
        numbers = OF_COMMANDS.get(names[0]) if names else None
        if numbers is None:
            return None
        signals = cls()
        signals.install(numbers)
        return signals

    def install(self, numbers: tuple[int, ...]) -> None:
        """Receive signals from now on."""
        for number in numbers:
            _signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(number)
        if self._wake is not None:
            self._wake()

    def take(self, numbers: tuple[int, ...]) -> int | None:
        """Return the first of some signals that has arrived, and forget it; None if there is none."""
        for place, number in enumerate(self._received):
            if number in numbers:
                return self._received.pop(place)
        return None

    def attach(self, loop: AbstractEventLoop, on_signal: Callable[[], None]) -> Callable[[], None]:
        """Call `on_signal` in an event loop after each signal; returns the function that ends this.

        Python runs a handler between two instructions of the main thread. The pipe wakes a loop that waits for I/O.
        """
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        before = _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        loop.add_reader(reader, os.read, reader, 4096)
        self._wake = lambda: loop.call_soon_threadsafe(on_signal)

        def detach() -> None:
            self._wake = None
            loop.remove_reader(reader)
            _signal.set_wakeup_fd(before)
            os.close(reader)
            os.close(writer)

        return detach
