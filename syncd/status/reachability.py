"""Logs when Albert has not answered for a while, and when it answers again. `app.open_flows` gives it every outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from syncd.albert.errors import AlbertException

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock

    Schedule = Callable[[float, Callable[[], None]], TimerHandle]
    """Calls a function after some seconds, such as `call_later` of an event loop."""

SECONDS_UNREACHABLE: Final = 30.0
"""Seconds without an answer after which Albert counts as unreachable: longer than a restart of a server takes."""
READING: Final = frozenset({"GET", "TOKEN"})
"""Methods whose server errors count as failures of Albert. A 500 to a change may be caused by that one change."""


@dataclass(kw_only=True)
class Reachability:
    """Follows the outcomes of all requests, and logs the beginning and the end of a wait for Albert once.

    A status below 500 is an answer, except 429. Requests that are cancelled do not count.

    Parameters
    ----------
    schedule : Schedule
        Calls a function later. A wait is logged on time although no request ends meanwhile, as with a long Retry-After.
    """

    clock: Clock
    log: FilteringBoundLogger
    schedule: Schedule
    _since: float | None = field(default=None, init=False)
    """When the wait began, in monotonic seconds; None while Albert answers."""
    _answered: float = field(default=float("-inf"), init=False)
    _reason: str = field(default="", init=False)
    _timer: TimerHandle | None = field(default=None, init=False)
    _is_logged: bool = field(default=False, init=False)

    @property
    def unreachable(self) -> str | None:
        """Why Albert counts as unreachable; None if it does not."""
        return self._reason if self._is_logged else None

    def observe_request(self, method: str, ended: int | BaseException, seconds: float) -> None:
        """Note that a request has ended; the parameters are those of `after_request` of the session."""
        reason = _failure(method, ended)
        if reason is not None:
            self._note_failure(reason, seconds)
        elif isinstance(ended, int) and ended < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._note_answer()

    def _note_failure(self, reason: str, seconds: float) -> None:
        self._reason = reason
        if self._since is not None:
            return
        now = self.clock.monotonic()
        self._since = max(now - seconds, self._answered)
        self._timer = self.schedule(max(0.0, self._since + SECONDS_UNREACHABLE - now), self._report)

    def _note_answer(self) -> None:
        now = self._answered = self.clock.monotonic()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_logged and self._since is not None:
            self.log.info("albert.reachable", seconds=round(now - self._since, 3))
        self._since, self._is_logged = None, False

    def _report(self) -> None:
        if self._since is None:
            return
        self._is_logged = True
        seconds = round(self.clock.monotonic() - self._since, 3)
        hint = "the work continues by itself when Albert answers; see: syncd doctor"
        self.log.info("albert.unreachable", seconds=seconds, reason=self._reason, hint=hint)


def _failure(method: str, ended: int | BaseException) -> str | None:
    """Return why a request got no usable answer; None for an answer, and for an outcome that does not count."""
    if isinstance(ended, AlbertException):
        return str(ended)
    if not isinstance(ended, int):
        return None
    if ended == HTTPStatus.TOO_MANY_REQUESTS or (ended >= HTTPStatus.INTERNAL_SERVER_ERROR and method in READING):
        return f"the answer is {ended} {_phrase(ended)}".rstrip()
    return None


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
