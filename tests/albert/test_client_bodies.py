"""Bodies of responses: compression, chunks, and the limit of their size."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from syncd.albert import (
    AlbertResponseError,
    AlbertServerError,
    AsyncAlbertSession,
    NotFoundError,
)
from tests.albert.client_wire import Open, Reply, Wire, reply

LISTING = b'{"Items": []}'


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


@pytest.mark.slow
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
