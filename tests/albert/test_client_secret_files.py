"""Tokens and client secrets that are read from files: rotation, and files that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from syncd.albert import (
    AlbertAuthError,
    AlbertClientCredentials,
    UnauthorizedError,
)
from tests.albert.client_wire import Open, Wire, reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

from tests.albert.token_server import API, Issuer


async def test_rotated_token_file_is_read_again_after_a_401(wire: Wire, opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    reading = opened(token=file.read_text)
    await reading.get(API)
    file.write_text("second-token\n")
    await reading.get(API)
    wire.then(reply(401))
    await reading.get(API)
    used = [each.headers["authorization"].removeprefix("Bearer ") for each in wire.seen]
    assert used == ["first-token", "first-token", "first-token", "second-token"]


async def test_unchanged_token_is_not_sent_again_after_a_401(wire: Wire, opened: Open) -> None:
    reads = 0

    def read() -> str:
        nonlocal reads
        reads += 1
        return "the-token"

    wire.then(reply(401))
    with pytest.raises(UnauthorizedError):
        await opened(token=read).get(API)
    assert (reads, len(wire.seen)) == (2, 1)


async def test_rotated_client_secret_is_read_for_the_next_token(issuer: Issuer, opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first-secret\n")
    session = opened(auth_manager=AlbertClientCredentials(id=lambda: "client\n", secret=file.read_text))
    await session.get(API)
    file.write_text("second-secret\n")
    await session.get(API)
    issuer.good.clear()
    await session.get(API)
    forms = [parse_qs(each.body.decode()) for each in issuer.token_requests]
    assert [(form["client_id"], form["client_secret"]) for form in forms] == [
        (["client"], ["first-secret"]),
        (["client"], ["second-secret"]),
    ]


def _gone() -> str:
    raise FileNotFoundError(2, "No such file or directory", "/run/secrets/client")


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (_gone, "cannot be read: No such file"),
        (b"\xff-hidden".decode, "empty, or not text"),
        (lambda: " \n", "empty, or not text"),
    ],
    ids=["gone", "not UTF-8", "empty"],
)
async def test_client_credentials_that_cannot_be_read_are_an_auth_error(
    issuer: Issuer, opened: Open, read: Callable[[], str], problem: str
) -> None:
    with pytest.raises(AlbertAuthError, match=problem) as caught:
        await opened(auth_manager=AlbertClientCredentials(id="client", secret=read)).get(API)
    assert caught.value.not_applied
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, OSError)
    assert not issuer.wire.seen


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "nön", "a\0b"])
async def test_file_without_a_valid_token_is_an_auth_error(wire: Wire, opened: Open, content: str) -> None:
    with pytest.raises(AlbertAuthError) as caught:
        await opened(token=lambda: content).get(API)
    assert caught.value.not_applied
    assert not wire.seen


async def test_token_file_that_cannot_be_read_is_an_auth_error(wire: Wire, opened: Open, tmp_path: Path) -> None:
    with pytest.raises(AlbertAuthError, match="No such file"):
        await opened(token=(tmp_path / "none").read_text).get(API)
    assert not wire.seen
