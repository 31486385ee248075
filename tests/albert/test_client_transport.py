"""What goes onto the wire, what is taken from it, and where the token never goes."""

from __future__ import annotations

import gzip
import shutil
import ssl
import subprocess
import tracemalloc
import zlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncd.albert import (
    AlbertConnectError,
    AlbertLostError,
    AlbertResponseError,
    AlbertServerError,
    AsyncAlbertSession,
    ChatSessionCollection,
    InvalidIdError,
    InvalidRequestError,
    NotFoundError,
    segment,
)
from syncd.albert.paths import MAX_LENGTH
from syncd.albert.urls import query
from tests.albert.client_wire import TOKEN, Open, Reply, Wire, plain_get, reply, serving

if TYPE_CHECKING:
    from pathlib import Path

LISTING = b'{"Items": []}'
on_one_wire = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


# -- ids and queries --

HOSTILE = [
    "",
    ".",
    "..",
    "a\n",
    "\0",
    "a\r\nHost: evil",
    "\x7f",
    "\x85",
    "\x9f",
    "\ud800",
    "a\udfff",
    "x" * (MAX_LENGTH + 1),
    None,
    5,
    b"SES1",
]


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_id_that_cannot_be_sent_raises_before_any_request(
    wire: Wire, sessions: ChatSessionCollection, hostile: str
) -> None:
    for call in (
        sessions.get_by_id(id=hostile),
        sessions.get_raw(id=hostile),
        sessions.get_by_source_session_id(source_session_id=hostile),
        sessions.get_raw_by_source_session_id(source_session_id=hostile),
        sessions.update(id=hostile, name="n"),
        sessions.update(id=hostile),
        sessions.delete(id=hostile),
    ):
        with pytest.raises(InvalidIdError) as caught:
            await call
        assert caught.value.not_applied
        assert len(str(caught.value)) < 1000
        str(caught.value).encode("ascii")
    assert not wire.seen


AWKWARD = [
    "a/../../../users/USR1",
    "...",
    "%2e%2e",
    "%2F",
    "a b+c",
    "a?b#c&d=e;f",
    "ünïcödé 🧪",
    "".join(map(chr, range(0x20, 0x7F))),
    "x" * MAX_LENGTH,
    "\\..\\",
    " ",
    "http://evil/",
]


@pytest.mark.parametrize("id", AWKWARD)
async def test_id_is_one_path_segment_and_encoded_once(wire: Wire, sessions: ChatSessionCollection, id: str) -> None:
    await sessions.get_raw(id=id)
    await sessions.get_raw_by_source_session_id(source_session_id=id)
    await sessions.delete(id=id)
    base = "/api/v3/chats/sessions/"
    for seen, prefix in zip(wire.seen, (base, base + "source/", base), strict=True):
        assert seen.target.startswith(prefix)
        encoded = seen.target.removeprefix(prefix)
        assert not set(encoded) & set("/?#+ ;&=")
        assert unquote_to_bytes(encoded) == id.encode()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(lambda text: text not in {".", ".."}))
def test_every_other_text_is_encoded_as_one_segment(id: str) -> None:
    encoded = segment(id)
    assert unquote_to_bytes(encoded) == id.encode()
    assert encoded.isascii()
    assert "/" not in encoded


@on_one_wire
@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
async def test_page_key_arrives_unchanged(wire: Wire, sessions: ChatSessionCollection, key: str) -> None:
    wire.seen.clear()
    await sessions.list_raw(start_key=key)
    assert wire.seen[0].query == [("startKey", key)]
    assert "+" not in wire.seen[0].target


async def test_every_ascii_character_is_encoded_once_in_the_query(wire: Wire, sessions: ChatSessionCollection) -> None:
    key = "".join(map(chr, range(0x7F)))
    await sessions.list_raw(start_key=key)
    unreserved = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
    wanted = "".join(char if char in unreserved else f"%{ord(char):02X}" for char in key)
    assert wire.seen[0].target == f"/api/v3/chats/sessions?startKey={wanted}"


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
    )
)
def test_parsed_query_equals_its_parameters(params: dict[str, list[str]]) -> None:
    read = parse_qsl(query(params), keep_blank_values=True, max_num_fields=10_000)
    assert read == [(key, value) for key, values in params.items() for value in values]


