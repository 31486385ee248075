"""Iteration over the pages of a listing: where it ends, how it continues after an error, and its filters."""

from __future__ import annotations

import anyio
import pytest

from syncd.albert import (
    AlbertResponseError,
    AsyncAlbertPaginator,
    AsyncAlbertSession,
    ChatSessionCollection,
    ChatSessionKind,
    InternalServerError,
    InvalidRequestError,
    ServiceUnavailableError,
)
from tests.albert.client_wire import Seen, Wire, reply

PATH = "/api/v3/chats/sessions"


def numbers(session: AsyncAlbertSession, max_items: int | None = None) -> AsyncAlbertPaginator[object]:
    return AsyncAlbertPaginator(
        session=session,
        path=PATH,
        deserialize=lambda item: item,
        params={"kind": "chat"},
        max_items=max_items,
    )


def pages(wire: Wire, *made: tuple[list[int], object]) -> None:
    wire.then(*(reply(200, {"Items": items, "lastKey": key}) for items, key in made))


def keys(wire: Wire) -> list[str | None]:
    return [dict(each.query).get("startKey") for each in wire.seen]


@pytest.mark.parametrize("last", [{}, {"lastKey": None}, {"lastKey": ""}])
@pytest.mark.parametrize("items", [[], [3]])
async def test_page_without_a_key_ends_the_listing(
    wire: Wire, session: AsyncAlbertSession, last: dict[str, object], items: list[int]
) -> None:
    wire.then(reply(200, {"Items": [1, 2], "lastKey": "k+ /%"}), reply(200, {"Items": items, **last}))
    listing = numbers(session)
    assert [item async for item in listing] == [1, 2, *items]
    assert not listing.has_more
    assert keys(wire) == [None, "k+ /%"]
    assert all(("kind", "chat") in each.query for each in wire.seen)


async def test_repeated_key_ends_the_listing_after_its_items(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1], "a"), ([2], "a"))
    assert [item async for item in numbers(session)] == [1, 2]
    assert len(wire.seen) == 2


async def test_cycle_of_keys_ends_the_listing_after_its_items(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1], "a"), ([2], "b"), ([3], "a"))
    assert [item async for item in numbers(session)] == [1, 2, 3]
    assert keys(wire) == [None, "a", "b"]


async def test_empty_page_with_a_new_key_does_not_end_the_listing(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1], "a"), ([], "b"), ([2], None))
    assert [item async for item in numbers(session)] == [1, 2]


async def test_pages_are_returned_whole_with_their_keys(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1, 2], "a"), ([], "b"), ([3], ""))
    contents = [(page.items, page.last_key) async for page in numbers(session).pages()]
    assert contents == [([1, 2], "a"), ([], "b"), ([3], None)]


@pytest.mark.parametrize("max_items", [None, 2, 3])
async def test_last_key_is_none_at_the_end_although_the_last_page_repeats_its_key(
    wire: Wire, session: AsyncAlbertSession, max_items: int | None
) -> None:
    pages(wire, ([1], "a"), ([2], "a"))
    listing = numbers(session, max_items)
    assert [page.last_key async for page in listing.pages()] == ["a", None]
    assert listing.last_key is None


async def test_listing_that_is_continued_at_each_last_key_ends(wire: Wire, sessions: ChatSessionCollection) -> None:
    item = {"id": "SES1", "name": "n", "sourceSessionId": "s"}
    wire.then(*(reply(200, {"Items": [item], "lastKey": key}) for key in ("a", "b", "b")))
    checkpoint, pages_read = None, 0
    while pages_read == 0 or checkpoint is not None:
        async for page in sessions.get_all(start_key=checkpoint).pages():
            checkpoint, pages_read = page.last_key, pages_read + 1
            break
    assert pages_read == 3
    assert keys(wire) == [None, "a", "b"]


