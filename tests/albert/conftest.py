"""Fixtures of the client tests: a scripted server, sessions of it, and an issuer of tokens."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from syncd.albert import AlbertClientCredentials, AsyncAlbertSession, ChatSessionCollection
from tests.albert.client_wire import TOKEN, Open, Wire, serving
from tests.albert.token_server import SECRET, Clock, Issuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving() as made:
        yield made


@pytest.fixture
async def opened(wire: Wire) -> AsyncIterator[Open]:
    """Make sessions of the scripted server; the fixture closes them."""
    async with AsyncExitStack() as stack:
        made: list[AsyncAlbertSession] = []

        def make(**options: Any) -> AsyncAlbertSession:
            given = {
                "base_url": wire.url,
                **({} if "auth_manager" in options else {"token": TOKEN}),
                **options,
            }
            session = AsyncAlbertSession(**given)
            made.append(session)
            stack.push_async_callback(session.aclose)
            return session

        yield make


@pytest.fixture
def session(opened: Open) -> AsyncAlbertSession:
    return opened()


@pytest.fixture
def sessions(session: AsyncAlbertSession) -> ChatSessionCollection:
    return ChatSessionCollection(session=session)


@pytest.fixture
def issuer(wire: Wire) -> Issuer:
    return Issuer(wire)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(clock: Clock) -> AlbertClientCredentials:
    return AlbertClientCredentials(id="client", secret=SecretStr(SECRET), clock=clock)


@pytest.fixture
def renewing(opened: Open, credentials: AlbertClientCredentials) -> AsyncAlbertSession:
    return opened(auth_manager=credentials)
