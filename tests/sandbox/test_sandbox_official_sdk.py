import pytest
from albert.collections.chat_sessions import ChatSessionCollection
from albert.core.async_session import AsyncAlbertSession
from albert.exceptions import NotFoundError
from albert.resources.chats import ChatSession

from syncd.sandbox import Sandbox


async def test_the_official_sdk_creates_reads_lists_updates_and_deletes(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with AsyncAlbertSession(base_url=box.url, token=box.token) as session:
        sessions = ChatSessionCollection(session=session)
        created = await sessions.create(session=ChatSession(name="from the SDK", source_session_id="sdk"))
        assert created.id == "SES26"
        assert await sessions.get_by_id(id="SES26") == created
        assert await sessions.get_by_source_session_id(source_session_id="sdk") == created
        assert [each.id async for each in sessions.get_all()] == list(box.live())
        assert [each.id async for each in sessions.get_all(name=["from the SDK"])] == ["SES26"]
        updated = await sessions.update(id="SES26", name="renamed", parent_id="FOL1")
        assert (updated.name, updated.parent_id) == ("renamed", "FOL1")
        moved_out = await sessions.update(id="SES26", parent_id=None)
        assert (moved_out.name, moved_out.parent_id) == ("renamed", None)
        await sessions.delete(id="SES26")
        with pytest.raises(NotFoundError):
            await sessions.get_by_id(id="SES26")
    assert [each.kind for each in box.effects] == ["created", "updated", "updated", "deleted"]