@pytest.mark.parametrize(
    ("max_items", "items", "has_more", "requests"),
    [
        (0, [], True, 1),
        (1, [1], True, 1),
        (2, [1, 2], True, 1),
        (3, [1, 2, 3], False, 2),
        (4, [1, 2, 3], False, 2),
        (None, [1, 2, 3], False, 2),
    ],
)
async def test_listing_stops_at_max_items_and_reports_whether_there_is_more(
    wire: Wire,
    session: AsyncAlbertSession,
    max_items: int | None,
    items: list[int],
    *,
    has_more: bool,
    requests: int,
) -> None:
    pages(wire, ([1, 2], "a"), ([3], None))
    listing = numbers(session, max_items)
    assert [item async for item in listing] == items
    assert (listing.has_more, len(wire.seen)) == (has_more, requests)


async def test_has_more_is_false_after_a_repeated_key(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1], "a"), ([2], "a"))
    listing = numbers(session, 2)
    assert [item async for item in listing] == [1, 2]
    assert not listing.has_more


async def test_pages_are_cut_at_max_items(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1, 2], "a"), ([3, 4], "b"))
    assert [page.items async for page in numbers(session, 3).pages()] == [[1, 2], [3]]


async def test_failure_on_a_later_page_is_raised_after_the_items_before_it(
    wire: Wire, session: AsyncAlbertSession
) -> None:
    pages(wire, ([1, 2], "a"))
    wire.then(reply(500))
    listing = numbers(session)
    assert [await anext(listing), await anext(listing)] == [1, 2]
    with pytest.raises(InternalServerError):
        await anext(listing)


GARBAGE = [
    b"",
    b"<html>maintenance</html>",
    b"{}",
    b"[]",
    b'[{"id": "SES1"}]',
    b"null",
    b'"Items"',
    b"5",
    b'{"Items": null}',
    b'{"Items": {}}',
    b'{"Items": "none"}',
    b'{"items": []}',
    b'{"lastKey": null}',
    b'{"Items": [], "lastKey": 5}',
    b'{"Items": [], "lastKey": {"a": 1}}',
    b'{"Items": [], "lastKey": false}',
    b'{"Items": [{"id": "SES1"',
    b"\xff\xfe\x00",
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", GARBAGE)
async def test_200_that_is_not_a_listing_is_an_error_and_not_an_empty_listing(
    wire: Wire, sessions: ChatSessionCollection, body: bytes
) -> None:
    wire.then(reply(200, body))
    with pytest.raises(AlbertResponseError, match="not a listing") as caught:
        [each async for each in sessions.get_all()]
    assert (caught.value.method, caught.value.path) == ("GET", PATH)


@pytest.mark.parametrize("item", [None, 5, "SES1", [], {}, {"name": "n"}, {"name": 5, "sourceSessionId": "s"}])
async def test_item_that_is_not_a_session_is_an_error(
    wire: Wire, sessions: ChatSessionCollection, item: object
) -> None:
    good = {"id": "SES1", "name": "n", "sourceSessionId": "s"}
    wire.then(reply(200, {"Items": [good, item, good]}))
    listing = sessions.get_all()
    assert (await anext(listing)).id == "SES1"
    with pytest.raises(AlbertResponseError, match="not a chat session"):
        await anext(listing)


@pytest.mark.parametrize(
    ("filters", "query"),
    [
        ({}, []),
        ({"name": []}, []),
        ({"name": ["a b", "c&d=e"]}, [("name", "a b"), ("name", "c&d=e")]),
        ({"exact_match": True}, [("exactMatch", "true")]),
        ({"exact_match": True, "name": ["a"]}, [("name", "a"), ("exactMatch", "true")]),
        ({"created_by": "U1", "updated_by": "U2"}, [("createdBy", "U1"), ("updatedBy", "U2")]),
        ({"created_by": ""}, [("createdBy", "")]),
        ({"parent_id": "F1", "automation_id": "A1"}, [("parentId", "F1"), ("automationId", "A1")]),
        ({"kind": ChatSessionKind.AUTOMATION}, [("kind", "automation")]),
        ({"kind": "of-tomorrow"}, [("kind", "of-tomorrow")]),
    ],
)
async def test_filters_are_sent_as_by_the_seed_page_and_newer_sdks(
    wire: Wire, sessions: ChatSessionCollection, filters: dict[str, object], query: list[tuple[str, str]]
) -> None:
    wire.default = lambda seen: reply(200, {"Items": [], **({} if "k" in seen.target[-1:] else {"lastKey": "k"})})
    assert [each async for each in sessions.get_all(**filters)] == []  # type: ignore[arg-type]
    assert [each.query for each in wire.seen] == [query, [*query, ("startKey", "k")]]


async def test_listing_begins_at_the_start_key_of_its_params(wire: Wire, session: AsyncAlbertSession) -> None:
    def page(seen: Seen) -> object:
        return {"Items": [dict(seen.query)["startKey"]], "lastKey": "from"}

    wire.default = lambda seen: reply(200, page(seen))
    listing = AsyncAlbertPaginator(session=session, path=PATH, deserialize=str, params={"startKey": "from"})
    assert [item async for item in listing] == ["from"]


async def test_closed_listing_ends_without_another_request(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1, 2], "a"))
    listing = numbers(session)
    assert await anext(listing) == 1
    await listing.aclose()
    assert [item async for item in listing] == []
    assert len(wire.seen) == 1


