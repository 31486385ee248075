"""Helpers of the tests of passes: a listing scripted page by page, sessions in JSON, and queries of the mirror."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel
from aiohttp import web

from tests.helpers.harness import Harness

BASE = "/api/v3/chats/sessions"
TABLES = ("sessions", "session_versions", "source_sessions", "quarantine")
TURNS = 20
"""Turns of the event loop in which the sandbox receives what a pass had sent before it was cancelled."""
CHANGES = ("inserted", "updated", "unchanged", "restored")


def wire(id: str, at: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a session in the JSON of the API; `at` is the minute of its last change."""
    audit = {"by": "USR1", "byName": "Ada", "at": f"2026-01-01T00:{at:02}:00.000Z"}
    return {"id": id, "name": f"name of {id}", "sourceSessionId": f"source of {id}", "Updated": audit} | fields


def page(*items: Any, key: Any = None) -> dict[str, Any]:
    """Return a page of the listing; without a key it is the last one."""
    return {"Items": list(items)} if key is None else {"Items": list(items), "lastKey": key}


def all_but(harness: Harness, *left_out: str) -> dict[str, Any]:
    """Return one page with all live sessions of the sandbox except some."""
    return page(*(item for session_id, item in harness.sandbox.live().items() if session_id not in left_out))


class Listing:
    """A listing whose pages the test gives; the sandbox answers all other requests.

    A session of these pages that the sandbox never had is found by its id, except those in `gone`.

    Parameters
    ----------
    pages : Mapping[str | None, Any]
        By start key: a value to send as JSON, bytes to send unchanged, a status, a response, or a function that
        returns one of these.
    """

    def __init__(self, harness: Harness, pages: Mapping[str | None, Any] | None = None) -> None:
        self.pages: Mapping[str | None, Any] = {} if pages is None else pages
        self.asked: list[str | None] = []
        self.gone: set[str] = set()
        self._served: dict[str, Any] = {}
        self._store = harness.sandbox.store.truth
        harness.sandbox.script("GET", lambda request: request.path == BASE, self._answer, times=10**9)
        harness.sandbox.script(
            "GET", self._has, lambda request: web.json_response(self._served[_id_of(request)]), 10**9
        )

    def _has(self, request: web.BaseRequest) -> bool:
        session_id = _id_of(request)
        known = session_id in self._store.by_id or session_id in self._store.gone or session_id in self.gone
        return session_id in self._served and not known

    def _answer(self, request: web.BaseRequest) -> web.Response:
        key = request.query.get("startKey")
        self.asked.append(key)
        body = self.pages[key]
        if callable(body):
            body = body()
        if isinstance(body, int):
            return web.json_response({"message": "scripted"}, status=body)
        if isinstance(body, web.Response):
            return body
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._served.update(_items_of(data))
        return web.Response(body=data, content_type="application/json")


def _id_of(request: web.BaseRequest) -> str:
    path = request.path.removeprefix(f"{BASE}/")
    return "" if path == request.path or "/" in path else path


def _items_of(body: bytes) -> dict[str, Any]:
    try:
        items = json.loads(body)["Items"]
        return {item["id"]: item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def answer_get(harness: Harness, session_id: str, action: Any, times: int = 10**9) -> None:
    """Script the answers to `GET /{id}` of one session."""
    harness.sandbox.script("GET", lambda request: request.raw_path == f"{BASE}/{session_id}", action, times)


def asked_for(harness: Harness) -> list[str]:
    """Return the ids of the requests for single sessions, including the first requests of passes."""
    paths = [path.removeprefix(f"{BASE}/") for path in harness.asked("GET", f"{BASE}/")]
    return [path for path in paths if not path.startswith("source/")]


def listings(harness: Harness) -> list[str]:
    """Return the requests for pages."""
    return [path for path in harness.asked("GET") if path.partition("?")[0] == BASE]


async def dump(harness: Harness) -> dict[str, list[dict[str, Any]]]:
    """Return all rows that a pass over unchanged sessions must not change."""
    return {table: await harness.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES}


async def session(harness: Harness, session_id: str) -> dict[str, Any]:
    """Return a session's row."""
    (row,) = await harness.sql("SELECT * FROM sessions WHERE id = ?", session_id)
    return row


async def history(harness: Harness, session_id: str) -> list[dict[str, Any]]:
    """Return a session's versions, oldest first."""
    return await harness.sql(
        "SELECT change, name, valid_from, valid_to, pass_id FROM chat_session_history WHERE session_id = ? "
        "ORDER BY valid_from, valid_to IS NULL, valid_to",
        session_id,
    )


async def counted(harness: Harness) -> dict[str, Any]:
    """Assert that the counters of the last pass add up, and return its row."""
    row = await harness.last_pass()
    with_id = row["quarantined"] - row["without_id"]
    assert sum(row[name] for name in CHANGES) + with_id == row["seen"], row
    assert min(row[name] for name in (*CHANGES, "seen", "quarantined", "without_id")) >= 0, row
    assert with_id >= 0, row
    return row


async def run_until(harness: Harness, *, pages: int) -> None:
    """Run a pass and cancel it when a number of pages have been written."""
    with anyio.CancelScope() as scope:

        def on_page(counts: Mapping[str, int]) -> None:
            if counts["pages"] == pages:
                scope.cancel()

        pull = harness.pull()
        pull.on_page = on_page
        await pull.run()
    for _ in range(TURNS):
        await anyio.lowlevel.checkpoint()


async def quarantine_rows(harness: Harness) -> list[dict[str, Any]]:
    """Return all rows of the quarantine, oldest first."""
    return await harness.sql("SELECT * FROM quarantine ORDER BY id")
