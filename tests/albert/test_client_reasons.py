"""The reasons in errors about answers that are not HTTP and connections that are not established."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from syncd.albert import AlbertConnectError, AlbertException, AlbertLostError, AlbertResponseError
from tests.albert.client_wire import TOKEN, Open, Reply, Seen, Wire, serving
from tests.helpers.certificates import make_certificate

OK = b"HTTP/1.1 200 OK\r\n"
NOT_HTTP = {
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "the server speaks SSH on this port"),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02F", "speaks TLS on this port, so the URL must begin with https://"),
    "HTTP/2 in text": (b"HTTP/2 200\r\n\r\n", "the server speaks HTTP/2 on this port"),
    "HTTP/2 frames": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "the server speaks HTTP/2 on this port"),
    "HTML alone": (b"<html>hello</html>", "the answer has no HTTP header"),
    "another greeting": (b"220 mail.example ESMTP\r\n", "it does not begin with an HTTP status line"),
    "an unknown version": (b"HTTP/9.9 200 OK\r\n\r\n", "Invalid HTTP version"),
    "no status": (b"HTTP/1.1 abc OK\r\n\r\n", "Invalid status code"),
    "a long header": (OK + b"X: " + b"x" * 65_537 + b"\r\n\r\n", "a header is longer than 64 KiB"),
    "many headers": (OK + b"X: y\r\n" * 1100 + b"\r\n", "it has more than 1024 headers"),
    "a header without a colon": (OK + b"X Y Z\r\n\r\n", "Invalid header token"),
    "a NUL in a header": (OK + b"X: a\0b\r\n\r\n", "a header line is malformed"),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "Duplicate Content-Length"),
    "a length that is text": (OK + b"Content-Length: many\r\n\r\n", "Invalid character in Content-Length"),
    "a chunk size that is text": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "Invalid character in chunk size"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_HTTP)
async def test_answer_that_is_not_http_is_an_error_with_the_reason(wire: Wire, opened: Open, name: str) -> None:
    raw, reason = NOT_HTTP[name]
    wire.then(Reply(raw, "close"))
    with pytest.raises(AlbertResponseError) as caught:
        await opened().get("/x")
    assert caught.value.message.startswith(f"the answer of {wire.url.removeprefix('http://')} cannot be read as HTTP: ")
    assert reason in caught.value.message
    assert not caught.value.not_applied


@pytest.mark.parametrize(
    "raw", [f"{TOKEN} 200\r\n\r\n", f"HTTP/1.1 {TOKEN}\r\n\r\n", f"HTTP/1.1 200 OK\r\n{TOKEN} x\r\n\r\n", f"<p>{TOKEN}"]
)
async def test_answer_that_is_not_http_and_echoes_the_token_is_not_quoted(wire: Wire, opened: Open, raw: str) -> None:
    wire.then(Reply(raw.encode(), "close"))
    with pytest.raises(AlbertException) as caught:
        await opened().get("/x")
    assert TOKEN not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)


async def test_headers_of_64_kib_are_accepted(wire: Wire, opened: Open) -> None:
    cookie = b"Set-Cookie: " + b"c" * 65_000
    many = b"".join(b"X-Policy-%d: %s\r\n" % (number, b"p" * 100) for number in range(560))
    for headers in (cookie + b"\r\n", many):
        wire.then(Reply(OK + headers + b"Content-Length: 2\r\n\r\n{}"))
    session = opened()
    assert [(await session.get("/x")).content for _ in range(2)] == [b"{}", b"{}"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (OK + b"Content-Length: 20\r\n\r\nab", "it is shorter than its Content-Length"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "its last chunk is missing"),
        (OK + b"Content-Le", "closed the connection without an answer; if this host never answers"),
        (b"", "closed the connection without an answer; if this host never answers, the port may expect https"),
    ],
)
async def test_truncated_answer_is_a_lost_error_with_the_reason_and_the_host(
    wire: Wire, opened: Open, raw: bytes, reason: str
) -> None:
    wire.then(Reply(raw, "close"))
    with pytest.raises(AlbertLostError) as caught:
        await opened().get("/x")
    assert reason in caught.value.message
    assert wire.url.removeprefix("http://") in caught.value.message


async def test_part_of_a_document_is_not_an_answer(wire: Wire, opened: Open) -> None:
    wire.then(Reply(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\n{}"))
    with pytest.raises(AlbertResponseError, match="206"):
        await opened().get("/x")


async def test_reset_connection_is_a_lost_error_with_the_host(wire: Wire, opened: Open) -> None:
    async def reset(_: Seen, writer: asyncio.StreamWriter) -> None:
        linger = struct.pack("ii", 1, 0)  # closing then sends RST instead of FIN
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    wire.then(reset)
    with pytest.raises(AlbertLostError) as caught:
        await opened().get("/x")
    place = wire.url.removeprefix("http://")
    assert caught.value.message == f"the connection to {place} broke: Connection reset by peer"


async def test_refused_connection_names_the_host_and_the_port(opened: Open) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(AlbertConnectError) as caught:
            await opened(base_url=f"http://127.0.0.1:{port}").get("/x")
    assert caught.value.message == f"no connection to 127.0.0.1:{port}: Connection refused"


@pytest.mark.parametrize("url", ["https://no-such-host.invalid", "https://no-such-host.invalid:8443/prefix"])
async def test_host_that_cannot_be_resolved_is_named(opened: Open, url: str) -> None:
    with pytest.raises(AlbertConnectError, match=r"no connection to no-such-host\.invalid:(443|8443): .*"):
        await opened(base_url=url).get("/x")


async def test_ipv6_loopback_is_written_in_brackets(opened: Open) -> None:
    with pytest.raises(AlbertConnectError, match=r"no connection to \[::1\]:1: "):
        await opened(base_url="http://[::1]:1").get("/x")


async def test_plain_request_to_a_tls_port_suggests_https(tmp_path: Path, opened: Open) -> None:
    async with serving(ssl=make_certificate(tmp_path).server_context()) as safe:
        with pytest.raises(AlbertException, match="https") as caught:
            await opened(base_url=safe.url.replace("https:", "http:")).get("/x")
        assert safe.url.removeprefix("https://") in str(caught.value)
        assert not safe.seen


async def test_tls_request_to_a_plain_port_reports_that_the_port_does_not_speak_tls(opened: Open) -> None:
    async def answer_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer_at_once, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        with pytest.raises(AlbertConnectError) as caught:
            await opened(base_url=f"https://{place}").get("/x")
    assert caught.value.message == f"{place} does not speak TLS on this port; is https:// right for it?"


@pytest.mark.parametrize(
    ("name", "days", "trusted", "reason"),
    [
        ("IP:127.0.0.1", 30, False, "SYNCD_CA_FILE (ca_file)"),
        ("IP:127.0.0.1", -1, True, "certificate has expired"),
        ("DNS:elsewhere.example", 30, True, "IP address mismatch"),
    ],
)
async def test_refused_certificate_is_named_with_the_host_and_the_reason(
    tmp_path: Path, opened: Open, name: str, days: int, reason: str, *, trusted: bool
) -> None:
    certificate = make_certificate(tmp_path, name=name, days=days)
    async with serving(ssl=certificate.server_context()) as server:
        with pytest.raises(AlbertConnectError) as caught:
            await opened(base_url=server.url, ca_file=certificate.ca if trusted else None).get("/x")
        place = server.url.removeprefix("https://")
        assert caught.value.message.startswith(f"the certificate of {place} is refused: ")
        assert reason in caught.value.message
        assert not server.seen