async def test_lone_surrogate_in_a_query_is_refused(wire: Wire, sessions: ChatSessionCollection) -> None:
    with pytest.raises(InvalidRequestError):
        await sessions.list_raw(start_key="\ud800")
    assert not wire.seen


@pytest.mark.parametrize(
    "path",
    [
        "",
        "api",
        "/a b",
        "/a/../b",
        "/..",
        "/a/.",
        "/é",
        "/a?b",
        "/a#b",
        "/%zz",
        "/a\n",
        "//\\",
        "http://evil/",
    ],
)
async def test_path_that_is_not_in_normal_form_is_refused(wire: Wire, session: AsyncAlbertSession, path: str) -> None:
    with pytest.raises(InvalidRequestError):
        await session.get(path)
    assert not wire.seen


# -- where it goes --


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


# -- bodies --


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", " gzip "])
async def test_gzip_is_read(wire: Wire, session: AsyncAlbertSession, coding: str) -> None:
    wire.then(reply(200, gzip.compress(LISTING), content_encoding=coding))
    response = await session.get("/x")
    assert response.content == LISTING
    assert "content-encoding" not in response.headers
    assert response.json() == {"Items": []}


async def test_gzip_of_several_members_is_read(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(reply(200, gzip.compress(b'{"Ite') + gzip.compress(b'ms": []}'), content_encoding="gzip"))
    assert (await session.get("/x")).content == LISTING


@pytest.mark.parametrize("coding", ["identity", ""])
async def test_identity_is_read(wire: Wire, session: AsyncAlbertSession, coding: str) -> None:
    wire.then(reply(200, LISTING, content_encoding=coding))
    assert (await session.get("/x")).content == LISTING


async def test_chunks_and_bodies_without_a_length_are_read(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(
        Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        Reply(b"HTTP/1.1 200 OK\r\n\r\nabc", "close"),
        Reply(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        reply(204),
    )
    assert [(await session.get("/x")).content for _ in range(4)] == [b"abc", b"abc", b"abc", b""]


UNREADABLE = {
    "truncated gzip": (gzip.compress(LISTING * 100)[:-9], "gzip"),
    "corrupt gzip": (b"\x1f\x8b" + b"\0" * 40, "gzip"),
    "gzip that is none": (LISTING, "gzip"),
    "bytes after the gzip": (gzip.compress(LISTING) + b"junk", "gzip"),
    "wrong checksum": (gzip.compress(LISTING)[:-8] + b"\0" * 8, "gzip"),
    "double gzip": (gzip.compress(gzip.compress(LISTING)), "gzip, gzip"),
    "deflate": (zlib.compress(LISTING), "deflate"),
    "brotli": (LISTING, "br"),
    "unknown": (LISTING, "zstd"),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_success_with_an_unreadable_body_is_an_error(wire: Wire, session: AsyncAlbertSession, name: str) -> None:
    body, coding = UNREADABLE[name]
    wire.then(reply(200, body, content_encoding=coding))
    with pytest.raises(AlbertResponseError, match="cannot be read"):
        await session.get("/x")


async def test_codings_in_two_headers_are_two_codings(wire: Wire, session: AsyncAlbertSession) -> None:
    body = gzip.compress(gzip.compress(LISTING))
    head = f"Content-Length: {len(body)}\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n"
    wire.then(Reply(b"HTTP/1.1 200 OK\r\n" + head.encode() + body))
    with pytest.raises(AlbertResponseError):
        await session.get("/x")


@pytest.mark.parametrize("name", UNREADABLE)
async def test_unreadable_body_does_not_hide_the_status_or_fail_a_delete(
    wire: Wire, session: AsyncAlbertSession, name: str
) -> None:
    body, coding = UNREADABLE[name]
    wire.then(reply(404, body, content_encoding=coding), reply(200, body, content_encoding=coding))
    with pytest.raises(NotFoundError, match="cannot be read"):
        await session.get("/x")
    assert (await session.delete("/x")).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False), (5_000_000, False)])
async def test_body_is_bounded_before_decompression(
    wire: Wire, opened: Open, size: int, *, announced: bool, fits: bool
) -> None:
    length = f"Content-Length: {size}\r\n" if announced else ""
    wire.then(Reply(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode() + b"x" * size, "close"))
    session = opened(max_response_bytes=1000)
    if fits:
        assert len((await session.get("/x")).content) == size
    else:
        with pytest.raises(AlbertResponseError, match="larger than 1000 bytes"):
            await session.get("/x")


@pytest.mark.parametrize(("size", "fits"), [(100_000, True), (100_001, False)])
async def test_body_is_bounded_after_decompression(wire: Wire, opened: Open, size: int, *, fits: bool) -> None:
    half = size // 2
    for body in (
        gzip.compress(b"x" * size),
        gzip.compress(b"x" * half) + gzip.compress(b"x" * (size - half)),
    ):
        wire.then(reply(200, body, content_encoding="gzip"))
        session = opened(max_response_bytes=100_000)
        if fits:
            assert len((await session.get("/x")).content) == size
        else:
            with pytest.raises(AlbertResponseError, match="larger than 100000 bytes"):
                await session.get("/x")


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    block = b"\0" * 1_000_000
    return b"".join([packer.compress(block) for _ in range(size // len(block))] + [packer.flush()])


@pytest.mark.parametrize("status", [200, 500])
async def test_gzip_bomb_never_expands_beyond_the_limit(wire: Wire, opened: Open, status: int) -> None:
    body = bomb(300_000_000)
    session = opened(max_response_bytes=1_000_000)
    await session.get("/warm")
    wire.then(reply(status, body, content_encoding="gzip"))
    tracemalloc.start()
    try:
        with pytest.raises((AlbertResponseError, AlbertServerError)):
            await session.get("/x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


# -- TLS --


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for 127.0.0.1 that is its own CA."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    made = tmp_path_factory.mktemp("tls") / "made.pem"
    for name, host in (("made", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere.example")):
        file = made.with_name(f"{name}.pem")
        options = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=syncd -addext subjectAltName={host}"
        files = ["-keyout", f"{file}.key", "-out", f"{file}.crt"]
        subprocess.run([openssl, *options.split(), *files], check=True, capture_output=True)
    return made


def server_side(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{file}.crt", f"{file}.key")
    return context


async def test_certificate_of_a_private_ca_is_accepted_with_its_context(certificate: Path, opened: Open) -> None:
    trust = ssl.create_default_context(cafile=f"{certificate}.crt")
    async with serving(ssl=server_side(certificate)) as safe:
        assert (await opened(base_url=safe.url, verify=trust).get("/x")).status_code == 200
        assert safe.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_self_signed_certificate_is_refused_and_nothing_is_sent(certificate: Path, opened: Open) -> None:
    async with serving(ssl=server_side(certificate)) as unsafe:
        with pytest.raises(AlbertConnectError, match="self-signed") as caught:
            await opened(base_url=unsafe.url).get("/x")
        assert caught.value.not_applied
        assert not unsafe.seen


async def test_certificate_for_another_host_is_refused(certificate: Path, opened: Open) -> None:
    wrong = certificate.with_name("wrong.pem")
    trust = ssl.create_default_context(cafile=f"{wrong}.crt")
    async with serving(ssl=server_side(wrong)) as unsafe:
        with pytest.raises(AlbertConnectError):
            await opened(base_url=unsafe.url, verify=trust).get("/x")
        assert not unsafe.seen


async def test_plain_http_server_at_an_https_url_is_a_connect_error(wire: Wire, opened: Open) -> None:
    with pytest.raises((AlbertConnectError, AlbertLostError)) as caught:
        await opened(base_url=wire.url.replace("http:", "https:"), timeout=2).get("/x")
    assert isinstance(caught.value, AlbertConnectError)
    assert not wire.seen


def test_tls_context_with_disabled_checks_is_refused() -> None:
    lax = ssl.create_default_context()
    lax.check_hostname = False
    for mode in (ssl.CERT_REQUIRED, ssl.CERT_NONE):
        lax.verify_mode = mode
        with pytest.raises(ValueError, match="checks certificates"):
            AsyncAlbertSession(base_url="https://albert.example", token=TOKEN, verify=lax)


@pytest.mark.parametrize("headers", [{"X": "a\r\nHost: evil"}, {"X\n": "a"}, {"X": "\0"}])
def test_header_with_a_control_character_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="control character"):
        AsyncAlbertSession(base_url="https://albert.example", token=TOKEN, headers=headers)
