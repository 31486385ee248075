"""Base URLs, redirects, headers, cookies, and the reuse of connections."""

from __future__ import annotations

import pytest

from syncd.albert import (
    AsyncAlbertSession,
    ChatSessionCollection,
)
from tests.albert.client_wire import TOKEN, Open, Wire, plain_get, reply, serving


@pytest.mark.parametrize(
    ("suffix", "prefix"), [("", ""), ("/", ""), ("/pre/fix", "/pre/fix"), ("/pre%2Ffix/", "/pre%2Ffix")]
)
async def test_base_url_may_have_a_prefix_and_a_slash(wire: Wire, opened: Open, suffix: str, prefix: str) -> None:
    await opened(base_url=wire.url + suffix).get("/x")
    assert wire.seen[0].target == f"{prefix}/x"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "albert.example",
        "ftp://albert.example",
        "https://",
        "https:///x",
        "https://user:hunter2@albert.example",
        "https://user@albert.example",
        "https://@albert.example",
        "https://albert.example?x=1",
        "https://albert.example/?",
        "https://albert.example/#",
        "https://albert.example:99999",
        "https://albert.example:x",
        "https://alb ert.example",
        "https://albert.example\n",
        "https://albert.example\\@evil",
        "http://albert.example",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
    ],
)
def test_invalid_or_insecure_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base URL") as caught:
        AsyncAlbertSession(base_url=url, token=TOKEN)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://albert.example",
        "http://localhost:1",
        "http://127.8.8.8",
        "http://[::1]:81",
        "HTTPS://ALBERT.example/x",
    ],
)
def test_base_url_may_be_https_anywhere_and_http_on_loopback(url: str) -> None:
    assert AsyncAlbertSession(base_url=url, token=TOKEN).base_url.lower() == url.lower()


async def test_redirect_to_another_origin_is_not_followed(wire: Wire, sessions: ChatSessionCollection) -> None:
    async with serving() as other:
        wire.then(*(reply(status, location=other.url) for status in (301, 302, 303, 307, 308)))
        for _ in range(5):
            with pytest.raises(Exception, match="answered 30"):
                await sessions.get_raw(id="SES1")
        assert not other.seen


async def test_proxies_of_the_environment_are_ignored(
    wire: Wire, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        await plain_get(wire.url)
        assert len(proxy.seen) == 1  # one that trusts the environment would go there
        await opened().get("/x")
        assert len(proxy.seen) == 1
    assert [each.target for each in wire.seen] == ["/x"]


async def test_headers_are_those_of_the_official_sdk_and_each_is_sent_once(
    wire: Wire, session: AsyncAlbertSession
) -> None:
    await session.post("/x", json={"ä": 1})
    names = [name.lower() for name, _ in wire.seen[0].raw_headers]
    assert len(names) == len(set(names))
    headers = wire.seen[0].headers
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["content-type"] == headers["accept"] == "application/json"
    assert headers["accept-encoding"] == "gzip, identity"
    assert headers["user-agent"].startswith("syncd/")
    assert wire.seen[0].body == '{"ä":1}'.encode()


async def test_callers_headers_replace_defaults_but_never_the_sessions_own(wire: Wire, opened: Open) -> None:
    given = {
        "USER-AGENT": "mine",
        "X-Trace": "1",
        "authorization": "no",
        "accept-encoding": "br",
        "host": "evil",
    }
    await opened(headers=given).get("/x")
    headers = wire.seen[0].headers
    assert (headers["user-agent"], headers["x-trace"]) == ("mine", "1")
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["accept-encoding"] == "gzip, identity"
    assert headers["host"] == wire.url.removeprefix("http://")


async def test_cookies_are_not_kept(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(reply(200, set_cookie="a=b; Path=/"))
    await session.get("/x")
    await session.get("/x")
    assert "cookie" not in wire.seen[1].headers


async def test_connections_are_reused(wire: Wire, session: AsyncAlbertSession) -> None:
    for _ in range(5):
        await session.get("/x")
    assert wire.connections == 1


async def test_connection_that_was_closed_while_idle_is_not_used(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(reply(200, then="close"))
    await session.get("/x")
    await plain_get(wire.url)  # lets the loop see the close
    await session.post("/x", json={})
    assert [each.method for each in wire.seen] == ["GET", "GET", "POST"]


async def test_large_body_is_sent_whole(wire: Wire, session: AsyncAlbertSession) -> None:
    await session.post("/x", json={"name": "n" * 3_000_000})
    assert wire.seen[0].json == {"name": "n" * 3_000_000}


@pytest.mark.parametrize("headers", [{"X": "a\r\nHost: evil"}, {"X\n": "a"}, {"X": "\0"}])
def test_header_with_a_control_character_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="control character"):
        AsyncAlbertSession(base_url="https://albert.example", token=TOKEN, headers=headers)
