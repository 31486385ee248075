"""Wrong arguments of a session are refused when it is made, with the argument's name and what is accepted."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from syncd.albert import (
    AlbertAuthError,
    AlbertClientCredentials,
    AlbertException,
    AsyncAlbertSession,
    ChatSession,
    ChatSessionCollection,
    InvalidIdError,
    InvalidRequestError,
)
from tests.albert.client_wire import Open, Wire, reply

ONE = {"id": "SES1", "name": "n", "sourceSessionId": "s"}


async def coroutine() -> str:
    return "token"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"timeout": 0}, "timeout must be a number of seconds above 0, not 0"),
        ({"timeout": 10**400}, "timeout must be a number of seconds above 0, not an integer of 1329 bits"),
        ({"timeout": -(10**5000)}, "timeout must be a number of seconds above 0, not an integer of 16610 bits"),
        ({"max_connections": -(10**5000)}, "max_connections must be a number above 0, not an integer of 16610 bits"),
        ({"timeout": -1.5}, "not -1.5"),
        ({"timeout": float("nan")}, "not nan"),
        ({"timeout": None}, "timeout must be a number of seconds above 0, not NoneType"),
        ({"timeout": "5"}, "not str"),
        ({"verify": "/x.pem"}, "a file of CA certificates is the argument ca_file, not str"),
        ({"verify": False}, "verify must be an ssl.SSLContext"),
        ({"base_url": None}, "base_url must be text, such as"),
        ({"proxy": 5}, "proxy must be text"),
        ({"headers": [("a", "b")]}, "headers must be a mapping of text to text, not list"),
        ({"headers": {"a": 1}}, "headers must be a mapping of text to text"),
        ({"token": b"x"}, "token must be text, a SecretStr, or a function"),
        ({"token": coroutine}, "not a coroutine function"),
        ({"max_connections": 0}, "max_connections must be a number above 0, not 0"),
        ({"max_response_bytes": True}, "max_response_bytes"),
        ({"before_request": 1}, "before_request must be a coroutine function"),
        ({"ca_file": 1}, "ca_file must be the path of a file"),
    ],
)
def test_wrong_argument_of_a_session_is_named(wrong: dict[str, Any], said: str) -> None:
    arguments: dict[str, Any] = {"base_url": "https://albert.example.com", "token": "t"}
    with pytest.raises(InvalidRequestError) as caught:
        AsyncAlbertSession(**arguments | wrong)
    assert said in str(caught.value)


@pytest.mark.parametrize("wrong", [{"id": None}, {"secret": None}, {"secret": b"x"}])
def test_wrong_client_credentials_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=f"{next(iter(wrong))} must be text"):
        AlbertClientCredentials(**{"id": "x", "secret": "y"} | wrong)


def test_collection_needs_a_session() -> None:
    with pytest.raises(InvalidRequestError, match="session must be an AsyncAlbertSession, not NoneType"):
        ChatSessionCollection(session=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: None, "is not text"),
        (lambda: os.environ["SYNCD_NO_SUCH_NAME"], "failed: KeyError"),
        (lambda: (_ for _ in ()).throw(OSError("vault sealed")), "cannot be read: OSError"),
    ],
)
async def test_function_that_returns_no_token_is_an_auth_error(
    wire: Wire, opened: Open, read: Callable[[], Any], said: str
) -> None:
    with pytest.raises(AlbertAuthError, match=said):
        await opened(token=read).get("/api/v3/chats/sessions")
    assert wire.seen == []


@pytest.mark.parametrize("status", [401, 404, 429, 503])
async def test_error_after_an_accepted_update_does_not_claim_that_nothing_was_applied(
    wire: Wire, sessions: ChatSessionCollection, status: int
) -> None:
    wire.default = lambda request: reply(200 if request.method == "PATCH" else status, {})
    with pytest.raises(AlbertException) as caught:
        await sessions.update(id="SES1", name="new")
    assert (caught.value.method, caught.value.not_applied) == ("GET", False)


@pytest.mark.parametrize("source_id", ["", ".", "..", "a\nb"])
async def test_source_id_that_cannot_be_looked_up_is_not_created(
    wire: Wire, sessions: ChatSessionCollection, source_id: str
) -> None:
    with pytest.raises(InvalidIdError):
        await sessions.create(session=ChatSession(name="n", source_session_id=source_id))
    assert wire.seen == []


async def test_misspelled_keyword_of_a_call_is_named(sessions: ChatSessionCollection) -> None:
    with pytest.raises(TypeError, match="ids: unexpected keyword argument"):
        await sessions.get_by_id(ids="SES1")  # type: ignore[call-arg]


async def test_unreadable_item_is_named_by_its_id(wire: Wire, sessions: ChatSessionCollection) -> None:
    wire.default = lambda _: reply(200, {"Items": [ONE, {"id": "SES2"}]})
    with pytest.raises(AlbertException, match="the item 'SES2' is not a chat session: name: Field required"):
        [each async for each in sessions.get_all()]
