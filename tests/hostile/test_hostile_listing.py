"""Hostile answers to a request for a page: the pass fails or quarantines items, deletes nothing, and stays small."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.helpers import loop_time
from tests.hostile.raw_server import LIMIT, Answer, http, item, listing, rig, serve_raw

GOOD = listing(item("SES1"), item("SES2"))
KNOWN = {"SES1": http(json.dumps(item("SES1")).encode())}
"""The answer to the first request of a pass, so that it gets as far as its listing."""
PAGE = json.dumps({"Items": [item("SES1")]}).encode()
GZIP = "Content-Encoding: gzip\r\n"
BOMB = gzip.compress(bytes(64 * LIMIT))
SECONDS = 20.0
MEGABYTES = 40


async def _drip(writer: asyncio.StreamWriter) -> None:
    for byte in http(PAGE):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.001)  # it is received
        loop_time.skip(0.05)


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while True:
        writer.write(chunk)
        await writer.drain()


REFUSED: dict[str, Answer] = {
    "a body that is cut": http(PAGE[:20], length=len(PAGE)),
    "a length that is too short": http(PAGE, length=20),
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + PAGE,
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + PAGE,
    "gzip that is cut": http(gzip.compress(PAGE)[:-12], headers=GZIP),
    "gzip that is none": http(PAGE, headers=GZIP),
    "a gzip bomb": http(BOMB, headers=GZIP),
    "a bomb in a bomb": http(gzip.compress(BOMB), headers="Content-Encoding: gzip, gzip\r\n"),
    "an unknown coding": http(PAGE, headers="Content-Encoding: br\r\n"),
    "a length beyond the limit": http(PAGE, length=LIMIT + 1),
    "a body without an end": _endless,
    "a byte now and then": _drip,
    "HTML with 200": http(b"<!DOCTYPE html><p>One moment please"),
    "nothing with 200": http(b""),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "an empty object": http(b"{}"),
    "Items null": http(b'{"Items":null}'),
    "Items an object": http(b'{"Items":{}}'),
    "a list at the root": http(b"[]"),
    "a key that is no text": http(b'{"Items":[],"lastKey":7}'),
    "a key with half a surrogate pair": http(b'{"Items":[],"lastKey":"\\ud800"}'),
    "invalid UTF-8": http(PAGE.replace(b"name of", b"\xff\xfe of")),
    "depth without end": http(b'{"Items":' + b"[" * 100_000),
    "depth of 5,000 in one item": http(b'{"Items":[{"id":"ODD","x":' + b"[" * 5000 + b"]" * 5000 + b"}]}"),
    "a number of 100,000 digits alone": http(b"1" * 100_000),
    "a status line of nonsense": b"HELLO 200 OK\r\n\r\n" + PAGE,
    "a header of a megabyte": b"HTTP/1.1 200 OK\r\nX: " + b"x" * LIMIT + b"\r\n\r\n" + PAGE,
    "a reset": None,
    "500 in HTML": http(b"<h1>oops</h1>", status="500 Internal Server Error"),
    "403 that lasts": http(b"{}", status="403 Forbidden"),
    "401": http(b"{}", status="401 Unauthorized"),
    "404 for the listing": http(b"{}", status="404 Not Found"),
    "429 without end": http(b"{}", status="429 Too Many Requests"),
    "429 until the sun is cold": http(b"{}", status="429 Too Many Requests", headers="Retry-After: 99999999999\r\n"),
    "503 until never": http(b"{}", status="503 Unavailable", headers="Retry-After: 1e999\r\n"),
    "503 until yesterday": http(
        b"{}", status="503 Unavailable", headers="Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_answer_that_is_not_a_listing_fails_the_pass_and_deletes_nothing(tmp_path: Path, name: str) -> None:
    async with serve_raw(GOOD) as raw, rig(tmp_path, raw.url, timeout=0.5) as r:
        raw.by_id = KNOWN
        assert (await r.one_pass()).state == "complete"
        before = len(raw.requests)
        raw.answers = [REFUSED[name]]
        began = time.monotonic()
        tracemalloc.start()
        outcome = await r.one_pass()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert outcome.state in {"failed", "held"}  # held if single items could still be separated
        assert time.monotonic() - began < SECONDS
        assert peak < MEGABYTES * LIMIT
        assert len(raw.requests) - before <= 61
        assert await r.sql("SELECT id, missing_since FROM chat_sessions_all WHERE deleted_at IS NULL ORDER BY id") == [
            ("SES1", None), ("SES2", None),
        ]  # fmt: skip
        raw.answers = [GOOD]
        assert (await r.one_pass()).state == "complete"


ODD_ITEMS: dict[str, bytes] = {
    "NaN": b'{"id":"ODD","name":"n","sourceSessionId":"s","x":NaN}',
    "an infinity": b'{"id":"ODD","name":"n","sourceSessionId":"s","x":-Infinity}',
    "a NUL": b'{"id":"ODD","name":"a\\u0000b","sourceSessionId":"s"}',
    "half a surrogate pair": b'{"id":"ODD","name":"\\ud800","sourceSessionId":"s"}',
    "half a surrogate pair in a key": b'{"id":"ODD","name":"n","sourceSessionId":"s","\\udfff":1}',
    "a name that is a number": b'{"id":"ODD","name":7,"sourceSessionId":"s"}',
    "a number of 10,000 digits": b'{"id":"ODD","name":"n","sourceSessionId":"s","x":' + b"1" * 10_000 + b"}",
    "a float of no end": b'{"id":"ODD","name":"n","sourceSessionId":"s","x":1e999}',
    "an audit that is a list": b'{"id":"ODD","name":"n","sourceSessionId":"s","Created":[]}',
}


@pytest.mark.parametrize("name", ODD_ITEMS)
async def test_unreadable_item_is_quarantined_and_the_rest_of_its_page_is_mirrored(tmp_path: Path, name: str) -> None:
    body = b'{"Items":[' + json.dumps(item("SES1")).encode() + b"," + ODD_ITEMS[name] + b"]}"
    async with serve_raw(http(body)) as raw, rig(tmp_path, raw.url) as r:
        raw.by_id = KNOWN
        for _ in range(2):
            outcome = await r.one_pass()
            assert outcome.state == "complete", outcome
            assert await r.sql("SELECT id FROM chat_sessions") == [("SES1",)]
            assert await r.sql("SELECT session_id FROM quarantine WHERE resolved_at IS NULL") == [("ODD",)]
        raw.answers = [listing(item("SES1"), item("ODD"))]
        assert (await r.one_pass()).state == "complete"
        assert await r.sql("SELECT count(*) FROM quarantine WHERE resolved_at IS NULL") == [(0,)]


async def test_huge_valid_values_are_kept_whole(tmp_path: Path) -> None:
    name = "ü" * 300_000
    page = listing(item("SES1", name=name), item("SES2", big=10**300, deep=json.loads("[" * 400 + "]" * 400)))
    async with serve_raw(page) as raw, rig(tmp_path, raw.url, max_response_bytes=4 * LIMIT) as r:
        assert (await r.one_pass()).state == "complete"
        assert await r.sql("SELECT name = ? FROM chat_sessions WHERE id = 'SES1'".replace("?", f"'{name}'")) == [(1,)]
        (extra,) = (await r.sql("SELECT extra FROM chat_sessions WHERE id = 'SES2'"))[0]
        assert json.loads(extra)["big"] == 10**300


async def test_same_key_twice_in_an_object_takes_the_last_as_json_readers_do(tmp_path: Path) -> None:
    body = b'{"Items":[{"id":"SES1","name":"first","name":"last","sourceSessionId":"s"}]}'
    async with serve_raw(http(body)) as raw, rig(tmp_path, raw.url) as r:
        assert (await r.one_pass()).state == "complete"
        assert await r.sql("SELECT name FROM chat_sessions") == [("last",)]


async def test_redirect_to_another_origin_is_not_followed_and_gets_no_token(tmp_path: Path) -> None:
    async with serve_raw(GOOD) as other, serve_raw(GOOD) as raw, rig(tmp_path, raw.url) as r:
        raw.answers = [http(b"", status="302 Found", headers=f"Location: {other.url}/steal\r\n")]
        assert (await r.one_pass()).state == "failed"
        assert other.requests == []


async def test_401_during_a_pass_keeps_the_pages_before_it_and_deletes_nothing(tmp_path: Path) -> None:
    async with serve_raw(GOOD) as raw, rig(tmp_path, raw.url) as r:
        raw.by_id = KNOWN
        assert (await r.one_pass()).state == "complete"
        raw.answers = [listing(item("SES3"), key="more"), http(b"{}", status="401 Unauthorized")]
        assert (await r.one_pass()).state == "failed"
        assert [row[0] for row in await r.sql("SELECT id FROM chat_sessions ORDER BY id")] == ["SES1", "SES2", "SES3"]


@pytest.mark.parametrize("name", REFUSED)
async def test_first_request_without_a_valid_answer_ends_the_pass_before_its_listing(tmp_path: Path, name: str) -> None:
    async with serve_raw(GOOD) as raw, rig(tmp_path, raw.url, timeout=0.5) as r:
        assert (await r.one_pass()).state == "complete"
        raw.answers = [REFUSED[name]]
        raw.requests.clear()
        assert (await r.one_pass()).state == ("held" if name == "404 for the listing" else "failed")
        assert not any("/chats/sessions HTTP" in line for line, _ in raw.requests)
        assert len(raw.requests) <= 60


async def test_404s_delete_nothing_when_listed_sessions_answer_404_too(tmp_path: Path) -> None:
    async with serve_raw(GOOD) as raw, rig(tmp_path, raw.url) as r:
        assert (await r.one_pass()).state == "complete"
        missing = http(b"{}", status="404 Not Found")
        raw.by_line = lambda line: (
            listing(item("SES1")) if line.startswith("GET /api/v3/chats/sessions HTTP") else missing
        )
        for _ in range(3):
            await r.one_pass()
        assert await r.sql("SELECT count(*) FROM chat_sessions") == [(2,)]