async def test_listing_that_failed_continues_with_the_failed_page(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1, 2], "a"))
    wire.then(reply(503))
    pages(wire, ([3], None))
    listing = numbers(session)
    items = []
    for _ in range(2):
        try:
            while True:
                items.append(await anext(listing))
        except (ServiceUnavailableError, StopAsyncIteration):
            continue
    assert items == [1, 2, 3]
    assert keys(wire) == [None, "a", "a"]


async def test_listing_whose_task_was_cancelled_continues(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1], "a"), ([2], None))
    listing = numbers(session)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anext(listing)
    assert [item async for item in listing] == [1, 2]


async def test_second_task_cannot_take_items_of_the_same_listing(wire: Wire, session: AsyncAlbertSession) -> None:
    pages(wire, ([1], None))
    listing = numbers(session)
    errors = []

    async def take() -> None:
        try:
            await anext(listing)
        except InvalidRequestError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        group.start_soon(take)
    assert len(errors) == 1
    assert "another task iterates" in errors[0]


async def test_listing_begins_and_continues_at_start_key_and_last_key(
    wire: Wire, sessions: ChatSessionCollection
) -> None:
    item = {"id": "SES1", "name": "n", "sourceSessionId": "s"}
    wire.then(reply(200, {"Items": [item], "lastKey": "b"}), reply(200, {"Items": [item], "lastKey": None}))
    first = sessions.get_all(start_key="a", max_items=1)
    assert len([each async for each in first]) == 1
    assert (first.last_key, first.has_more) == ("b", True)
    rest = sessions.get_all(start_key=first.last_key)
    assert len([each async for each in rest]) == 1
    assert keys(wire) == ["a", "b"]
    assert rest.last_key is None


async def test_unreadable_items_are_passed_to_on_error_and_the_others_are_returned(
    wire: Wire, sessions: ChatSessionCollection
) -> None:
    good = {"id": "SES1", "name": "n", "sourceSessionId": "s"}
    wire.then(reply(200, {"Items": [good, {"id": 5}, good, None], "lastKey": None}))
    unreadable: list[object] = []
    listing = sessions.get_all(on_error=lambda item, _: unreadable.append(item))
    assert [each.id async for each in listing] == ["SES1", "SES1"]
    assert unreadable == [{"id": 5}, None]


async def test_iteration_that_raised_at_an_item_continues_after_it(wire: Wire, sessions: ChatSessionCollection) -> None:
    good = {"id": "SES1", "name": "n", "sourceSessionId": "s"}
    wire.then(reply(200, {"Items": [{"id": 5}, good]}))
    listing = sessions.get_all()
    with pytest.raises(AlbertResponseError):
        await anext(listing)
    assert [each.id async for each in listing] == ["SES1"]
