"""Notifications over real sockets: a document is sent again until it is accepted, and only to the receiver."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from pydantic import SecretStr
from structlog.testing import LogCapture

from syncd.status.health_monitor import HealthChange
from syncd.status.notifier import MOST_WAITING, REQUEST_SECONDS, Notifier, open_transport
from syncd.tls import client_context
from tests.helpers import loop_time
from tests.helpers.certificates import make_certificate
from tests.helpers.http_proxy import http_proxy, tls_front
from tests.helpers.logs import capturing_logger
from tests.helpers.virtual_clock import VirtualClock
from tests.status.test_health_monitor import Seen

FACTS = {"version": "0.1.0", "host": "box-7", "origin": "https://app.albertinvent.com", "tenant": "TEN1"}
STALE = HealthChange(
    at=datetime(2026, 6, 1, 12, tzinfo=UTC),
    healthy_before=True,
    problems=(Seen("mirror_stale", "the mirror is 2 h old", "syncd doctor"),),
)
HEALTHY = HealthChange(at=datetime(2026, 6, 1, 13, tzinfo=UTC), healthy_before=False, problems=())


@dataclass
class Receiver:
    """A server that receives notifications; it answers with `answers` one after another, then with 204."""

    port: int = 0
    answers: list[int | Callable[[], web.Response]] = field(default_factory=list)
    requests: list[web.BaseRequest] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    silent: bool = False
    """Whether it never answers."""
    on_silence: Callable[[], None] = lambda: None
    """Called when a request is not answered."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.requests.append(request)
        self.bodies.append(await request.json())
        if self.silent:
            self.on_silence()
            await anyio.sleep_forever()
        answer = self.answers.pop(0) if self.answers else 204
        return answer() if callable(answer) else web.Response(status=answer)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class Sending:
    notifier: Notifier
    clock: VirtualClock
    log: LogCapture

    async def until(self, look: Callable[[], object]) -> None:
        """Let the notifier work until something is true; its waits take no time."""

        async def holds() -> object:
            return look()

        await self.clock.until(holds)

    async def until_idle(self) -> None:
        await self.until(lambda: not self.notifier._waiting)

    def events(self, name: str) -> list[Any]:
        return [entry for entry in self.log.entries if entry["event"] == name]


@asynccontextmanager
async def sending(
    url: str | Callable[[], str], *, proxy: str | None = None, ca: Path | None = None
) -> AsyncIterator[Sending]:
    clock, log = VirtualClock(), LogCapture()
    async with open_transport(None if proxy is None else SecretStr(proxy), client_context(None, ca)) as transport:
        notifier = Notifier(
            url=url if callable(url) else lambda: url,
            facts=lambda: FACTS,
            transport=transport,
            clock=clock,
            log=capturing_logger(log),
            jitter=lambda: 1.0,
        )
        transport.send = clock.watched(transport.send)  # type: ignore[method-assign, assignment]
        async with anyio.create_task_group() as group:
            group.start_soon(clock.run)
            group.start_soon(notifier.run)
            yield Sending(notifier, clock, log)
            group.cancel_scope.cancel()


async def test_document_names_the_daemon_and_the_problems() -> None:
    async with receiving() as receiver, sending(receiver.url) as sent:
        sent.notifier.notify(STALE)
        sent.notifier.notify(HEALTHY)
        await sent.until_idle()
    begin, end = receiver.bodies
    assert begin.pop("id") != end["id"]
    assert begin == {
        "event": "health.changed",
        "at": "2026-06-01T12:00:00.000000Z",
        **FACTS,
        "healthy_before": True,
        "healthy": False,
        "problems": [{"code": "mirror_stale", "text": "the mirror is 2 h old", "command": "syncd doctor"}],
    }
    assert (end["healthy_before"], end["healthy"], end["problems"]) == (False, True, [])
    request = receiver.requests[0]
    assert (request.method, request.path, request.content_type) == ("POST", "/hook", "application/json")
    assert "Authorization" not in request.headers


async def test_document_is_sent_again_until_it_is_accepted_and_keeps_its_id() -> None:
    async with receiving() as receiver, sending(receiver.url) as sent:
        receiver.answers = [500, 429, 408, 503]
        sent.notifier.notify(STALE)
        await sent.until_idle()
    assert len(receiver.bodies) == 5
    assert len({body["id"] for body in receiver.bodies}) == 1
    assert sent.events("notification.failed") == []
    retries = sent.events("notification.retrying")
    assert [entry["seconds"] for entry in retries] == [1.0, 2.0, 4.0, 8.0]
    assert [entry["log_level"] for entry in retries] == ["debug", "debug", "warning", "debug"]


async def test_receiver_that_was_down_gets_the_document_when_it_is_up() -> None:
    async with receiving() as receiver:
        urls = iter(["http://127.0.0.1:9/hook"] * 3)
        async with sending(lambda: next(urls, receiver.url)) as sent:
            sent.notifier.notify(STALE)
            await sent.until_idle()
            assert len(sent.events("notification.retrying")) == 3
        assert [body["healthy"] for body in receiver.bodies] == [False]


