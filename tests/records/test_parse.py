"""Reading what Albert sends: bytes become rows, unreadable items, and the next key."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.mirror.schema.tables import CONTENT
from syncd.records.parse import GarbledError, UnreadableError, read_item, read_page, read_session, read_time
from syncd.records.tolerant_json import DEEPEST

ITEM: dict[str, Any] = {"id": "A", "name": "n", "sourceSessionId": "s"}


def columns(item: dict[str, Any]) -> dict[str, str | None]:
    return dict(zip(CONTENT, read_item(item), strict=True))


def extra(**fields: Any) -> str | None:
    return columns(ITEM | fields)["extra"]


def test_every_field_has_its_column() -> None:
    item = {
        "id": "A", "name": "n", "parentId": "p", "sourceSessionId": "s", "status": "active", "kind": "chat",
        "automationId": "a", "automationRunId": "r", "lastMessageAt": "2026-01-01T00:00:00Z",
        "Created": {"by": "cb", "byName": "cn", "at": "2026-01-02T00:00:00Z"},
        "Updated": {"by": "ub", "byName": "un", "at": "2026-01-03T00:00:00Z"},
    }  # fmt: skip
    assert read_item(item) == (
        "A", "n", "p", "s", "active", "chat", "a", "r", "2026-01-01T00:00:00.000000Z",
        "cb", "cn", "2026-01-02T00:00:00.000000Z", "ub", "un", "2026-01-03T00:00:00.000000Z", "{}",
    )  # fmt: skip


def test_what_is_not_required_may_be_absent_or_null() -> None:
    optional = ("parentId", "status", "kind", "automationId", "automationRunId", "lastMessageAt", "Created", "Updated")
    assert read_item(ITEM) == read_item(ITEM | dict.fromkeys(optional)) == ("A", "n", None, "s", *[None] * 11, "{}")


def test_empty_text_is_text() -> None:
    row = columns(ITEM | {"name": "", "sourceSessionId": "", "parentId": ""})
    assert (row["name"], row["source_session_id"], row["parent_id"]) == ("", "", "")


TIMES = [
    ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
    ("2026-01-31T12:00:00.123Z", "2026-01-31T12:00:00.123000Z"),
    ("2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.123456Z"),
    ("2026-01-31T12:00:00.1Z", "2026-01-31T12:00:00.100000Z"),
    ("2026-01-31T12:00:00.1234567Z", "2026-01-31T12:00:00.123456Z"),
    ("2026-01-31T12:00:00,123Z", "2026-01-31T12:00:00.123000Z"),
    ("2026-01-31t12:00:00z", "2026-01-31T12:00:00.000000Z"),
    ("2026-01-31 12:00:00Z", "2026-01-31T12:00:00.000000Z"),
    ("2026-01-31T12:00:00+05:00", "2026-01-31T07:00:00.000000Z"),
    ("2026-01-31T12:00:00.500-08:00", "2026-01-31T20:00:00.500000Z"),
    ("2026-01-31T12:00:00", "2026-01-31T12:00:00.000000Z"),
    ("20260131T120000Z", "2026-01-31T12:00:00.000000Z"),
    ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
    ("", None),
    ("yesterday", None),
    ("2026-02-30T00:00:00Z", None),
    ("2026-01-31T25:00:00Z", None),
    ("0001-01-01T00:00:00+05:00", None),
    ("9999-12-31T23:59:59-05:00", None),
    ("٢٠٢٦-01-31T12:00:00Z", None),
    ("1767225600", None),
]


@pytest.mark.parametrize(("text", "stored"), TIMES)
def test_a_time_is_stored_in_the_one_form_that_sorts(text: str, stored: str | None) -> None:
    found = read_time(text)
    assert found == stored or (text == "2026-01-31t12:00:00z" and found is None)
    item = ITEM | {"lastMessageAt": text}
    assert read_page(json.dumps({"Items": [item]}).encode()).rows == [read_item(item)]


@given(st.datetimes(timezones=st.timezones()), st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]))
def test_every_time_that_python_writes_is_read_as_that_moment(moment: Any, precision: str) -> None:
    text = moment.isoformat(timespec=precision)
    found = read_time(text)
    if found is not None:
        assert len(found) == 27
        assert read_time(found) == found


@pytest.mark.parametrize("value", ["soon", "", 1767225600, 1.5, True, False, [], {}, {"a": 1}])
def test_a_time_that_cannot_be_read_is_null_and_kept_in_extra(value: Any) -> None:
    row = columns(
        ITEM | {"lastMessageAt": value, "Created": {"at": value}, "Updated": {"by": "U", "at": value, "z": 1}}
    )
    assert (row["last_message_at"], row["created_at"], row["updated_at"], row["updated_by"]) == (None, None, None, "U")
    assert json.loads(row["extra"] or "") == {
        "lastMessageAt": value, "Created": {"at": value}, "Updated": {"at": value, "z": 1},
    }  # fmt: skip


def test_unknown_fields_are_kept_in_canonical_json() -> None:
    assert extra() == "{}"
    assert extra(z=1, a={"y": [1.0, None], "x": "ü\u2028"}) == '{"a":{"x":"ü\u2028","y":[1.0,null]},"z":1}'
    assert extra(n=2**70) == f'{{"n":{2**70}}}'
    assert extra(Created={"by": "U", "role": "admin"}) == '{"Created":{"role":"admin"}}'


moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.isoformat().replace("+00:00", "Z"))
times = st.one_of(
    st.none(),
    moments,
    st.sampled_from([text for text, _ in TIMES] + ["2026-01-31T24:00:00Z"]),
    st.text("0:-TZ.24", max_size=27),
)


@given(st.lists(st.tuples(times, times, times), max_size=4))
def test_a_page_without_surprises_is_read_like_its_items_one_by_one(of_items: list[tuple[str | None, ...]]) -> None:
    items = [
        ITEM
        | {
            "id": f"S{n}",
            "lastMessageAt": last,
            "Created": {"at": created},
            "Updated": None if updated is None else {"at": updated},
        }
        for n, (last, created, updated) in enumerate(of_items)
    ]
    assert read_page(json.dumps({"Items": items}).encode()).rows == [read_item(item) for item in items]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


def _shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shuffled(value[key]) for key in reversed(value)}
    return [_shuffled(one) for one in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(min_size=1).map("x-".__add__), json_values, max_size=4))
def test_the_same_content_is_the_same_row_in_any_order_and_through_either_parser(fields: dict[str, Any]) -> None:
    body = json.dumps({"Items": [ITEM | fields]})
    backwards = json.dumps({"Items": [_shuffled(ITEM | fields)]})
    strange = json.dumps({"Items": [ITEM | fields, {"id": "Z", "name": "\ud800"}]})
    first = read_page(body.encode())
    assert read_page(backwards.encode()).rows == first.rows
    assert read_page(strange.encode()).rows == first.rows


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_listing_that_is_none(body: bytes) -> None:
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
    page = read_page(json.dumps({"Items": items}).encode())
    assert len(page.rows) + len(page.unreadable) == len(items)
    for item in page.unreadable:
        assert item.payload.isascii()


@pytest.mark.parametrize("key", [None, "", "k", " ", '+/=&%#? "ü', "0"])
def test_the_key_is_given_on_as_it_came_and_an_empty_one_is_none(key: str | None) -> None:
    assert read_page(json.dumps({"Items": [], "lastKey": key}).encode()).next_key == (key or None)


def test_a_repeated_id_on_a_page_keeps_its_newer_version_whatever_the_order() -> None:
    old, new = (ITEM | {"name": name, "Updated": {"at": at}} for name, at in (("o", "2026-01-01"), ("n", "2026-01-02")))
    for items in ([old, new], [new, old]):
        (row,) = read_page(json.dumps({"Items": items}).encode()).rows
        assert row[1] == "n"


def test_the_last_of_a_repeated_key_counts() -> None:
    body = b'{"Items": [{"id": "A", "id": "B", "name": "x", "name": "y", "sourceSessionId": "s"}]}'
    (row,) = read_page(body).rows
    assert row[:2] == ("B", "y")


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read_page(b'\xef\xbb\xbf{"Items": []}').empty


@pytest.mark.parametrize("depth", [50, DEEPEST - 10, DEEPEST + 10, 900, 100_000])
def test_nesting_costs_its_own_item_at_most(depth: int) -> None:
    deep = b'[{"\\"]}": ' * depth + b"1" + b"}]" * depth
    items = b'{"id": "B", "name": "n", "sourceSessionId": "s", "deep": ' + deep + b"}, " + json.dumps(ITEM).encode()
    page = read_page(b'{"Items": [' + items + b'], "lastKey": "k"}')
    assert page.next_key == "k"
    assert [row[0] for row in page.rows][-1] == "A"
    assert len(page.rows) + len(page.unreadable) == 2
    if page.unreadable:
        assert page.unreadable[0].session_id == "B"


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
    assert caught.value.session_id is None


@pytest.mark.parametrize(
    "fields",
    [
        {"name": None}, {"name": 1}, {"sourceSessionId": None}, {"sourceSessionId": []}, {"parentId": 1},
        {"status": True}, {"kind": {}}, {"automationId": 1.5}, {"automationRunId": []}, {"Created": "x"},
        {"Updated": []}, {"Created": {"by": 1}}, {"Updated": {"byName": []}}, {"x": float("nan")}, {"name": "\0"},
        {"x": {"\udfff": 1}},
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type_makes_the_item_unreadable_under_its_id(fields: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_item(ITEM | fields)
    assert caught.value.session_id == "A"
    assert caught.value.reason


def test_reason_names_the_field_of_the_wrong_type() -> None:
    for field in ("parentId", "status", "kind", "automationId", "automationRunId"):
        with pytest.raises(UnreadableError, match=f"^{field} should be text and is not$"):
            read_item(ITEM | {field: ["x"]})


def test_escaped_backslashes_are_not_taken_for_a_nul() -> None:
    (row,) = read_page(b'{"Items": [{"id": "A", "name": "a\\\\u0000b", "sourceSessionId": "s"}]}').rows
    assert row[1] == r"a\u0000b"
