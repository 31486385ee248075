"""An Albert in this process: the sandbox's store and rules, without sockets, with every way to lose an answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import anyio

from syncd.albert import ChatSessionCollection
from syncd.albert.errors import (
    AlbertConnectError,
    AlbertException,
    AlbertLostError,
    AlbertResponseError,
    AlbertTimeoutError,
    http_error_class,
)
from syncd.albert.paths import segment
from syncd.records.fields import SESSIONS as FIELDS
from syncd.records.fields import SessionRow
from syncd.records.items import UnreadableError, read_item
from syncd.sandbox.api import Api
from syncd.sandbox.folders import Folders
from syncd.sandbox.habits import Habits
from syncd.sandbox.session import Session, Wire, render
from syncd.sandbox.store import Store
from syncd.sandbox.tokens import Tokens
from syncd.sandbox.wire import SESSIONS, route_of

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

BEFORE = ("connect", "lost", "timeout", "e500", "e503", "e503wait", "e429", "e403", "e408", "e302", "e401", "auth")
AFTER = ("lost_after", "timeout_after", "e500_after", "e502_after", "e408_after", "cut", "html", "empty", "late")
STATUS = {
    "e500": 500, "e503": 503, "e503wait": 503, "e429": 429, "e403": 403, "e408": 408, "e302": 302, "e401": 401,
    "e500_after": 500, "e502_after": 502, "e408_after": 408,
}  # fmt: skip


class KilledError(BaseException):
    """The process was killed: its calls have no effect any more."""


@dataclass
class Faults:
    """The present faults: the chance that a request has one, and the possible ones."""

    chance: float = 0.0
    kinds: tuple[str, ...] = BEFORE + AFTER
    refused: bool = False
    outage: bool = False
    forbidden: bool = False
    broken: float = 0.0
    gateway: str | None = None
    """Which requests a gateway answers by 404: a name of `GATEWAYS`."""
    gateway_body: str = ""
    other_tenant: bool = False
    """Whether the credentials lead to another tenant."""


GATEWAYS: dict[str, Callable[[str, str], bool]] = {
    "all": lambda _method, _path: True,
    "look-ups": lambda method, path: method == "GET" and path != SESSIONS,
    "look-ups by source id": lambda _method, path: path.startswith(f"{SESSIONS}/source/"),
    "changes": lambda method, _path: method != "GET",
    "deletes": lambda method, _path: method == "DELETE",
}
OTHER_TENANT = json.dumps({"Items": [{"id": "SESX", "name": "theirs", "sourceSessionId": "their-1"}]}).encode()
"""The listing of another tenant. It is not noted as served, so a mirror that stores it breaks an invariant."""
GATEWAY_BODIES = ("<html>404 Not Found</html>", '{"message": "no Route matched"}', "")


@dataclass
class Served:
    """The answers and effects of the API, for the invariants."""

    rows: dict[str, dict[SessionRow, int]] = field(default_factory=lambda: defaultdict(dict))
    """For each session the versions that there ever were, in their order."""
    said: dict[str, set[SessionRow]] = field(default_factory=lambda: defaultdict(set))
    """For each session the versions that were served."""
    pages: dict[str | None, list[set[str]]] = field(default_factory=lambda: defaultdict(list))
    """The ids on the pages served, by the key that the page gave."""
    absences: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When a GET by id was answered by 404 or 410."""
    foreign: set[str] = field(default_factory=set)
    """Source ids that others have created or changed."""
    updated: set[tuple[str, str | None]] = field(default_factory=set)
    """The session and the new name of each PATCH of ours that was applied, and of each name that a session had."""
    misdated: set[str] = field(default_factory=set)
    """Sessions with a wrong `Updated.at`: answers that overlap in time may be taken in the wrong order."""
    doubled: list[str] = field(default_factory=list)
    """Source ids that got a second session by a POST of ours."""
    unanswered: set[str] = field(default_factory=set)
    """Source ids that a POST of ours has created, as they are stored, whose answer was lost, also by a kill."""
    answered: set[str] = field(default_factory=set)
    """The same if the answer was received; the mirror may not have it yet."""
    log: list[str] = field(default_factory=list)


