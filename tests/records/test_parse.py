"""Bodies become rows, unreadable items and the next key."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from syncd.records import items as single
from syncd.records import parse
from syncd.records.fields import SESSIONS, FieldList, SessionRow
from syncd.records.ids import SessionId, SourceId
from syncd.records.items import UnreadableError
from syncd.records.parse import GarbledError, Page, read_session
from syncd.records.plain_pages import MOST_UNKNOWN, PlainPages
from syncd.records.tolerant_json import DEEPEST
from tests.helpers.rows import SAMPLES, session_row

ITEM: dict[str, Any] = {"id": "A", "name": "n", "sourceSessionId": "s"}


def read_page(body: bytes) -> Page[SessionRow]:
    return parse.read_page(body, SESSIONS)


def read_item(item: Any) -> SessionRow:
    return single.read_item(item, SESSIONS)


def listing(*items: Any, **rest: Any) -> bytes:
    return json.dumps({"Items": items, **rest}).encode()


def extra(**fields: Any) -> str:
    return read_item(ITEM | fields).extra


def test_every_field_has_its_column() -> None:
    item = {
        "id": "A", "name": "n", "parentId": "p", "sourceSessionId": "s", "status": "active", "kind": "chat",
        "automationId": "a", "automationRunId": "r", "lastMessageAt": "2026-01-01T00:00:00Z",
        "Created": {"by": "cb", "byName": "cn", "at": "2026-01-02T00:00:00Z"},
        "Updated": {"by": "ub", "byName": "un", "at": "2026-01-03T00:00:00Z"},
    }  # fmt: skip
    assert read_item(item) == SessionRow(
        id=SessionId("A"), name="n", parent_id="p", source_session_id=SourceId("s"), status="active",
        kind="chat", automation_id="a", automation_run_id="r", last_message_at="2026-01-01T00:00:00.000000Z",
        created_by="cb", created_by_name="cn",
        created_at="2026-01-02T00:00:00.000000Z", updated_by="ub", updated_by_name="un",
        updated_at="2026-01-03T00:00:00.000000Z", extra="{}",
    )  # fmt: skip


def test_optional_fields_may_be_absent_or_null() -> None:
    optional = ("parentId", "status", "kind", "automationId", "automationRunId", "lastMessageAt", "Created", "Updated")
    assert read_item(ITEM) == read_item(ITEM | dict.fromkeys(optional)) == session_row()


def test_empty_text_is_text() -> None:
    row = read_item(ITEM | {"name": "", "sourceSessionId": "", "parentId": ""})
    assert (row.name, row.source_session_id, row.parent_id) == ("", "", "")


@pytest.mark.parametrize("value", ["soon", "", 1767225600, 1.5, True, False, [], {}, {"a": 1}])
def test_time_that_cannot_be_read_is_null_and_kept_in_extra(value: Any) -> None:
    row = read_item(
        ITEM | {"lastMessageAt": value, "Created": {"at": value}, "Updated": {"by": "U", "at": value, "z": 1}}
    )
    assert (row.last_message_at, row.created_at, row.updated_at, row.updated_by) == (None, None, None, "U")
    assert json.loads(row.extra) == {
        "lastMessageAt": value, "Created": {"at": value}, "Updated": {"at": value, "z": 1},
    }  # fmt: skip


def test_unknown_fields_are_kept_in_canonical_json() -> None:
    assert extra() == "{}"
    assert extra(z=1, a={"y": [1.0, None], "x": "ü\u2028"}) == '{"a":{"x":"ü\u2028","y":[1.0,null]},"z":1}'
    assert extra(n=2**70) == f'{{"n":{2**70}}}'
    assert extra(Created={"by": "U", "role": "admin"}) == '{"Created":{"role":"admin"}}'


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
moments = st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z")
unknown = st.dictionaries(st.text(max_size=4).map("x-".__add__), json_values, max_size=3)
audits = st.none() | st.builds(
    lambda known, rest: known | rest,
    st.fixed_dictionaries({}, optional={"by": st.none() | st.text(), "byName": st.text(), "at": moments | scalars}),
    unknown,
)
items = st.builds(
    lambda known, rest: known | rest,
    st.fixed_dictionaries(
        {"id": st.sampled_from("ABC"), "name": st.text(), "sourceSessionId": st.text()},
        optional={
            "parentId": st.none() | st.text(),
            "lastMessageAt": moments | scalars,
            "Created": audits,
            "Updated": audits,
            "label": st.none() | st.text(),
            "size": st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
            "pinned": st.none() | st.booleans(),
            "Meta": st.none() | st.fixed_dictionaries({}, optional={"tags": json_values, "archivedAt": moments}),
        },
    ),
    unknown,
)
broken_items = st.one_of(
    json_values,
    items.map(lambda item: item | {"name": None}),
    items.map(lambda item: item | {"pinned": "yes"}),
    items.map(lambda item: item | {"size": True}),
    items.map(lambda item: item | {"label": "a\0"}),
    items.map(lambda item: item | {"name": "\ud800"}),
    items.map(lambda item: item | {"x-y": math.nan}),
    items.map(lambda item: item | {"x-y": {"\udfff": -math.inf}}),
    items.map(lambda item: item | {"sourceSessionId": "x" * 2601}),
)


def _one_by_one(page: list[Any], fields: FieldList[Any]) -> tuple[list[SessionRow], int]:
    """Return what a page says according to the reader of single items, and its number of unreadable items."""
    newest: dict[str, SessionRow] = {}
    unreadable = 0
    for item in page:
        try:
            row = single.read_item(item, fields)
        except UnreadableError:
            unreadable += 1
            continue
        other = newest.get(row.id)
        if other is None or (row.updated_at or "") >= (other.updated_at or ""):
            newest[row.id] = row
    return list(newest.values()), unreadable


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.lists(items | broken_items, max_size=5), min_size=1, max_size=3))
@pytest.mark.parametrize("fields", [SESSIONS, SAMPLES])
def test_page_is_read_like_its_items_one_by_one(fields: FieldList[Any], pages: list[list[Any]]) -> None:
    for page in [*pages, *pages]:  # the second time with the names of unknown fields remembered
        parsed = parse.read_page(json.dumps({"Items": page}).encode(), fields)
        assert (parsed.rows, len(parsed.unreadable)) == _one_by_one(page, fields)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(items, max_size=5), st.sampled_from([b"\xff", b"\\ud800", b"\\u0000"]))
def test_page_with_one_item_that_no_parser_accepts_is_read_like_the_others_one_by_one(
    page: list[Any], defect: bytes
) -> None:
    for place in {0, len(page)}:
        around = [*page[:place], ITEM | {"id": "Z", "name": "DEFECT"}, *page[place:]]
        parsed = parse.read_page(json.dumps({"Items": around}).encode().replace(b"DEFECT", defect), SAMPLES)
        rows, unreadable = _one_by_one(page, SAMPLES)
        assert parsed.rows == rows
        assert [item.record_id for item in parsed.unreadable if item.record_id == "Z"] == ["Z"]
        assert len(parsed.unreadable) == unreadable + 1


def _shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shuffled(value[key]) for key in reversed(value)}
    return [_shuffled(element) for element in value] if isinstance(value, list) else value


@pytest.mark.slow
@settings(deadline=None)
@given(unknown)
def test_same_content_is_the_same_row_in_any_order_of_keys_and_by_every_way_of_reading(fields: dict[str, Any]) -> None:
    assume("\\u0000" not in json.dumps(fields))
    wanted = read_item(ITEM | fields)
    for item in (ITEM | fields, _shuffled(ITEM | fields)):
        assert read_page(listing(item)).rows == [wanted]
        assert read_page(listing(item, {"id": "Z", "name": "\ud800"})).rows == [wanted]
        assert read_page(listing(item, [math.nan])).rows == [wanted]
        deep = b"[" * 5000 + b"]" * 5000
        assert read_page(listing(item, "DEEP").replace(b'"DEEP"', deep)).rows == [wanted]
        assert read_session(json.dumps(item).encode()) == wanted


def test_names_of_unknown_fields_are_remembered_and_bounded() -> None:
    reader = PlainPages(SESSIONS)
    few = listing(*(ITEM | {"id": f"S{n}", f"x{n}": n} for n in range(MOST_UNKNOWN)))
    others = listing(*(ITEM | {"id": f"S{n}", f"y{n}": n} for n in range(MOST_UNKNOWN)))
    many = listing(*(ITEM | {"id": f"S{n}", f"z{n}": n} for n in range(MOST_UNKNOWN + 1)))
    for body, left in ((few, 0), (others, 0), (few, 0), (many, MOST_UNKNOWN + 1), (few, 0)):
        page = reader.read(body)
        assert page is not None
        assert len(page.odd) == left


def test_page_with_two_kinds_of_many_unknown_fields_is_read() -> None:
    reader = PlainPages(SESSIONS)
    kinds = [ITEM | {f"{letter}{n}": n for n in range(40)} for letter in "xy"]
    for body in (listing(kinds[0]), listing(*kinds), listing(*kinds)):
        page = reader.read(body)
        assert page is not None
        assert all(row is not None or place in page.odd for place, row in enumerate(page.rows))


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "", "é", "with space", "id "])
def test_unknown_field_may_have_any_name(name: str) -> None:
    for _ in range(2):
        (row,) = read_page(listing(ITEM | {name: 1, "Created": {name: [2]}})).rows
        assert json.loads(row.extra) == {name: 1, "Created": {name: [2]}}


@pytest.mark.parametrize("size", [2**53, -(2**53), 1.5, 0])
def test_number_that_a_float_holds_is_a_number(size: float) -> None:
    (row,) = parse.read_page(listing(ITEM | {"size": size}), SAMPLES).rows
    assert (row.size, row.extra) == (size, "{}")


@pytest.mark.parametrize("size", [2**53 + 1, 10**400])
def test_number_that_a_float_does_not_hold_is_null_and_kept_in_extra(size: int) -> None:
    (row,) = parse.read_page(listing(ITEM | {"size": size}), SAMPLES).rows
    assert (row.size, row.extra) == (None, f'{{"size":{size}}}')


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_not_a_listing(body: bytes) -> None:
    with pytest.raises(GarbledError):
        read_page(body)


@given(json_values)
def test_only_an_object_with_a_list_of_items_is_a_listing(value: Any) -> None:
    body = json.dumps(value).encode()
    if isinstance(value, dict) and isinstance(value.get("Items"), list):
        return
    with pytest.raises(GarbledError):
        read_page(body)


@given(st.lists(json_values, max_size=5))
def test_every_item_is_either_a_row_or_unreadable(items: list[Any]) -> None:
    page = read_page(listing(*items))
    assert len(page.rows) + len(page.unreadable) == len(items)
    for item in page.unreadable:
        assert item.payload.isascii()


@pytest.mark.parametrize("key", [None, "", "k", " ", '+/=&%#? "ü', "0"])
def test_page_key_is_unchanged_and_an_empty_one_is_none(key: str | None) -> None:
    assert read_page(listing(lastKey=key)).next_key == (key or None)


def test_a_repeated_id_on_a_page_keeps_its_newer_version_whatever_the_order() -> None:
    old, new = (ITEM | {"name": name, "Updated": {"at": at}} for name, at in (("o", "2026-01-01"), ("n", "2026-01-02")))
    for items in ([old, new], [new, old]):
        (row,) = read_page(listing(*items)).rows
        assert row.name == "n"


def test_the_last_of_a_repeated_key_counts() -> None:
    body = b'{"Items": [{"id": "A", "id": "B", "name": "x", "name": "y", "sourceSessionId": "s"}]}'
    (row,) = read_page(body).rows
    assert (row.id, row.name) == ("B", "y")


def test_control_character_in_a_text_costs_no_page() -> None:
    item = b'{"id": "Z", "name": "two\nlines", "sourceSessionId": "s"}'
    page = read_page(b'{"Items": [' + item + b", " + json.dumps(ITEM).encode() + b"]}")
    assert page.rows[0].name == "two\nlines"
    assert len(page.rows) == 2


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read_page(b'\xef\xbb\xbf{"Items": []}') == Page([], [], None)


@pytest.mark.parametrize("depth", [50, DEEPEST - 10, DEEPEST + 10, 900, 100_000])
def test_nesting_costs_its_own_item_at_most(depth: int) -> None:
    deep = b'[{"\\"]}": ' * depth + b"1" + b"}]" * depth
    items = b'{"id": "B", "name": "n", "sourceSessionId": "s", "deep": ' + deep + b"}, " + json.dumps(ITEM).encode()
    page = read_page(b'{"Items": [' + items + b'], "lastKey": "k"}')
    assert page.next_key == "k"
    assert page.rows[-1].id == "A"
    assert len(page.rows) + len(page.unreadable) == 2
    if page.unreadable:
        assert page.unreadable[0].record_id == "B"


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b"<html>", b'{"name": "n"}', b'{"id": "A"}', b"[" * 9999])
def test_an_answer_that_is_no_session_is_garbled(body: bytes) -> None:
    with pytest.raises(GarbledError):
        read_session(body)


def test_a_session_is_read_like_an_item() -> None:
    assert read_session(json.dumps(ITEM).encode()) == read_item(ITEM)


@pytest.mark.parametrize(
    "item", [None, 1, "A", [], {}, {"id": None}, {"id": 1}, {"id": ""}, {"id": "\0"}, {"id": "\udfff"}]
)
def test_an_item_without_a_readable_id_names_none(item: Any) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_item(item)
    assert caught.value.record_id is None


@pytest.mark.parametrize(
    "fields",
    [
        {"name": None}, {"name": 1}, {"sourceSessionId": None}, {"sourceSessionId": []}, {"parentId": 1},
        {"status": True}, {"kind": {}}, {"automationId": 1.5}, {"automationRunId": []}, {"Created": "x"},
        {"Updated": []}, {"Created": {"by": 1}}, {"Updated": {"byName": []}}, {"x": float("nan")}, {"name": "\0"},
        {"x": {"\udfff": 1}},
    ],
)  # fmt: skip
def test_field_of_the_wrong_type_makes_the_item_unreadable_and_keeps_its_id(fields: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_item(ITEM | fields)
    assert caught.value.record_id == "A"
    assert caught.value.reason


def test_reason_names_the_field_of_the_wrong_type() -> None:
    for field in ("parentId", "status", "kind", "automationId", "automationRunId"):
        with pytest.raises(UnreadableError, match=f"^{field} should be text and is not$"):
            read_item(ITEM | {field: ["x"]})


def test_escaped_backslashes_are_not_read_as_a_nul() -> None:
    (row,) = read_page(b'{"Items": [{"id": "A", "name": "a\\\\u0000b", "sourceSessionId": "s"}]}').rows
    assert row.name == r"a\u0000b"
