"""Folders through the client: the same results, errors and requests as through the official SDK."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

from syncd.albert import (
    AlbertResponseError,
    AsyncAlbertSession,
    ChatFolder,
    ChatFolderCollection,
    ChatFolderType,
    InvalidIdError,
    InvalidRequestError,
    NotFoundError,
)
from syncd.sandbox import Habits, Sandbox, serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's own imports
    from albert.collections.chat_folders import ChatFolderCollection as TheirCollection
    from albert.core.async_session import AsyncAlbertSession as TheirSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LISTING = "/api/v3/chats/folders"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serve(Sandbox(habits=Habits(page_size=7, awkward_cursor=True))) as made:
        yield made


@pytest.fixture
async def folders(sandbox: Sandbox) -> AsyncIterator[ChatFolderCollection]:
    async with AsyncAlbertSession(base_url=sandbox.url, token=sandbox.token) as session:
        yield ChatFolderCollection(session=session)


@pytest.fixture
async def theirs(sandbox: Sandbox) -> AsyncIterator[Any]:
    session = TheirSession(base_url=sandbox.url, token=sandbox.token)
    yield TheirCollection(session=session)
    await session.aclose()


def plain(folder: Any) -> dict[str, Any]:
    return {
        "id": folder.id, "name": folder.name, "type": folder.folder_type and folder.folder_type.value,
        "parent": folder.parent_id,
    }  # fmt: skip


async def test_listing_has_every_folder_in_order(sandbox: Sandbox, folders: ChatFolderCollection, theirs: Any) -> None:
    mine = [plain(each) async for each in folders.get_all()]
    assert mine == [plain(each) async for each in theirs.get_all()]
    assert [each["id"] for each in mine] == list(sandbox.folders.by_id)


@pytest.mark.parametrize("max_items", [0, 1, 7, 9, 100])
async def test_listing_ends_at_its_limit(folders: ChatFolderCollection, theirs: Any, max_items: int) -> None:
    mine = [plain(each) async for each in folders.get_all(max_items=max_items)]
    assert len(mine) == min(max_items, 40)
    if max_items:  # the SDK reads 0 as no limit on some versions
        assert mine == [plain(each) async for each in theirs.get_all(max_items=max_items)]


async def test_names_are_filtered_on_the_server(sandbox: Sandbox, folders: ChatFolderCollection, theirs: Any) -> None:
    names = ["Coatings", "Raw materials 2", "nothing & none"]
    mine = [plain(each) async for each in folders.get_all(name=names, exact_match=True)]
    assert mine == [plain(each) async for each in theirs.get_all(name=names, exact_match=True)]
    assert len(mine) == 2
    queries = [parse_qsl(request.raw_path.partition("?")[2]) for request in sandbox.requests]
    assert queries[0] == queries[1]


async def test_one_folder_is_found_by_its_id(folders: ChatFolderCollection, theirs: Any) -> None:
    mine = await folders.get_by_id(id="FOL9")
    assert plain(mine) == plain(await theirs.get_by_id(id="FOL9"))
    assert mine.folder_type is ChatFolderType.CHILD
    assert mine.created is not None
    assert mine.created.by_name
    with pytest.raises(NotFoundError, match="No such folder"):
        await folders.get_by_id(id="FOL404")


async def test_listing_continues_at_the_key_where_another_ended(folders: ChatFolderCollection) -> None:
    first = folders.get_all(max_items=7)
    head = [each.id async for each in first]
    assert first.has_more
    rest = [each.id async for each in folders.get_all(start_key=first.last_key)]
    assert [*head, *rest] == [each.id async for each in folders.get_all()]


async def test_item_that_is_not_a_folder_raises_or_is_passed_to_on_error(
    sandbox: Sandbox, folders: ChatFolderCollection
) -> None:
    sandbox.folders.by_id["FOL2"]["name"] = None
    with pytest.raises(AlbertResponseError, match=r"not a chat folder: .*name"):
        [each async for each in folders.get_all()]
    errors: list[object] = []
    ids = [each.id async for each in folders.get_all(on_error=lambda item, _: errors.append(item))]
    assert len(ids) == 39
    assert errors == [sandbox.folders.by_id["FOL2"]]
    with pytest.raises(AlbertResponseError, match="not a chat folder"):
        await folders.get_by_id(id="FOL2")


async def test_unknown_fields_and_types_are_kept(sandbox: Sandbox, folders: ChatFolderCollection) -> None:
    sandbox.folders.update("FOL1", type="archive", color="red")
    folder = await folders.get_by_id(id="FOL1")
    assert folder.folder_type == "archive"
    assert folder.model_extra == {"color": "red"}


@pytest.mark.parametrize("wrong", ["", ".", "..", "a\nb"])
async def test_id_that_cannot_be_sent_raises_before_any_request(
    sandbox: Sandbox, folders: ChatFolderCollection, wrong: str
) -> None:
    with pytest.raises(InvalidIdError):
        await folders.get_by_id(id=wrong)
    assert list(sandbox.requests) == []


async def test_id_is_one_segment_of_the_path(sandbox: Sandbox, folders: ChatFolderCollection) -> None:
    sandbox.folders.create(id="a/b ?ü", name="odd")
    assert (await folders.get_by_id(id="a/b ?ü")).name == "odd"
    assert sandbox.requests[0].raw_path == f"{LISTING}/a%2Fb%20%3F%C3%BC"


async def test_arguments_are_validated_before_anything_is_sent(folders: ChatFolderCollection) -> None:
    with pytest.raises(InvalidRequestError):
        folders.get_all(max_items=-1)
    with pytest.raises(TypeError):
        folders.get_all(parent_id="FOL1")  # type: ignore[call-arg]


def test_folder_accepts_field_names_and_their_aliases() -> None:
    made = ChatFolder(name="n", folder_type="child", parent_id="FOL1")
    assert made == ChatFolder.model_validate({"name": "n", "type": "child", "parentId": "FOL1"})
    with pytest.raises(TypeError, match="did you mean 'parent_id'"):
        ChatFolder(name="n", parentid="FOL1")
