"""The one list of a session's fields, and what is held together by it."""

import json
from typing import Annotated, Any

import pytest

from syncd.albert import ChatSession
from syncd.mirror.read import catalog
from syncd.mirror.schema import tables
from syncd.records.fields import EXTRA, SESSIONS, Field, FieldList, FieldType, Json, Row, SessionRow, Text, Wire
from syncd.records.items import read_item
from tests.helpers.rows import SAMPLES


def test_columns_of_the_tables_begin_with_the_fields_in_their_order() -> None:
    for table in (tables.sessions, tables.session_versions):
        names = [name for name in table.c.keys() if name in SESSIONS.by_column]  # noqa: SIM118 - a collection of columns
        assert names == list(SESSIONS.columns)


@pytest.mark.parametrize("view", ["chat_sessions", "chat_sessions_all", "chat_session_history"])
def test_each_view_shows_each_field_with_its_meaning(view: str) -> None:
    described = catalog.VIEWS[view].c
    for name, field in SESSIONS.by_column.items():
        assert described[name].comment == field.wire.comment
        assert described[name].type.__class__ is tables.sessions.c[name].type.__class__


def test_model_of_the_client_has_every_field_under_the_name_on_the_wire() -> None:
    item = {"id": "SES1", "name": "n", "sourceSessionId": "s"}
    values: dict[FieldType, Any] = {
        FieldType.TIME: "2026-06-01T10:30:00Z", FieldType.BOOLEAN: True, FieldType.NUMBER: 1.5, FieldType.JSON: [1],
    }  # fmt: skip
    for field in SESSIONS.fields:
        if not field.required:
            block = item.setdefault(field.block, {}) if field.block else item  # type: ignore[arg-type]
            block[field.name] = values.get(field.type, f"value of {field.column}")  # type: ignore[index]
    session = ChatSession.model_validate(item)
    assert session.model_extra == {}
    for model in (session, session.created, session.updated):
        assert model is not None
        assert model.model_extra == {}
        assert None not in model.model_dump().values()
    assert session.model_dump(mode="json", by_alias=True) == item


def test_model_of_the_client_requires_what_a_row_requires_except_the_id_that_a_create_does_not_have() -> None:
    names = {field.validation_alias or name for name, field in ChatSession.model_fields.items() if field.is_required()}
    assert names | {"id"} == {field.wire.path for field in SESSIONS.fields if field.required}


def test_example_of_each_field_is_what_the_mirror_would_store() -> None:
    item: dict[str, Any] = {}
    for field in SESSIONS.fields:
        block = item.setdefault(field.block, {}) if field.block else item
        block[field.name] = example_of(field)
    row = read_item(item | json.loads(SESSIONS.by_column[EXTRA].wire.example), SESSIONS)
    for name, field in SESSIONS.by_column.items():
        assert getattr(row, name) == (field.wire.example if name == EXTRA else example_of(field))


def example_of(field: Field) -> Any:
    """Return the example of a field as a value."""
    is_text = field.type in {FieldType.TEXT, FieldType.TIME}
    return field.wire.example if is_text else json.loads(field.wire.example)


def test_type_and_place_of_a_field_are_read_from_its_annotation() -> None:
    fields = {name: (field.type, field.required, field.block, field.name) for name, field in SAMPLES.by_column.items()}
    assert fields["id"] == (FieldType.TEXT, True, "", "id")
    assert fields["size"] == (FieldType.NUMBER, False, "", "size")
    assert fields["pinned"] == (FieldType.BOOLEAN, False, "", "pinned")
    assert fields["tags"] == (FieldType.JSON, False, "Meta", "tags")
    assert fields["archived_at"] == (FieldType.TIME, False, "Meta", "archivedAt")
    assert [block.name for block in SAMPLES.blocks] == ["", "Created", "Updated", "Meta"]
    assert {"Created", "Meta", "label"} <= SAMPLES.blocks[0].names


def test_ambiguous_annotation_is_refused() -> None:
    class Untyped(SessionRow, frozen=True, gc=False):
        odd: Annotated[int, Wire("odd", "an int, which is no type of field", "1")] = 0

    class Bare(SessionRow, frozen=True, gc=False):
        odd: str = ""

    class WithoutExtra(Row, frozen=True, gc=False):
        name: Annotated[Text, Wire("name", "a name", "n")]

    for row, reason in (
        (Untyped, "one of the types"),
        (Bare, "needs an annotation"),
        (WithoutExtra, "no column extra"),
    ):
        with pytest.raises(TypeError, match=reason):
            FieldList(row, noun="record")


def test_another_kind_of_record_needs_only_a_list() -> None:
    class FolderRow(Row, frozen=True, gc=False):
        id: Annotated[Text, Wire("id", "the folder", "FOL1")]
        name: Annotated[Text, Wire("name", "its name", "Coatings")]
        extra: Annotated[Json, Wire("", "the rest", "{}")] = "{}"

    folders = FieldList(FolderRow, noun="folder", newest_by="name")
    assert read_item({"id": "FOL1", "name": "Coatings", "type": "root"}, folders) == FolderRow(
        id="FOL1", name="Coatings", extra='{"type":"root"}'
    )
