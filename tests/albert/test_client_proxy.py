"""Requests through a proxy: the data that the proxy receives, and the errors when it fails."""

from __future__ import annotations

import ssl
import traceback
from pathlib import Path

import pytest

from syncd.albert import AlbertConnectError, AlbertServerError, AsyncAlbertSession
from tests.albert.client_wire import TOKEN, Open, Wire, reply, serving
from tests.helpers.certificates import Certificate, make_certificate
from tests.helpers.http_proxy import HttpProxy, http_proxy

PASSWORD = "p@ss/w%rd ü"
ENCODED = "p%40ss%2Fw%25rd%20%C3%BC"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def url(proxy: HttpProxy, scheme: str = "http", user: str = f"user:{ENCODED}@") -> str:
    return f"{scheme}://{user}127.0.0.1:{proxy.port}"


def hidden(error: BaseException) -> None:
    """Assert that an error and its causes contain neither the token nor credentials of the proxy."""
    shown = "".join(traceback.format_exception(error)) + repr(vars(error))
    for secret in (PASSWORD, ENCODED, TOKEN, "Basic", "dXNlcj"):
        assert secret not in shown


async def test_https_through_a_proxy_uses_a_tunnel_that_hides_path_and_token(
    certificate: Certificate, opened: Open
) -> None:
    async with serving(ssl=certificate.server_context()) as server, http_proxy(password=PASSWORD) as proxy:
        session = opened(base_url=server.url, proxy=url(proxy), ca_file=certificate.ca)
        assert [(await session.get("/x")).status_code for _ in range(3)] == [200, 200, 200]
        assert proxy.connects == [server.url.removeprefix("https://")]  # one connection for three requests
        assert [seen.target for seen in server.seen] == ["/x"] * 3
        assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert "proxy-authorization" not in server.seen[0].headers
        seen_by_proxy = "".join(proxy.heads).encode() + bytes(proxy.forwarded)
        assert TOKEN.encode() not in seen_by_proxy
        assert b"GET" not in seen_by_proxy


async def test_plain_http_to_loopback_goes_through_the_proxy_in_absolute_form(wire: Wire, opened: Open) -> None:
    async with http_proxy(password=PASSWORD) as proxy:
        session = opened(proxy=url(proxy))
        await session.get("/x")
        await session.post("/y", json={"a": 1})
        assert [head.split(" ")[1] for head in proxy.heads] == [f"{wire.url}/x", f"{wire.url}/y"]
        assert [(seen.method, seen.target) for seen in wire.seen] == [("GET", "/x"), ("POST", "/y")]
        assert wire.seen[1].json == {"a": 1}


async def test_proxy_that_speaks_tls_is_verified_with_the_same_ca(certificate: Certificate, opened: Open) -> None:
    context = certificate.server_context()
    async with serving(ssl=context) as server, http_proxy(password=PASSWORD, tls=context) as proxy:
        session = opened(base_url=server.url, proxy=url(proxy, "https"), ca_file=certificate.ca)
        assert (await session.get("/x")).status_code == 200
        with pytest.raises(AlbertConnectError, match=r"certificate of the proxy 127\.0\.0\.1:\d+ is refused"):
            await opened(base_url=server.url, proxy=url(proxy, "https")).get("/x")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_wrong_password_of_the_proxy_is_a_connect_error_that_does_not_show_it(
    certificate: Certificate, opened: Open, scheme: str
) -> None:
    options = {"ssl": certificate.server_context()} if scheme == "https" else {}
    async with serving(**options) as server, http_proxy(password="another") as proxy:
        session = opened(base_url=server.url, proxy=url(proxy), ca_file=certificate.ca)
        with pytest.raises(AlbertConnectError) as caught:
            await session.get("/x")
        assert caught.value.message == (
            f"the proxy 127.0.0.1:{proxy.port} refused to connect to {server.url.split('//')[1]}: "
            "407 Proxy Authentication Required; check the user name and the password of the proxy"
        )
        assert caught.value.not_applied
        assert not server.seen
        hidden(caught.value)


