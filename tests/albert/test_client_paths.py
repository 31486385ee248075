"""Ids in paths, page keys and filters in queries, and the encoding of both."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncd.albert import (
    AsyncAlbertSession,
    ChatSessionCollection,
    InvalidIdError,
    InvalidRequestError,
    segment,
)
from syncd.albert.paths import MAX_LENGTH
from syncd.albert.urls import query
from tests.albert.client_wire import Wire

on_one_wire = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
HOSTILE = [
    "",
    ".",
    "..",
    "a\n",
    "\0",
    "a\r\nHost: evil",
    "\x7f",
    "\x85",
    "\x9f",
    "\ud800",
    "a\udfff",
    "x" * (MAX_LENGTH + 1),
    None,
    5,
    b"SES1",
]


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_id_that_cannot_be_sent_raises_before_any_request(
    wire: Wire, sessions: ChatSessionCollection, hostile: str
) -> None:
    for call in (
        sessions.get_by_id(id=hostile),
        sessions.get_raw(id=hostile),
        sessions.get_by_source_session_id(source_session_id=hostile),
        sessions.get_raw_by_source_session_id(source_session_id=hostile),
        sessions.update(id=hostile, name="n"),
        sessions.update(id=hostile),
        sessions.delete(id=hostile),
        sessions.delete_raw(id=hostile),
    ):
        with pytest.raises(InvalidIdError) as caught:
            await call
        assert caught.value.not_applied
        assert len(str(caught.value)) < 1000
        str(caught.value).encode("ascii")
    assert not wire.seen


AWKWARD = [
    "a/../../../users/USR1",
    "...",
    "%2e%2e",
    "%2F",
    "a b+c",
    "a?b#c&d=e;f",
    "ünïcödé 🧪",
    "".join(map(chr, range(0x20, 0x7F))),
    "x" * MAX_LENGTH,
    "\\..\\",
    " ",
    "http://evil/",
]


@pytest.mark.parametrize("id", AWKWARD)
async def test_id_is_one_path_segment_and_encoded_once(wire: Wire, sessions: ChatSessionCollection, id: str) -> None:
    await sessions.get_raw(id=id)
    await sessions.get_raw_by_source_session_id(source_session_id=id)
    await sessions.delete(id=id)
    base = "/api/v3/chats/sessions/"
    for seen, prefix in zip(wire.seen, (base, base + "source/", base), strict=True):
        assert seen.target.startswith(prefix)
        encoded = seen.target.removeprefix(prefix)
        assert not set(encoded) & set("/?#+ ;&=")
        assert unquote_to_bytes(encoded) == id.encode()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(lambda text: text not in {".", ".."}))
def test_every_other_text_is_encoded_as_one_segment(id: str) -> None:
    encoded = segment(id)
    assert unquote_to_bytes(encoded) == id.encode()
    assert encoded.isascii()
    assert "/" not in encoded


@on_one_wire
@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
async def test_page_key_arrives_unchanged(wire: Wire, sessions: ChatSessionCollection, key: str) -> None:
    wire.seen.clear()
    await sessions.list_raw(start_key=key)
    assert wire.seen[0].query == [("startKey", key)]
    assert "+" not in wire.seen[0].target


async def test_every_ascii_character_is_encoded_once_in_the_query(wire: Wire, sessions: ChatSessionCollection) -> None:
    key = "".join(map(chr, range(0x7F)))
    await sessions.list_raw(start_key=key)
    unreserved = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
    wanted = "".join(char if char in unreserved else f"%{ord(char):02X}" for char in key)
    assert wire.seen[0].target == f"/api/v3/chats/sessions?startKey={wanted}"


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
    )
)
def test_parsed_query_equals_its_parameters(params: dict[str, list[str]]) -> None:
    read = parse_qsl(query(params), keep_blank_values=True, max_num_fields=10_000)
    assert read == [(key, value) for key, values in params.items() for value in values]


async def test_lone_surrogate_in_a_query_is_refused(wire: Wire, sessions: ChatSessionCollection) -> None:
    with pytest.raises(InvalidRequestError):
        await sessions.list_raw(start_key="\ud800")
    assert not wire.seen


@pytest.mark.parametrize(
    "path",
    [
        "",
        "api",
        "/a b",
        "/a/../b",
        "/..",
        "/a/.",
        "/é",
        "/a?b",
        "/a#b",
        "/%zz",
        "/a\n",
        "//\\",
        "http://evil/",
    ],
)
async def test_path_that_is_not_in_normal_form_is_refused(wire: Wire, session: AsyncAlbertSession, path: str) -> None:
    with pytest.raises(InvalidRequestError):
        await session.get(path)
    assert not wire.seen
