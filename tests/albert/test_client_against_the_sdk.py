"""The same calls through the official SDK: the same results, errors and requests on the wire."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

from syncd.albert import (
    AlbertHTTPError,
    AsyncAlbertSession,
    ChatSession,
    ChatSessionCollection,
    ChatSessionKind,
)
from syncd.sandbox import Habits, Sandbox, serve
from tests.albert.client_wire import TOKEN, Wire, reply

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own imports
    from albert.collections.chat_sessions import ChatSessionCollection as TheirCollection
    from albert.core.async_session import AsyncAlbertSession as TheirSession
    from albert.exceptions import AlbertHTTPError as TheirHTTPError
    from albert.resources.chats import ChatSession as TheirChatSession
    from albert.resources.chats import ChatSessionKind as TheirKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Both:
    """The collections of syncd and of the SDK on one server."""

    def __init__(self, ours: ChatSessionCollection, theirs: Any) -> None:
        self.ours = ours
        self.theirs = theirs

    async def call(self, call: Callable[[Any, Any, Any], Awaitable[Any]]) -> tuple[object, object]:
        mine = await outcome(call(self.ours, ChatSession, ChatSessionKind), AlbertHTTPError)
        return mine, await outcome(call(self.theirs, TheirChatSession, TheirKind), TheirHTTPError)


async def outcome(call: Awaitable[Any], refused: type[Exception]) -> object:
    try:
        return plain(await call)
    except refused as error:
        return type(error).__name__


def plain(result: Any) -> object:
    """Return models as JSON data without null values, because one side may leave unset what the other sets to null."""
    if isinstance(result, list):
        return [plain(each) for each in result]
    if result is None:
        return None
    return without_null(result.model_dump(by_alias=True, mode="json", exclude_none=True))


def without_null(value: object) -> object:
    return {k: without_null(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def known(result: object) -> object:
    """Return the result without the fields that the SDK drops as unknown."""
    if isinstance(result, list):
        return [known(each) for each in result]
    fields = {each.alias or name for name, each in TheirChatSession.model_fields.items()}
    return {k: v for k, v in result.items() if k in fields} if isinstance(result, dict) else result


async def listed(listing: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in listing]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serve(Sandbox(sessions=250, habits=Habits(awkward_cursor=True))) as made:
        yield made


@pytest.fixture
async def both(sandbox: Sandbox) -> AsyncIterator[Both]:
    async with pair(sandbox.url, sandbox.token) as made:
        yield made


@pytest.fixture
async def both_on_wire(wire: Wire) -> AsyncIterator[Both]:
    async with pair(wire.url, TOKEN) as made:
        yield made


class pair:  # noqa: N801 - used as a function
    def __init__(self, url: str, token: str) -> None:
        self.mine = AsyncAlbertSession(base_url=url, token=token)
        self.their = TheirSession(base_url=url, token=token)

    async def __aenter__(self) -> Both:
        return Both(ChatSessionCollection(session=self.mine), TheirCollection(session=self.their))

    async def __aexit__(self, *_: object) -> None:
        await self.mine.aclose()
        await self.their.aclose()


def by_id(session_id: str) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    return lambda sessions, _, __: sessions.get_by_id(id=session_id)


def by_source(source_id: str) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    return lambda sessions, _, __: sessions.get_by_source_session_id(source_session_id=source_id)


def source_of(sandbox: Sandbox, place: int) -> Any:
    return list(sandbox.live().values())[place]["sourceSessionId"]


LISTINGS: dict[str, Callable[[Any, Any], AsyncIterator[Any]]] = {
    "all": lambda sessions, _: sessions.get_all(),
    "some": lambda sessions, _: sessions.get_all(max_items=130),
    "none": lambda sessions, _: sessions.get_all(max_items=0),
    "by kind": lambda sessions, kind: sessions.get_all(kind=kind.AUTOMATION),
    "by name": lambda sessions, _: sessions.get_all(name=["no-session", "has this & that"], exact_match=True),
    "by folder": lambda sessions, _: sessions.get_all(parent_id="FOL1"),
}


@pytest.mark.parametrize("name", LISTINGS)
async def test_listings_are_the_same(both: Both, name: str) -> None:
    mine, theirs = await both.call(lambda sessions, _, kind: listed(LISTINGS[name](sessions, kind)))
    assert known(mine) == theirs
    if name == "all":
        assert isinstance(mine, list)
        assert len(mine) == 250


@pytest.mark.parametrize("final_key", ["absent", "null", "empty", "repeat", "empty_page"])
async def test_listings_are_the_same_however_they_end(sandbox: Sandbox, both: Both, final_key: Any) -> None:
    """The SDK follows a repeated key forever, so the test limits its items."""
    sandbox.habits.final_key = final_key
    mine = await listed(both.ours.get_all())
    theirs = await listed(both.theirs.get_all(max_items=250))
    assert [each.id for each in mine] == [each.id for each in theirs]


async def test_listing_by_name_is_the_same(sandbox: Sandbox, both: Both) -> None:
    names = sorted({each["name"] for each in sandbox.live().values()})[:3]
    mine, theirs = await both.call(lambda sessions, _, __: listed(sessions.get_all(name=names, exact_match=True)))
    assert known(mine) == theirs
    assert mine


async def test_look_ups_are_the_same(sandbox: Sandbox, both: Both) -> None:
    for place, session_id in enumerate(list(sandbox.live())[:20]):
        mine, theirs = await both.call(by_id(session_id))
        assert known(mine) == theirs
        again = await both.call(by_source(source_of(sandbox, place)))
        assert again == (mine, theirs)


async def test_missing_sessions_and_conflicts_raise_the_same_errors(sandbox: Sandbox, both: Both) -> None:
    source = source_of(sandbox, 0)
    for call in (
        lambda sessions, _, __: sessions.get_by_id(id="SES404"),
        lambda sessions, _, __: sessions.get_by_source_session_id(source_session_id="none"),
        lambda sessions, _, __: sessions.delete(id="SES404"),
        lambda sessions, session, __: sessions.create(session=session(name="n", source_session_id=source)),
    ):
        mine, theirs = await both.call(call)
        assert mine == theirs
        assert mine in {"NotFoundError", "ConflictError"}


async def test_create_update_and_delete_have_the_same_effects(sandbox: Sandbox, both: Both) -> None:
    outcomes = []
    sides: list[tuple[Any, Any]] = [(both.ours, ChatSession), (both.theirs, TheirChatSession)]
    for sessions, model in sides:
        made = await sessions.create(session=model(name="näme", source_session_id="s 1", parent_id="FOL9"))
        stored = sandbox.live()[made.id]
        renamed = await sessions.update(id=made.id, name="new", parent_id=None)
        await sessions.delete(id=made.id)
        assert made.id not in sandbox.live()
        outcomes.append(
            [stored["name"], stored["sourceSessionId"], stored["parentId"], renamed.name, renamed.parent_id]
        )
    assert outcomes[0] == outcomes[1] == ["näme", "s 1", "FOL9", "new", None]
    kinds = [each.kind for each in sandbox.effects]
    assert kinds[: len(kinds) // 2] == kinds[len(kinds) // 2 :]


CALLS: dict[str, Callable[[Any, Any, Any], Awaitable[Any]]] = {
    "create": lambda sessions, session, _: sessions.create(
        session=session(name="näme 🧪", source_session_id="s", parent_id=None)
    ),
    "create all": lambda sessions, session, kind: sessions.create(
        session=session(name="n", source_session_id="s", kind=kind.CHAT, status="active", automation_id="A")
    ),
    "get": lambda sessions, _, __: sessions.get_by_id(id="SES1"),
    "get by source": lambda sessions, _, __: sessions.get_by_source_session_id(
        source_session_id="01234567-89ab-cdef-0123-456789abcdef"
    ),
    "update": lambda sessions, _, __: sessions.update(id="SES1", name="new", parent_id=None),
    "delete": lambda sessions, _, __: sessions.delete(id="SES1"),
    "list": lambda sessions, _, __: listed(sessions.get_all(exact_match=False)),
    "list by": lambda sessions, _, kind: listed(
        sessions.get_all(name=["a b", "ä&=+"], exact_match=True, parent_id="F 1", kind=kind.CHAT, automation_id="A/1")
    ),
}
SAME_HEADERS = ("authorization", "content-type", "accept", "host")


@pytest.mark.parametrize("name", CALLS)
async def test_requests_on_the_wire_are_the_same(wire: Wire, both_on_wire: Both, name: str) -> None:
    """Only a space in a query differs: syncd sends %20, the SDK sends +."""
    session = {"id": "SES1", "name": "n", "sourceSessionId": "s"}

    def answer(seen: Any) -> Any:
        last = "startKey" in seen.target
        return reply(200, {**session, "Items": [session], **({} if last else {"lastKey": "k+/= %&ä"})})

    wire.default = answer
    await both_on_wire.call(CALLS[name])
    half = len(wire.seen) // 2
    mine, theirs = wire.seen[:half], wire.seen[half:]
    assert len(mine) == len(theirs) > 0
    for my, their in zip(mine, theirs, strict=True):
        assert (my.method, my.path, my.body) == (their.method, their.path, their.body)
        assert parse_qsl(my.target.partition("?")[2]) == parse_qsl(their.target.partition("?")[2])
        assert "+" not in my.target
        for header in SAME_HEADERS:
            assert my.headers.get(header) == their.headers.get(header)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 415, 428, 429, 500, 502, 418, 599])
async def test_errors_have_the_names_of_the_sdk(wire: Wire, both_on_wire: Both, status: int) -> None:
    wire.default = lambda _: reply(status, {"message": "no"})
    mine, theirs = await both_on_wire.call(lambda sessions, _, __: sessions.get_by_id(id="SES1"))
    assert mine == theirs