class Tenant:
    """The server's side, which exists longer than any client."""

    def __init__(self, rng: Random, habits: Habits, now: Callable[[], float]) -> None:
        self.rng = rng
        self.habits = habits
        self.now = now
        self.faults = Faults()
        self.served = Served()
        self.store = Store([], lambda: 1_780_000_000.0 + now())
        self.api = Api(self.store, Folders(now), Tokens("t", now, rng), self._issued_at)
        self.late: TaskGroup | None = None
        self.latest_late = 6.0
        self.renames = False
        """Whether a create stores its source id in upper case."""
        self.finds_both = False
        """Whether such a session is found by the source id that the create named, too."""

    def _issued_at(self) -> float:
        """Return the time in page keys: none but where they expire, so that an unchanged page is the same bytes."""
        return 0.0 if self.habits.cursor_ttl is None else self.now()

    def row(self, session: Session) -> SessionRow:
        """Return a session as the mirror must hold it."""
        return read_item(json.loads(render(session, extra_fields=self.habits.extra_fields)), FIELDS)

    def note(self, session: Session) -> None:
        """Note a version."""
        versions, number = self.served.rows[session.id], len(self.served.rows[session.id])
        versions[self.row(session)] = number
        self.served.updated.add((session.id, session.name))
        versions[read_item(session.wire(), FIELDS)] = number  # the answer to a create has no unknown fields

    def truth(self) -> dict[str, SessionRow]:
        """Return the sessions that exist."""
        return {session.id: self.row(session) for session in self.store.truth.by_id.values()}

    def create(self, wire: Wire) -> Session:
        """Create as another user."""
        self.served.foreign.add(wire["sourceSessionId"])
        session = self.store.create(wire, ("USR1", "A colleague"))
        self.note(session)
        return session

    def update(self, id: str, changes: Wire) -> None:
        """Change as another user."""
        before = self.store.truth.by_id[id].source
        session = self.store.update(id, changes, ("USR1", "A colleague"))
        if session.source != before:
            self.served.foreign |= {session.source, before}
        self.note(session)

    def apply(self, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes]:
        """Apply a request and return its answer."""
        self.store.catch_up(self.habits.listing_lag, self.habits.lookup_lag)
        before = len(self.store.effects)
        if self.renames:
            path, body = self._renamed(method, path, body)
        if method == "POST":
            source = json.loads(body)["sourceSessionId"]
            there = self.store.truth.of_source(source) is not None
            if there and self.habits.duplicate_create == "duplicate" and self._could_be_known(source):
                self.served.doubled.append(source)
            self.served.unanswered.add(source)
        request: Any = SimpleNamespace(method=method, raw_path=f"{path}?{query}" if query else path)
        response = self.api._route(request, route_of(path), body, self.habits)
        for effect in self.store.effects[before:]:
            if effect.kind != "deleted":
                self.note(self.store.truth.by_id[effect.session_id])
        payload = response.body
        return response.status, payload if isinstance(payload, bytes) else b""

    def _could_be_known(self, source: str) -> bool:
        """Whether a client can know that an earlier POST has created a session."""
        return self.finds_both or not self.renames or source not in self.served.unanswered

    def process_ended(self) -> None:
        """Note that answers which the mirror does not have are lost."""
        self.served.unanswered |= self.served.answered
        self.served.answered.clear()

    def _renamed(self, method: str, path: str, body: bytes) -> tuple[str, bytes]:
        if method == "POST":
            wire = json.loads(body)
            body = json.dumps(wire | {"sourceSessionId": wire["sourceSessionId"].upper()}).encode()
        place, _, source = path.rpartition("/source/")
        if place and self.finds_both and self.store.lookup.of_source(unquote(source)) is None:
            path = f"{place}/source/{segment(unquote(source).upper())}"
        return path, body


