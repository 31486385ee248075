"""Sends each change of the health to the receiver of SYNCD_NOTIFY_URL.

`daemon.health_reports` runs it during the start, `daemon.loops` afterwards.

A document is a JSON object with the fields of `document`. It is sent until the receiver accepts it, for an hour at
most. Redirects are not followed, and the proxies of the environment are ignored.
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import anyio

from syncd.aio import AutoResetEvent
from syncd.albert.answers import retry_after
from syncd.albert.errors import AlbertException
from syncd.albert.proxy import proxy_of
from syncd.albert.transport import Transport
from syncd.albert.wire import Request
from syncd.clock import utc_text
from syncd.rules.retry import Backoff
from syncd.urls import notify_url_problem, without_credentials
from syncd.version import program_version

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

    from pydantic import SecretStr
    from structlog.typing import FilteringBoundLogger

    from syncd.albert.wire import Answer
    from syncd.clock import Clock
    from syncd.status.health_monitor import HealthChange

REQUEST_SECONDS: Final = 10.0
"""Seconds for one POST with its answer."""
BACKOFF: Final = Backoff(1.0, 300.0)
"""Seconds between attempts at one document."""
LONGEST_WAIT: Final = 600.0
"""Seconds; a longer Retry-After of the receiver is shortened to this."""
REPORTED_ATTEMPT: Final = 3
"""The failed attempt that is a warning: some seconds after the first one, when a restarted receiver answers again."""
GIVE_UP_SECONDS: Final = 3600.0
"""The age in seconds of a document that is no longer sent: the receiver may be down together with Albert."""
MOST_WAITING: Final = 100
"""Documents that wait at once; the oldest is dropped for another one."""
RESPONSE_BYTES: Final = 1 << 20
AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Statuses below 500 after which the same request can succeed."""


def document(change: HealthChange, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the document about a change.

    Parameters
    ----------
    facts : Mapping[str, str]
        The fields that name the daemon: version, host, origin and tenant.

    Returns
    -------
    dict[str, Any]
        `id` is the same in each repetition of a document, so that a receiver can recognize one that it has.
    """
    return {
        "event": "health.changed",
        "id": str(uuid4()),
        "at": utc_text(change.at),
        **facts,
        "healthy_before": change.healthy_before,
        "healthy": change.healthy,
        "problems": change.listed(),
    }


@dataclass(frozen=True)
class _Waiting:
    """A document that was not accepted yet, and when it was made, in monotonic seconds."""

    content: bytes
    since: float


class _FailedError(Exception):
    """An attempt failed.

    Attributes
    ----------
    again : bool
        Whether the same request can succeed later.
    retry_after : float | None
        The seconds that the receiver asks for.
    """

    def __init__(self, reason: str, *, again: bool = True, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.again = again
        self.retry_after = retry_after


@dataclass(kw_only=True)
class Notifier:
    """Sends documents one after another, in the order of the changes.

    Parameters
    ----------
    url : Callable[[], str]
        Returns the URL of the receiver as it is now, empty for none. An OSError or a ValueError from it means that it
        cannot be read now.
    facts : Callable[[], Mapping[str, str]]
        Returns the fields that name the daemon.
    jitter : Callable[[], float]
        Draws a number from 0 to 1 that spreads the waits.
    """

    url: Callable[[], str]
    facts: Callable[[], Mapping[str, str]]
    transport: Transport
    clock: Clock
    log: FilteringBoundLogger
    jitter: Callable[[], float] = random.random
    _waiting: deque[_Waiting] = field(default_factory=deque, init=False)
    _added: AutoResetEvent = field(default_factory=AutoResetEvent, init=False)

    def notify(self, change: HealthChange) -> None:
        """Queue a change; `run` sends it."""
        content = json.dumps(document(change, self.facts())).encode()
        self._waiting.append(_Waiting(content, self.clock.monotonic()))
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._log_failure(f"more than {MOST_WAITING} notifications wait")
        self._added.set()

    async def run(self) -> None:
        """Send what is queued, forever."""
        while True:
            while self._waiting:
                await self._deliver(self._waiting[0])
            await self._added.wait()

    async def _deliver(self, waiting: _Waiting) -> None:
        """Send a document until it is accepted, refused or too old, and remove it from the queue."""
        attempt = 0
        while waiting in self._waiting:
            attempt += 1
            try:
                await self._attempt(waiting.content)
            except _FailedError as failed:
                wait = BACKOFF.wait(attempt, jitter=self.jitter(), retry_after=failed.retry_after)
                wait = min(wait, LONGEST_WAIT)
                if failed.again and self.clock.monotonic() + wait - waiting.since < GIVE_UP_SECONDS:
                    write = self.log.warning if attempt == REPORTED_ATTEMPT else self.log.debug
                    write("notification.retrying", reason=str(failed), seconds=round(wait, 3))
                    await self.clock.sleep(wait)
                    continue
                self._log_failure(str(failed))
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _log_failure(self, reason: str) -> None:
        self.log.warning("notification.failed", reason=reason, hint="check SYNCD_NOTIFY_URL and its receiver")

    async def _attempt(self, content: bytes) -> None:
        """Send a document once; without a receiver it counts as sent.

        Raises
        ------
        _FailedError
            The receiver did not accept it.
        """
        try:
            url = self.url()
        except (OSError, ValueError) as error:
            raise _FailedError(f"SYNCD_NOTIFY_URL_FILE cannot be read: {error}") from None
        if not url:
            return
        if (problem := notify_url_problem(url)) is not None:
            raise _FailedError(f"SYNCD_NOTIFY_URL {problem}")
        answer: Answer | None = None
        with anyio.move_on_after(REQUEST_SECONDS):
            try:
                answer = await self.transport.send(_request(url, content), _headers(url))
            except AlbertException as error:
                raise _FailedError(error.message) from None
        self.log.debug("notification.sent", status=_checked(answer).status)


def _checked(answer: Answer | None) -> Answer:
    """Return an answer that accepts the document."""
    if answer is None:
        raise _FailedError(f"no answer within {REQUEST_SECONDS:g} seconds")
    if answer.is_success:
        return answer
    again = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in AGAIN
    raise _FailedError(f"the receiver answers {answer.status}", again=again, retry_after=retry_after(answer))


def _request(url: str, content: bytes) -> Request:
    """Return the request; a URL without a path gets one."""
    plain = without_credentials(url)
    parts = urlsplit(plain)
    return Request("POST", plain if parts.path else parts._replace(path="/").geturl(), content)


def _headers(url: str) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"syncd/{program_version()}",
    }
    parts = urlsplit(url)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return headers


@asynccontextmanager
async def open_transport(proxy: SecretStr | None, verify: ssl.SSLContext | None) -> AsyncIterator[Transport]:
    """Open the connections of a notifier, which close at the end of the context.

    Parameters
    ----------
    proxy : SecretStr | None
        The URL of the proxy for all requests.
    verify : ssl.SSLContext | None
        The context that checks certificates; None for the system's certificates.
    """
    transport = Transport(
        connect_timeout=REQUEST_SECONDS / 2,
        max_response_bytes=RESPONSE_BYTES,
        max_connections=1,
        verify=verify,
        proxy=proxy_of(proxy),
    )
    try:
        yield transport
    finally:
        await transport.aclose()
