"""`check_token`: called before the first request with each new token; a refused token is never sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from syncd.albert import (
    AlbertAuthError,
    AlbertClientCredentials,
    AlbertException,
    AlbertServerError,
    AlbertTenantError,
    AlbertTimeoutError,
)
from syncd.albert.auth import TOKEN_PATH, Token
from tests.albert.client_wire import TOKEN, Answer, Open, Seen, Wire, hang, reply

API = "/api/v3/chats/sessions"


class Tenants:
    """A token endpoint whose tenant changes; the API accepts the newest token only."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.tenant_id, self.issued = wire, "TEN1", 0
        wire.default = self.answer

    def answer(self, seen: Seen) -> Answer:
        if seen.path == TOKEN_PATH:
            self.issued += 1
            return reply(200, {"access_token": f"token-{self.issued}", "tenant_id": self.tenant_id})
        good = seen.headers["authorization"] == f"Bearer token-{self.issued}"
        return reply(200, {"Items": []}) if good else reply(401, {"message": "expired"})

    @property
    def used(self) -> list[str]:
        return [seen.headers["authorization"] for seen in self.wire.seen if seen.path != TOKEN_PATH]


@pytest.fixture
def tenants(wire: Wire) -> Tenants:
    return Tenants(wire)


def accepting(tenant_id: str, checked: list[Token]) -> Callable[[Token], object]:
    async def check(token: Token) -> None:
        checked.append(token)
        await asyncio.sleep(0)
        if token.tenant_id != tenant_id:
            raise AlbertTenantError(f"tenant {token.tenant_id}")

    return check


def credentials() -> AlbertClientCredentials:
    return AlbertClientCredentials(id="client", secret="secret")


async def test_each_new_token_is_checked_once_before_its_first_request(tenants: Tenants, opened: Open) -> None:
    checked: list[Token] = []
    session = opened(auth_manager=credentials(), check_token=accepting("TEN1", checked))
    for _ in range(3):
        await session.ask("GET", API)
    tenants.issued += 1  # revokes the token
    await session.ask("GET", API)
    assert [token.tenant_id for token in checked] == ["TEN1", "TEN1"]


async def test_refused_token_is_never_sent(tenants: Tenants, opened: Open) -> None:
    tenants.tenant_id = "TEN2"
    session = opened(auth_manager=credentials(), check_token=accepting("TEN1", []))
    for _ in range(2):
        with pytest.raises(AlbertTenantError, match="TEN2") as caught:
            await session.ask("POST", API, json={})
        assert caught.value.not_applied
        assert (caught.value.method, caught.value.path) == ("POST", API)
        assert session.refused
    assert tenants.used == []


async def test_renewed_token_of_another_tenant_is_not_sent_after_a_401(tenants: Tenants, opened: Open) -> None:
    session = opened(auth_manager=credentials(), check_token=accepting("TEN1", []))
    await session.ask("GET", API)
    tenants.tenant_id, tenants.issued = "TEN2", tenants.issued + 1
    with pytest.raises(AlbertTenantError):
        await session.ask("GET", API)
    assert tenants.used == ["Bearer token-1", "Bearer token-1"]


async def test_fixed_token_is_checked(wire: Wire, opened: Open) -> None:
    session = opened(token="opaque", check_token=accepting("TEN1", []))
    with pytest.raises(AlbertTenantError, match="tenant None"):
        await session.ask("GET", API)
    assert wire.seen == []


async def test_time_of_the_check_is_not_part_of_the_deadline(wire: Wire, opened: Open) -> None:
    async def slow(_: Token) -> None:
        await asyncio.sleep(0.4)

    session = opened(token=TOKEN, check_token=slow, timeout=0.3)
    await session.ask("GET", API)
    assert len(wire.seen) == 1


async def test_authenticate_returns_the_tenant_and_sends_the_token_request_only(tenants: Tenants, opened: Open) -> None:
    session = opened(auth_manager=credentials())
    assert await session.authenticate() == "TEN1"
    assert await session.authenticate() == "TEN1"
    assert [seen.path for seen in tenants.wire.seen] == [TOKEN_PATH]


async def test_authenticate_of_an_opaque_token_sends_nothing(wire: Wire, opened: Open) -> None:
    assert await opened().authenticate() is None
    assert wire.seen == []


async def test_authenticate_raises_the_error_of_the_token_request(wire: Wire, opened: Open) -> None:
    session = opened(auth_manager=credentials(), timeout=0.3)
    for answer, error in ((reply(500), AlbertServerError), (reply(401), AlbertAuthError), (hang, AlbertTimeoutError)):
        wire.then(answer)
        with pytest.raises(error):
            await session.authenticate()


async def test_authenticate_raises_the_error_of_the_check(tenants: Tenants, opened: Open) -> None:
    with pytest.raises(AlbertTenantError):
        await opened(auth_manager=credentials(), check_token=accepting("TEN2", [])).authenticate()
    assert tenants.used == []


def test_tenant_error_is_an_auth_error() -> None:
    assert issubclass(AlbertTenantError, AlbertAuthError)
    assert issubclass(AlbertTenantError, AlbertException)