class Client(ChatSessionCollection):
    """The client of one run of the daemon: the collection's raw calls, straight to the tenant.

    Parameters
    ----------
    on_change : Callable[[str, str, bytes], None]
        Called when a request that changes Albert leaves, before anything of it is done.
    """

    def __init__(self, tenant: Tenant, timeout: float, on_change: Callable[[str, str, bytes], None]) -> None:
        self.base_path = SESSIONS
        self.tenant = tenant
        self.timeout = timeout
        self.on_change = on_change
        self.dead = False

    async def list_raw(self, *, start_key: str | None) -> bytes:
        query = "" if start_key is None else f"startKey={start_key}"
        body = await self._exchange("GET", SESSIONS, query=query)
        return body if body is OTHER_TENANT else self._note_page(body)

    async def get_raw(self, *, id: str) -> bytes:
        return await self._exchange("GET", f"{SESSIONS}/{segment(id)}", item=id)

    async def get_raw_by_source_session_id(self, *, source_session_id: str) -> bytes:
        return await self._exchange("GET", f"{SESSIONS}/source/{segment(source_session_id)}")

    async def create_raw(self, *, body: Mapping[str, object]) -> bytes:
        return await self._exchange("POST", SESSIONS, body=json.dumps(dict(body)).encode())

    async def update_raw(self, *, id: str | None, changes: Mapping[str, str | None]) -> None:
        data = [{"operation": "update", "attribute": name, "newValue": value} for name, value in changes.items()]
        body = json.dumps({"data": data}).encode()
        await self._exchange("PATCH", f"{SESSIONS}/{segment(id)}", body=body, item=id)

    async def delete_raw(self, *, id: str | None) -> int:
        await self._exchange("DELETE", f"{SESSIONS}/{segment(id)}", item=id)
        return 204

    def _raise_if_killed(self) -> None:
        if self.dead:
            raise KilledError

    async def _pause(self, longest: float) -> None:
        rng = self.tenant.rng
        await anyio.sleep(rng.choice((0.0, 0.0, 0.01, 0.3)) if longest > 1 else 0.0)
        self._raise_if_killed()

    async def _exchange(
        self, method: str, path: str, *, query: str = "", body: bytes = b"", item: str | None = None
    ) -> bytes:
        self._raise_if_killed()
        tenant = self.tenant
        if method != "GET":
            self.on_change(method, item or "", body)
        tenant.served.log.append(f"{tenant.now():.2f} {method} {path}")
        await self._pause(self.timeout)
        faults = tenant.faults
        if faults.other_tenant:
            return self._answer_as_other_tenant(method, path)
        if faults.gateway is not None and GATEWAYS[faults.gateway](method, path):
            raise http_error_class(404)("", status_code=404, method=method, path=path, body=faults.gateway_body)
        fault = self._fault(method)
        if fault in BEFORE:
            await self._fail(fault)
        if fault == "late" and tenant.late is not None:
            tenant.late.start_soon(self._later, method, path, query, body)
            await self._fail("timeout_after")
        status, payload = tenant.apply(method, path, query, body)
        await self._pause(self.timeout)
        if fault is not None:
            payload = await self._spoil(fault, payload)
        elif status >= 300:
            if status in {404, 410} and item is not None and method == "GET":
                tenant.served.absences[item].append(tenant.now())
            raise http_error_class(status)("no", status_code=status, method=method, path=path, body=payload.decode())
        if method not in {"DELETE", "PATCH"}:
            self._note_session(payload, created=method == "POST" and fault is None)
        return payload

    def _answer_as_other_tenant(self, method: str, path: str) -> bytes:
        """Answer as another tenant does. It is never changed: before that, the daemon compares the tenants."""
        if method != "GET":
            raise AlbertConnectError("no connection")
        if path == SESSIONS:
            return OTHER_TENANT
        raise http_error_class(404)("no", status_code=404, method=method, path=path, body='{"message": "no"}')

    def _fault(self, method: str) -> str | None:
        faults, rng = self.tenant.faults, self.tenant.rng
        if faults.refused:
            return "e401"
        if faults.outage:
            return "e500"
        if faults.forbidden:
            return "e403"
        if rng.random() >= faults.chance:
            return None
        fault = rng.choice(faults.kinds)
        return None if fault == "late" and method == "GET" else fault

    async def _later(self, method: str, path: str, query: str, body: bytes) -> None:
        """Apply the change after the client has given up."""
        await anyio.sleep(self.tenant.rng.random() * self.tenant.latest_late)
        self.tenant.apply(method, path, query, body)

    async def _fail(self, fault: str) -> None:
        retry_after = {"e503wait": self.tenant.rng.choice((0.5, 3.0)), "e429": self.tenant.rng.choice((None, 1.0, 4.0))}
        error: AlbertException
        if fault == "connect":
            error = AlbertConnectError("no connection")
        elif fault in {"lost", "lost_after"}:
            error = AlbertLostError("the connection broke")
        elif fault in {"timeout", "timeout_after"}:
            await anyio.sleep(self.timeout)
            error = AlbertTimeoutError("no whole answer")
        elif fault == "auth":
            error = http_error_class(401)("no", status_code=401)
        else:
            status = STATUS[fault]
            error = http_error_class(status)("no", status_code=status, retry_after=retry_after.get(fault))
        self._raise_if_killed()
        raise error

    async def _spoil(self, fault: str, payload: bytes) -> bytes:
        if fault == "cut":
            raise AlbertResponseError("the answer was cut")
        if fault == "html":
            return b"<!DOCTYPE html><p>One moment please"
        if fault == "empty":
            return self.tenant.rng.choice((b"", b"{}", b"[]", b'{"Items":null}', payload[: len(payload) // 2]))
        await self._fail(fault)
        return payload

    def _note_session(self, body: bytes, *, created: bool) -> None:
        try:
            row = read_item(json.loads(body), FIELDS)
        except (ValueError, UnreadableError):
            return
        served = self.tenant.served
        served.said[row.id].add(row)
        if created:
            served.unanswered.discard(row.source_session_id)
            served.answered.add(row.source_session_id)

    def _note_page(self, body: bytes) -> bytes:
        """Note the content of a page; sometimes one of its items is made unreadable first."""
        try:
            page = json.loads(body)
            items = page["Items"]
            assert isinstance(items, list)
        except (ValueError, KeyError, TypeError, AssertionError):
            return body
        rng, broken = self.tenant.rng, self.tenant.faults.broken
        if items and broken and rng.random() < broken:
            item = rng.choice(items)
            item.pop("id" if rng.random() < 0.2 else "name")
            body = json.dumps(page).encode()
        ids = set()
        for item in items:
            if "id" in item:
                ids.add(item["id"])
            if "id" in item and "name" in item:
                self.tenant.served.said[item["id"]].add(read_item(item, FIELDS))
        self.tenant.served.pages[page.get("lastKey") or None].append(ids)
        return body
