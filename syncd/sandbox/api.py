"""The Albert API as far as it is known: the effect of a request and its answer, without faults."""

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from syncd.sandbox import answers
from syncd.sandbox.folders import Folders
from syncd.sandbox.habits import Habits
from syncd.sandbox.listings import Pages
from syncd.sandbox.session import Wire, encode, render
from syncd.sandbox.store import Store
from syncd.sandbox.tokens import CLIENT_ID, CLIENT_SECRET, Tokens
from syncd.sandbox.wire import Route, query_of, route_of

CLIENT = ("USR99", "Sandbox Client")

_TEXT_FIELDS = ("parentId", "status", "kind", "automationId", "automationRunId", "lastMessageAt")
_SERVER_FIELDS = ("id", "Created", "Updated")
_PATCHABLE = ("name", "parentId", "status")


class Api:
    """Routes a request and answers it.

    There is no await between the check of a request and its effect, so creates with the same source id never overlap.
    """

    def __init__(self, store: Store, folders: Folders, tokens: Tokens, now: Callable[[], float]) -> None:
        self._store = store
        self._folders = folders
        self._tokens = tokens
        self._pages = Pages(store, now)

    async def answer(self, request: web.BaseRequest, habits: Habits) -> web.Response:
        """Apply the request and return the answer."""
        route = route_of(request.raw_path)
        body = await request.read()
        if route.name == "unknown":
            return answers.problem(habits, 404, "No such path")
        if route.name == "login":
            return await self._login(request, habits)
        if not self._tokens.accepts(request.headers.get("Authorization")):
            return answers.problem(habits, 401, "Unauthorized")
        self._store.catch_up(habits.listing_lag, habits.lookup_lag)
        return self._route(request, route, body, habits)

    def _route(self, request: web.BaseRequest, route: Route, body: bytes, habits: Habits) -> web.Response:
        match request.method, route.name:
            case "GET", "collection":
                query = query_of(request.raw_path, plus_is_space=habits.plus_is_space)
                response = self._pages.answer(query, habits)
            case "GET", "folders":
                query = query_of(request.raw_path, plus_is_space=habits.plus_is_space)
                response = self._folders.page(query, habits)
            case "GET", "folder":
                response = self._folders.look_up(route.id, habits)
            case "GET", _:
                response = self._look_up(route, habits)
            case "POST", "collection":
                response = self._create(body, habits)
            case "PATCH", "item":
                response = self._update(route, body, habits)
            case "DELETE", "item":
                response = self._delete(route, habits)
            case _:
                response = answers.problem(habits, 405, "Method not allowed")
        return response

    async def _login(self, request: web.BaseRequest, habits: Habits) -> web.Response:
        if request.method != "POST":
            return answers.problem(habits, 405, "Method not allowed")
        form = await request.post()
        if form.get("grant_type") != "client_credentials":
            return answers.problem(habits, 400, "unsupported grant_type")
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return answers.problem(habits, 401, "unknown client")
        token = {
            "access_token": self._tokens.issue(
                habits.token_lifetime, claims={"tenantId": habits.tenant_id} if habits.tenant_claim else None
            ),
            "token_type": "Bearer",
            "expires_in": int(habits.token_lifetime),
            "refresh_token": "sandbox-refresh",
            "tenant_id": habits.tenant_id or None,
        }
        return answers.json_value(token)

    def _look_up(self, route: Route, habits: Habits) -> web.Response:
        lookup = self._store.lookup
        by_id = route.name == "item"
        session = lookup.by_id.get(route.id) if by_id else lookup.of_source(route.id)
        if session is None:
            return self._absent(habits, gone=by_id and route.id in lookup.gone)
        return answers.json_bytes(render(session, extra_fields=habits.extra_fields))

    def _absent(self, habits: Habits, *, gone: bool) -> web.Response:
        return answers.problem(habits, habits.gone_status if gone else 404, "No such session")

    def _create(self, body: bytes, habits: Habits) -> web.Response:
        try:
            wire = read_create(body)
        except ValueError as error:
            return answers.problem(habits, 400, str(error))
        first = self._store.truth.of_source(wire["sourceSessionId"])
        if first is not None and habits.duplicate_create != "duplicate":
            if habits.duplicate_create == "first":
                return answers.json_bytes(first.encoded)
            status = 409 if habits.duplicate_create == "conflict" else 400
            return answers.problem(habits, status, f"sourceSessionId is taken by {first.id}")
        return answers.json_bytes(self._store.create(wire, CLIENT).encoded, 201)

    def _update(self, route: Route, body: bytes, habits: Habits) -> web.Response:
        if route.id not in self._store.truth.by_id:
            return self._absent(habits, gone=route.id in self._store.truth.gone)
        try:
            changes = read_patch(body)
        except ValueError as error:
            return answers.problem(habits, 400, str(error))
        self._store.update(route.id, changes, CLIENT)
        return web.Response(status=204)

    def _delete(self, route: Route, habits: Habits) -> web.Response:
        if route.id not in self._store.truth.by_id:
            return self._absent(habits, gone=route.id in self._store.truth.gone)
        self._store.delete(route.id)
        return web.Response(status=204)


def read_create(body: bytes) -> Wire:
    """Return the session that a POST asks for, unknown fields too; raise ValueError for an invalid body."""
    wire = _json_object(body)
    for key in ("name", "sourceSessionId"):
        if not isinstance(wire.get(key), str) or not wire[key].strip():
            raise ValueError(f"{key} is required")
    for key in _TEXT_FIELDS:
        if not isinstance(wire.get(key), str | None):
            raise ValueError(f"{key} must be text")  # noqa: TRY004 - the client's mistake, answered by 400
    return {key: value for key, value in wire.items() if value is not None and key not in _SERVER_FIELDS}


def read_patch(body: bytes) -> Wire:
    """Return the fields that a PATCH changes, None for a field that it removes; raise ValueError for any other body."""
    operations = _json_object(body).get("data")
    if not isinstance(operations, list) or not operations:
        raise ValueError("data must be a list of operations")
    changes: Wire = {}
    for operation in operations:
        match operation:
            case {
                "operation": "add" | "update",
                "attribute": str(attribute),
                "newValue": str() | None as value,
            }:
                changes[attribute] = value
            case {"operation": "delete", "attribute": str(attribute)}:
                changes[attribute] = None
            case _:
                raise ValueError(f"not an operation: {encode(operation).decode()}")
    for attribute, value in changes.items():
        if attribute not in _PATCHABLE or (value is None and attribute != "parentId"):
            raise ValueError(f"cannot set {attribute} to {value!r}")
    return changes


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        raise ValueError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - the client's mistake, answered by 400
    return value