async def test_document_is_given_up_after_an_hour_and_the_next_one_is_sent() -> None:
    async with sending("http://127.0.0.1:9/hook") as sent:
        began = sent.clock.monotonic()
        sent.notifier.notify(STALE)
        await sent.until_idle()
        (failed,) = sent.events("notification.failed")
        assert "127.0.0.1:9" in failed["reason"]
        assert 3000 < sent.clock.monotonic() - began < 3600
        sent.notifier.notify(HEALTHY)
        await sent.until_idle()
        assert len(sent.events("notification.failed")) == 2


async def test_refusal_is_not_repeated() -> None:
    async with receiving() as receiver, sending(receiver.url) as sent:
        receiver.answers = [404]
        sent.notifier.notify(STALE)
        await sent.until_idle()
        assert len(receiver.bodies) == 1
        assert sent.events("notification.failed")[0]["reason"] == "the receiver answers 404"


async def test_redirect_is_not_followed() -> None:
    async with receiving() as receiver, receiving() as other, sending(receiver.url) as sent:
        receiver.answers = [lambda: web.Response(status=307, headers={"Location": other.url})]
        sent.notifier.notify(STALE)
        await sent.until_idle()
        assert (len(receiver.bodies), other.bodies) == (1, [])
        assert sent.events("notification.failed")[0]["reason"] == "the receiver answers 307"


async def test_request_to_a_receiver_that_never_answers_times_out() -> None:
    async with receiving() as receiver, sending(receiver.url) as sent:
        receiver.silent, receiver.on_silence = True, partial(loop_time.skip, REQUEST_SECONDS)
        sent.notifier.notify(STALE)
        await sent.until(lambda: sent.events("notification.retrying"))
        receiver.silent = False
        await sent.until_idle()
    (retrying,) = sent.events("notification.retrying")
    assert retrying["reason"] == "no answer within 10 seconds"
    assert [body["id"] for body in receiver.bodies] == [receiver.bodies[0]["id"]] * 2


async def test_queue_is_bounded_and_keeps_the_newest() -> None:
    async with receiving() as receiver, sending(receiver.url) as sent:
        for number in range(MOST_WAITING + 3):
            sent.notifier.notify(STALE if number % 2 else HEALTHY)
        assert len(sent.notifier._waiting) == MOST_WAITING
        await sent.until_idle()
    assert len(receiver.bodies) == MOST_WAITING
    assert len(sent.events("notification.failed")) == 3


async def test_without_a_receiver_nothing_is_sent_and_a_file_that_cannot_be_read_is_read_again() -> None:
    unread = [OSError("no such file"), ValueError("not UTF-8")]

    async with receiving() as receiver:

        def url() -> str:
            if unread:
                raise unread.pop()
            return receiver.url

        async with sending("") as sent:
            sent.notifier.notify(STALE)
            await sent.until_idle()
            assert sent.log.entries == []
        async with sending(url) as sent:
            sent.notifier.notify(STALE)
            await sent.until_idle()
        assert len(receiver.bodies) == 1


async def test_credentials_of_the_url_are_a_header_and_in_no_event() -> None:
    async with receiving() as receiver:
        url = receiver.url.replace("http://", "http://user:p%40ss-canary@")
        async with sending(url) as sent:
            receiver.answers = [500, 401]
            sent.notifier.notify(STALE)
            await sent.until_idle()
        assert receiver.requests[0].headers["Authorization"] == "Basic dXNlcjpwQHNzLWNhbmFyeQ=="
        assert "canary" not in str(sent.log.entries)
        assert "canary" not in json.dumps(receiver.bodies)


async def test_own_ca_is_trusted_and_an_unknown_one_is_not(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with receiving() as receiver, tls_front(receiver.port, certificate.server_context()) as url:
        async with sending(f"{url}/hook") as sent:
            sent.notifier.notify(STALE)
            await sent.until_idle()
            assert "certificate" in sent.events("notification.failed")[0]["reason"]
            assert receiver.bodies == []
        async with sending(f"{url}/hook", ca=certificate.ca) as sent:
            sent.notifier.notify(STALE)
            await sent.until_idle()
        assert len(receiver.bodies) == 1


async def test_proxy_of_the_settings_is_used_and_those_of_the_environment_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with receiving() as receiver, http_proxy(password="p@ss") as proxy:
        async with sending(receiver.url) as sent:
            sent.notifier.notify(STALE)
            await sent.until_idle()
        assert (len(receiver.bodies), proxy.heads) == (1, [])
        async with sending(receiver.url, proxy=f"http://user:p%40ss@127.0.0.1:{proxy.port}") as sent:
            sent.notifier.notify(HEALTHY)
            await sent.until_idle()
        assert (len(receiver.bodies), len(proxy.heads)) == (2, 1)
