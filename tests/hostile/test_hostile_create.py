"""Hostile answers to a POST: it is sent once, and an answer that cannot be read makes the operation unknown."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from tests.hostile.raw_server import LIMIT, Answer, http, item, rig, serve_raw

MISSING = http(b"{}", status="404 Not Found")
CREATED = json.dumps(item("SES9", sourceSessionId="s", name="n")).encode()


async def _hang(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(2)


LOST: dict[str, Answer] = {
    "a reset": None,
    "no answer in time": _hang,
    "a cut body": http(CREATED[:9], length=len(CREATED), status="201 Created"),
    "an empty 201": http(b"", status="201 Created"),
    "HTML with 200": http(b"<p>One moment"),
    "another session": http(json.dumps(item("SES9", sourceSessionId="another")).encode(), status="201 Created"),
    "a session without an id": http(b'{"name":"n","sourceSessionId":"s"}', status="201 Created"),
    "gzip that is cut": http(gzip.compress(CREATED)[:-12], status="201 Created", headers="Content-Encoding: gzip\r\n"),
    "a bomb": http(gzip.compress(bytes(64 * LIMIT)), status="201 Created", headers="Content-Encoding: gzip\r\n"),
    "500": http(b"{}", status="500 Internal Server Error"),
    "503 with Retry-After": http(b"{}", status="503 Unavailable", headers="Retry-After: 1\r\n"),
    "408": http(b"{}", status="408 Request Timeout"),
}


@pytest.mark.parametrize("name", LOST)
async def test_create_whose_answer_is_lost_is_sent_once_and_becomes_unknown(tmp_path: Path, name: str) -> None:
    async with serve_raw(MISSING) as raw, rig(tmp_path, raw.url, timeout=0.7) as r:
        raw.by_line = lambda line: LOST[name] if line.startswith("POST") else MISSING
        operation = await r.one_create()
        assert operation["state"] == "unknown", operation
        assert raw.asked("POST") == 1


REFUSED: dict[str, tuple[Answer, str]] = {
    "400": (http(b'{"message":"no"}', status="400 Bad Request"), "dead"),
    "422": (http(b'{"message":"no"}', status="422 Unprocessable"), "dead"),
    "a redirect": (http(b"", status="307 Temporary", headers="Location: http://127.0.0.1:9/\r\n"), "dead"),
    "401": (http(b"{}", status="401 Unauthorized"), "pending"),
    "403": (http(b"{}", status="403 Forbidden"), "pending"),
    "429": (http(b"{}", status="429 Slow down", headers="Retry-After: 5\r\n"), "pending"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_create_that_was_refused_is_not_unknown(tmp_path: Path, name: str) -> None:
    answer, state = REFUSED[name]
    async with serve_raw(MISSING) as raw, rig(tmp_path, raw.url) as r:
        raw.by_line = lambda line: answer if line.startswith("POST") else MISSING
        operation = await r.one_create()
        assert operation["state"] == state, operation
        assert raw.asked("POST") == 1
