"""The models keep all fields that the server sends, also those unknown to this version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from syncd.albert import UNSET, AuditFields, ChatSession, ChatSessionCollection, ChatSessionKind, Status
from tests.albert.client_wire import Wire, reply

WIRE = {
    "id": "SES1",
    "name": "Titanium",
    "parentId": "FOL1",
    "sourceSessionId": "ext-1",
    "lastMessageAt": "2025-01-02T03:04:05Z",
    "status": "active",
    "kind": "automation",
    "automationId": "AUT1",
    "automationRunId": "RUN1",
    "Created": {"by": "USR1", "byName": "Ada", "at": "2025-01-01T00:00:00+00:00"},
    "Updated": {"by": "USR2", "byName": None, "at": "yesterday, about noon"},
    "mood": {"of": ["tomorrow"]},
}


def test_every_field_is_read_by_its_alias() -> None:
    session = ChatSession.model_validate(WIRE)
    assert (session.id, session.name, session.parent_id) == ("SES1", "Titanium", "FOL1")
    assert (session.source_session_id, session.last_message_at) == ("ext-1", "2025-01-02T03:04:05Z")
    assert (session.automation_id, session.automation_run_id) == ("AUT1", "RUN1")
    assert session.status is Status.ACTIVE
    assert session.kind is ChatSessionKind.AUTOMATION
    assert session.created == AuditFields(by="USR1", by_name="Ada", at=datetime(2025, 1, 1, tzinfo=UTC))


def test_time_that_cannot_be_parsed_stays_text() -> None:
    session = ChatSession.model_validate(WIRE)
    assert session.updated is not None
    assert session.updated.at == "yesterday, about noon"


def test_unknown_fields_and_enum_values_are_kept_and_dumped() -> None:
    session = ChatSession.model_validate({**WIRE, "status": "archived", "kind": "swarm"})
    assert (session.status, session.kind) == ("archived", "swarm")
    assert session.model_extra == {"mood": {"of": ["tomorrow"]}}
    dumped = session.model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert dumped["mood"] == WIRE["mood"]
    assert (dumped["status"], dumped["kind"]) == ("archived", "swarm")


def test_fields_can_be_given_by_name_and_two_are_required() -> None:
    session = ChatSession(name="n", source_session_id="s", parent_id="F")
    assert session.model_dump(by_alias=True, exclude_unset=True) == {
        "name": "n",
        "sourceSessionId": "s",
        "parentId": "F",
    }
    for missing in ({"name": "n"}, {"source_session_id": "s"}):
        with pytest.raises(ValidationError):
            ChatSession.model_validate(missing)


def test_audit_fields_are_read_only() -> None:
    session = ChatSession.model_validate(WIRE)
    with pytest.raises(ValidationError):
        session.created = None  # type: ignore[misc]


async def test_create_sends_the_fields_that_were_set(wire: Wire, sessions: ChatSessionCollection) -> None:
    wire.then(reply(201, WIRE))
    made = await sessions.create(session=ChatSession(name="n", source_session_id="s", parent_id=None))
    assert wire.seen[0].json == {"name": "n", "sourceSessionId": "s", "parentId": None}
    assert made == ChatSession.model_validate(WIRE)


async def test_raw_methods_return_the_bytes_of_the_response(wire: Wire, sessions: ChatSessionCollection) -> None:
    raw = b' {"odd" : 1e2}\n'
    wire.default = lambda _: reply(200, raw)
    assert await sessions.list_raw(start_key=None) == raw
    assert await sessions.get_raw(id="SES1") == raw
    assert await sessions.get_raw_by_source_session_id(source_session_id="s") == raw
    assert await sessions.create_raw(body={"name": "n", "sourceSessionId": "s"}) == raw
    assert [f"{each.method} {each.target}" for each in wire.seen] == [
        "GET /api/v3/chats/sessions",
        "GET /api/v3/chats/sessions/SES1",
        "GET /api/v3/chats/sessions/source/s",
        "POST /api/v3/chats/sessions",
    ]


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        ({"name": "new"}, [("name", "new")]),
        ({"parent_id": "F"}, [("parentId", "F")]),
        ({"parent_id": None}, [("parentId", None)]),
        ({"name": "new", "parent_id": None}, [("name", "new"), ("parentId", None)]),
        ({"name": ""}, [("name", "")]),
        ({}, []),
        ({"parent_id": UNSET}, []),
    ],
)
async def test_update_sends_changed_fields_and_fetches_the_session(
    wire: Wire, sessions: ChatSessionCollection, change: dict[str, object], sent: list[tuple[str, object]]
) -> None:
    wire.default = lambda _: reply(200, WIRE)
    assert (await sessions.update(id="SES1", **change)).id == "SES1"  # type: ignore[arg-type]
    assert [each.method for each in wire.seen] == (["PATCH", "GET"] if sent else ["GET"])
    if sent:
        assert wire.seen[0].json == {
            "data": [{"operation": "update", "attribute": key, "newValue": value} for key, value in sent]
        }


async def test_body_of_the_response_to_a_delete_is_ignored(wire: Wire, sessions: ChatSessionCollection) -> None:
    wire.then(reply(200, "gone!"), reply(204), reply(202, {"id": "SES1"}))
    for _ in range(3):
        assert await sessions.delete(id="SES1") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("key", "hint"), [("parentid", "; did you mean 'parent_id'?"), ("mood", ""), (5, ""), ("sourceSessionID", "; did")]
)
async def test_create_refuses_unknown_keys_of_a_dict_as_the_constructor_does(
    wire: Wire, sessions: ChatSessionCollection, key: object, hint: str
) -> None:
    data: Any = {"name": "n", "sourceSessionId": "s", key: "x"}
    with pytest.raises(TypeError) as refused:
        await sessions.create(session=data)
    assert f"ChatSession() got an unexpected keyword argument {key!r}{hint}" in str(refused.value)
    assert wire.seen == []


async def test_create_sends_unknown_fields_of_data_that_the_server_sent(
    wire: Wire, sessions: ChatSessionCollection
) -> None:
    wire.then(reply(201, WIRE))
    await sessions.create(session=ChatSession.model_validate(WIRE))
    assert wire.seen[0].json["mood"] == WIRE["mood"]
