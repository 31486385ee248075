"""syncd, with places at which a test can end it by SIGKILL: `python -m tests.kills.instrumented_syncd once`.

Every commit goes through `Writer._run` and every request through `Transport.send`; there is a place before and after
each. Its name is that of the commit or request: the function of a commit, the method and the kind of path of a request.
Places need not be listed: a recording run finds them all, also those that are added later. syncd itself contains no
code for them.

The environment variable `PLACE` selects the action: `record=FILE` appends a line for each place passed, `kill=N` ends
the process at the N-th. With `QUIET_SECONDS` the process also gets a SIGTERM when it has sent no request for that time:
a daemon has done all its work then.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from syncd.albert.transport import Transport
from syncd.albert.wire import Request
from syncd.mirror.db.group_commit import Writer, one_by_one


class Places:
    """Counts the places that are passed, and records or kills."""

    def __init__(self, orders: str) -> None:
        self._how, _, self._what = orders.partition("=")
        self._passed = 0
        self._last_request: float | None = None

    def passed(self, place: str) -> None:
        """Pass a place."""
        self._passed += 1
        if place.startswith("after request"):
            self._last_request = time.monotonic()
        if self._how == "record":
            with Path(self._what).open("a", encoding="utf-8") as file:
                file.write(f"{place}\n")
        elif self._how == "kill" and self._passed == int(self._what):
            os.kill(os.getpid(), signal.SIGKILL)

    def stop_when_quiet(self, seconds: float) -> None:
        """Send this process a SIGTERM when no request was sent for some seconds; called in a thread of its own."""
        while self._last_request is None or self._last_request + seconds > time.monotonic():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    def around(self, call: Callable[..., Awaitable[Any]], name: Callable[[Any], str]) -> Callable[..., Awaitable[Any]]:
        """Put a place before and after a method that is named by its first argument."""

        async def between(owner: Any, argument: Any, *others: Any) -> Any:
            self.passed(f"before {name(argument)}")
            result = await call(owner, argument, *others)
            self.passed(f"after {name(argument)}")
            return result

        return between


def commit_name(batch: list[Any]) -> str:
    """Name a commit by the functions whose work it is."""
    works = [job.item if job.work is one_by_one else job.work for job in batch]
    return "commit: " + ", ".join(function_name(getattr(work, "func", work)) for work in works)


def function_name(function: Any) -> str:
    """Name a function; a nested one has the name of the outer function."""
    return f"{function.__module__.removeprefix('syncd.')}.{function.__qualname__.split('.<locals>')[0]}"


def request_name(request: Request) -> str:
    """Name a request by its method and the kind of its path."""
    path = request.path
    kind = "source" if "/source/" in path else "list" if path.endswith("/sessions") else "item"
    return f"request: {request.method} {kind}"


def main() -> None:
    """Run syncd with places."""
    from syncd.cli import main as syncd  # noqa: PLC0415 - after the places are set

    places = Places(os.environ.get("PLACE", ""))
    for owner, method, name in (
        (Writer, "_run", commit_name),
        (Transport, "send", request_name),
    ):
        setattr(owner, method, places.around(getattr(owner, method), name))
    if quiet := os.environ.get("QUIET_SECONDS"):
        threading.Thread(target=places.stop_when_quiet, args=(float(quiet),), daemon=True).start()
    syncd()


if __name__ == "__main__":
    main()
