"""The differences that docs/library.md lists under "Moving from the SDK", each tested on both sides."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import ValidationError

from syncd.albert import (
    AlbertClientCredentials,
    AlbertResponseError,
    AlbertTransportError,
    AsyncAlbertSession,
    ChatFolderCollection,
    ChatSession,
    ChatSessionCollection,
    InvalidIdError,
    InvalidRequestError,
    NotFoundError,
)
from tests.albert.client_wire import TOKEN, Wire, reply

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own imports
    import albert
    from albert.collections.chat_folders import ChatFolderCollection as TheirFolders
    from albert.collections.chat_sessions import ChatSessionCollection as TheirCollection
    from albert.core.async_session import AsyncAlbertSession as TheirSession
    from albert.core.auth.credentials import AlbertClientCredentials as TheirCredentials
    from albert.core.pagination import AsyncAlbertPaginator as TheirPaginator
    from albert.exceptions import NotFoundError as TheirNotFoundError
    from albert.resources.chats import ChatSession as TheirChatSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAGE = Path(__file__).resolve().parents[2] / "docs/library.md"
ONE_TO_CREATE: Any = {"name": "n", "sourceSessionId": "s"}
ONE = {"id": "SES1", "name": "n", "sourceSessionId": "s"}
SUBJECTS = {
    "Import", "`exact_match`", "`created_by`, `updated_by`", "`start_key`, `on_error`, `last_key`",
    "A page without items, with a new key", "A page key that was seen before", "An iteration that raised",
    "An item that is not a session", "Unknown fields of the server", "Unknown value of `status` or `kind`",
    "Misspelled keyword of `ChatSession`", "Wrong arguments", "Ids in paths", "`error.response`",
    "Errors of the network", "Time limit", "Proxy variables of the environment",
    "`AlbertClientCredentials.from_env()`", "`+` in a query", "Folders", "`AlbertSSOClient`",
}  # fmt: skip
"""The rows of the page; a new row needs a test here."""


@pytest.fixture
async def theirs(wire: Wire) -> AsyncIterator[Any]:
    async with TheirSession(base_url=wire.url, token=TOKEN) as session:
        yield TheirCollection(session=session)


def test_every_row_of_the_page_is_listed_here() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Moving from the SDK")[2]
    rows = re.findall(r"^\| (.+?) \| .+? \| .+? \|$", section, re.MULTILINE)[1:]
    assert {row for row in rows if not row.startswith("---")} == SUBJECTS


def test_sdk_matches_the_page_and_has_no_key_of_the_next_page() -> None:
    assert not hasattr(TheirPaginator, "last_key")
    assert {"create", "update", "delete"} <= set(dir(TheirFolders))
    assert not {"create", "update", "delete"} & set(dir(ChatFolderCollection))
    assert hasattr(albert, "AlbertSSOClient")


async def test_wrong_number_of_items_is_accepted_by_the_sdk(sessions: ChatSessionCollection, theirs: Any) -> None:
    assert await _all(theirs.get_all(max_items=-1)) == []
    with pytest.raises(InvalidRequestError, match="max_items"):
        sessions.get_all(max_items=-1)


async def test_exact_match_and_the_filters_differ(wire: Wire, sessions: ChatSessionCollection, theirs: Any) -> None:
    wire.default = lambda _: reply(200, {"Items": []})
    await _all(sessions.get_all(name=["a"]))
    await _all(theirs.get_all(name=["a"]))
    await _all(sessions.get_all(exact_match=True, created_by="U1", updated_by="U2"))
    await _all(theirs.get_all(exact_match=True))
    sent = [each.query for each in wire.seen]
    assert sent == [
        [("name", "a")],
        [("name", "a"), ("exactMatch", "true")],
        [("createdBy", "U1"), ("updatedBy", "U2"), ("exactMatch", "true")],
        [],
    ]
    with pytest.raises(ValidationError):
        theirs.get_all(created_by="U1")
    with pytest.raises(ValidationError):
        theirs.get_all(start_key="k")
    with pytest.raises(ValidationError):
        theirs.get_all(on_error=print)


async def test_empty_page_with_a_new_key_ends_the_listing_only_in_the_sdk(
    wire: Wire, sessions: ChatSessionCollection, theirs: Any
) -> None:
    for listing, ids in ((sessions.get_all(), ["SES1"]), (theirs.get_all(), [])):
        wire.then(reply(200, {"Items": [], "lastKey": "a"}), reply(200, {"Items": [ONE]}))
        assert [each.id async for each in listing] == ids
        wire.script.clear()


async def test_repeated_key_is_requested_again_only_by_the_sdk(
    wire: Wire, sessions: ChatSessionCollection, theirs: Any
) -> None:
    wire.default = lambda _: reply(200, {"Items": [ONE], "lastKey": "same"})
    assert len(await _all(sessions.get_all())) == 2
    assert len(await _all(theirs.get_all(max_items=7))) == 7


async def test_iteration_that_raised_ends_silently_only_in_the_sdk(
    wire: Wire, sessions: ChatSessionCollection, theirs: Any
) -> None:
    for listing, ids in ((sessions.get_all(), ["SES1"]), (theirs.get_all(), [])):
        wire.then(reply(503), reply(200, {"Items": [ONE]}))
        with pytest.raises(Exception, match=r"503|GET"):
            await _all(listing)
        assert [each.id async for each in listing] == ids
        wire.script.clear()


async def test_item_that_is_not_a_session_raises_an_error_of_the_family(
    wire: Wire, sessions: ChatSessionCollection, theirs: Any
) -> None:
    wire.default = lambda _: reply(200, {"Items": [{"id": "SES1"}]})
    with pytest.raises(AlbertResponseError):
        await _all(sessions.get_all())
    with pytest.raises(ValidationError):
        await _all(theirs.get_all())


def test_unknown_fields_values_and_keywords_differ() -> None:
    with_new_values = {**ONE, "kind": "swarm", "mood": 1}
    read = ChatSession.model_validate(with_new_values)
    assert (read.kind, read.model_extra) == ("swarm", {"mood": 1})
    with pytest.raises(ValidationError):
        TheirChatSession.model_validate(with_new_values)
    assert TheirChatSession.model_validate({**ONE, "mood": 1}).model_extra is None
    with pytest.raises(TypeError, match="did you mean 'parent_id'"):
        ChatSession(name="n", source_session_id="s", parentid="FOL1")
    assert TheirChatSession(name="n", source_session_id="s", parentid="FOL1").parent_id is None


async def test_wrong_arguments_raise_errors_of_the_family(sessions: ChatSessionCollection, theirs: Any) -> None:
    with pytest.raises(InvalidRequestError, match="max_items"):
        sessions.get_all(max_items=-1)
    with pytest.raises(InvalidRequestError, match="name"):
        sessions.get_all(name="not a list")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="session"):
        await sessions.create(session={"name": "without a source id"})  # type: ignore[arg-type]
    with pytest.raises(InvalidIdError):
        await sessions.get_by_id(id=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parentid"):
        sessions.get_all(parentid="FOL1")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        await theirs.get_by_id(id=5)


async def test_dict_is_accepted_for_a_session_as_by_the_sdk(
    wire: Wire, sessions: ChatSessionCollection, theirs: Any
) -> None:
    wire.default = lambda _: reply(200, ONE)
    for each in (sessions, theirs):
        made = await each.create(session=ONE_TO_CREATE)
        assert made.id == "SES1"
    assert wire.seen[0].body == wire.seen[1].body


async def test_ids_are_encoded_only_by_syncd(wire: Wire, sessions: ChatSessionCollection, theirs: Any) -> None:
    wire.default = lambda _: reply(200, ONE)
    await sessions.get_by_id(id="a/b?c")
    await theirs.get_by_id(id="a/b?c")
    assert [each.target.rpartition("sessions")[2] for each in wire.seen] == ["/a%2Fb%3Fc", "/a/b?c"]


async def test_errors_have_the_response_in_the_sdk_and_its_parts_in_syncd(
    wire: Wire, sessions: ChatSessionCollection, theirs: Any
) -> None:
    wire.default = lambda _: reply(404, {"message": "no such session"}, retry_after="3")
    with pytest.raises(NotFoundError) as ours:
        await sessions.get_by_id(id="SES1")
    with pytest.raises(TheirNotFoundError) as their:
        await theirs.get_by_id(id="SES1")
    assert their.value.response.status_code == ours.value.status_code == 404
    assert not hasattr(ours.value, "response")
    assert ("no such session" in ours.value.body, ours.value.retry_after) == (True, 3.0)


async def test_network_errors_are_of_the_family_only_in_syncd() -> None:
    async with (
        AsyncAlbertSession(base_url="http://127.0.0.1:1", token=TOKEN) as mine,
        TheirSession(base_url="http://127.0.0.1:1", token=TOKEN) as their,
    ):
        with pytest.raises(AlbertTransportError):
            await ChatSessionCollection(session=mine).get_by_id(id="SES1")
        with pytest.raises(httpx.ConnectError):
            await TheirCollection(session=their).get_by_id(id="SES1")


async def test_time_limits_and_proxies_differ(
    wire: Wire, theirs: Any, sessions: ChatSessionCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert theirs._session._client.timeout == httpx.Timeout(5.0)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    wire.default = lambda _: reply(200, ONE)
    assert (await sessions.get_by_id(id="SES1")).id == "SES1"
    async with TheirSession(base_url=wire.url.replace("127.0.0.1", "localhost"), token=TOKEN) as their:
        assert their._client.trust_env


def test_from_env_exists_only_in_the_sdk() -> None:
    assert hasattr(TheirCredentials, "from_env")
    assert not hasattr(AlbertClientCredentials, "from_env")


async def _all(listing: Any) -> list[Any]:
    return [each async for each in listing]