REFUSALS = {
    "403": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "403 Forbidden; the proxy does not allow this host",
    ),
    "502": (b"HTTP/1.1 502 Own Words\r\nContent-Length: 0\r\n\r\n", "502 Bad Gateway"),
    "599": (b"HTTP/1.1 599 Own Words\r\nContent-Length: 0\r\n\r\n", "599"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be read as HTTP: the server speaks SSH on this port"),
    "TLS": (b"\x15\x03\x01\x00\x02\x02F\r\n", "cannot be read as HTTP: the server speaks TLS on this port"),
    "closed": (b"", "it closed the connection"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_proxy_that_does_not_connect_is_named_with_the_reason(
    certificate: Certificate, opened: Open, name: str
) -> None:
    answer, reason = REFUSALS[name]
    async with serving(ssl=certificate.server_context()) as server, http_proxy(answer=answer) as proxy:
        with pytest.raises(AlbertConnectError) as caught:
            await opened(base_url=server.url, proxy=url(proxy), ca_file=certificate.ca).get("/x")
        assert f"the proxy 127.0.0.1:{proxy.port}" in caught.value.message
        assert reason in caught.value.message
        assert "Own Words" not in caught.value.message
        assert caught.value.not_applied
        hidden(caught.value)


async def test_proxy_that_does_not_answer_is_a_connect_error_before_the_deadline(opened: Open) -> None:
    async with http_proxy(silent=True) as proxy:
        with pytest.raises(AlbertConnectError, match=r"through the proxy 127\.0\.0\.1:.* in time") as caught:
            await opened(base_url="https://albert.example", proxy=url(proxy), timeout=0.4).get("/x")
        assert caught.value.not_applied
        hidden(caught.value)


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("http://user:secret@127.0.0.1:1", "no connection to the proxy 127.0.0.1:1: Connection refused"),
        ("http://user:secret@no-such-host.invalid:3128", "no connection to the proxy no-such-host.invalid:3128: "),
        ("http://no-such-host.invalid", "no connection to the proxy no-such-host.invalid:80: "),
    ],
)
async def test_proxy_that_cannot_be_reached_is_named(opened: Open, proxy: str, reason: str) -> None:
    with pytest.raises(AlbertConnectError) as caught:
        await opened(base_url="https://albert.example", proxy=proxy).get("/x")
    assert caught.value.message.startswith(reason)
    assert "secret" not in str(caught.value)


async def test_server_that_the_proxy_reaches_is_verified(certificate: Certificate, opened: Open) -> None:
    async with serving(ssl=certificate.server_context()) as server, http_proxy() as proxy:
        place = server.url.removeprefix("https://")
        with pytest.raises(AlbertConnectError, match=f"certificate of {place} through the proxy") as caught:
            await opened(base_url=server.url, proxy=url(proxy)).get("/x")
        assert "SYNCD_CA_FILE" in caught.value.message
        assert not server.seen


async def test_plain_proxy_with_an_https_url_does_not_speak_tls(opened: Open) -> None:
    async with serving() as plain:
        proxy = plain.url.replace("http:", "https:")
        with pytest.raises(AlbertConnectError, match=r"the proxy 127\.0\.0\.1:") as caught:
            await opened(base_url="https://albert.example", proxy=proxy, timeout=1).get("/x")
        assert caught.value.not_applied


async def test_error_of_the_gateway_for_plain_http_is_a_server_error(wire: Wire, opened: Open) -> None:
    wire.then(reply(502, "bad gateway"))
    async with http_proxy() as proxy:
        with pytest.raises(AlbertServerError, match="answered 502"):
            await opened(proxy=url(proxy)).get("/x")


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://h:1", "http://u:p@ss@h:1", "http://h/path", ""])
def test_text_that_is_not_a_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(ValueError, match="the proxy") as caught:
        AsyncAlbertSession(base_url="https://albert.example", token=TOKEN, proxy=proxy)
    assert "p@ss" not in str(caught.value)


async def test_ca_file_is_trusted_and_needs_a_certificate(
    certificate: Certificate, opened: Open, tmp_path: Path
) -> None:
    async with serving(ssl=certificate.server_context()) as server:
        assert (await opened(base_url=server.url, ca_file=certificate.ca).get("/x")).status_code == 200
        assert (await opened(base_url=server.url, ca_file=str(certificate.ca)).get("/x")).status_code == 200
    (tmp_path / "empty.pem").write_text("")
    for file in (tmp_path / "empty.pem", tmp_path / "none.pem", tmp_path):
        with pytest.raises(ValueError, match="the CA file"):
            AsyncAlbertSession(base_url="https://albert.example", token=TOKEN, ca_file=file)


def test_ca_file_is_trusted_in_addition_to_the_system(certificate: Certificate) -> None:
    session = AsyncAlbertSession(base_url="https://albert.example", token=TOKEN, ca_file=certificate.ca)
    context = session._exchange.transport._verify
    assert context is not None
    trusted = {ca["serialNumber"] for ca in context.get_ca_certs()}
    system = {ca["serialNumber"] for ca in ssl.create_default_context().get_ca_certs()}
    assert system < trusted
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_context_and_ca_file_exclude_each_other(certificate: Certificate) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        AsyncAlbertSession(
            base_url="https://albert.example", token=TOKEN, ca_file=certificate.ca, verify=ssl.create_default_context()
        )
