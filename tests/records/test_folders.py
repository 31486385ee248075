"""Albert's answers about folders, read by their list of fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from syncd.records.fields import FOLDERS, FolderRow
from syncd.records.parse import GarbledError, Page, read_page, read_record

WIRE = {
    "id": "FOL2", "name": "Adhesives", "type": "child", "parentId": "FOL1",
    "Created": {"by": "USR1", "byName": "Ada", "at": "2026-06-01T12:00:00+02:00"},
    "Updated": {"at": "2026-06-01T12:00:00Z"},
}  # fmt: skip


def read(*items: Any, last_key: Any = None) -> Page[FolderRow]:
    return read_page(json.dumps({"Items": items, "lastKey": last_key}).encode(), FOLDERS)


def test_folder_has_its_columns_and_unknown_fields_in_extra() -> None:
    page = read(WIRE | {"sequence": ["SES1"]}, last_key="k")
    assert page.rows == [
        FolderRow(
            "FOL2", "Adhesives", "child", "FOL1", "2026-06-01T10:00:00.000000Z", "2026-06-01T12:00:00.000000Z",
            '{"Created":{"by":"USR1","byName":"Ada"},"sequence":["SES1"]}',
        )
    ]  # fmt: skip
    assert (page.unreadable, page.next_key) == ([], "k")
    assert read_record(json.dumps(WIRE).encode(), FOLDERS).id == "FOL2"


def test_folder_needs_an_id_and_a_name_only() -> None:
    assert read({"id": "FOL1", "name": ""}).rows == [FolderRow("FOL1", "", None, None, None, None, "{}")]


@pytest.mark.parametrize("at", ["yesterday", "", 5, {"a": 1}])
def test_time_that_cannot_be_read_is_kept_in_extra(at: Any) -> None:
    row = read({"id": "FOL1", "name": "n", "Created": {"at": at}}).rows[0]
    assert (row.created_at, json.loads(row.extra)) == (None, {"Created": {"at": at}})


@pytest.mark.parametrize(
    ("item", "folder_id"),
    [
        (5, None),
        ({"name": "n"}, None),
        ({"id": "", "name": "n"}, None),
        ({"id": "FOL1"}, "FOL1"),
        ({"id": "FOL1", "name": 5}, "FOL1"),
        ({"id": "FOL1", "name": "n", "type": 5}, "FOL1"),
        ({"id": "FOL1", "name": "n", "parentId": ["FOL2"]}, "FOL1"),
        ({"id": "FOL1", "name": "a\0b"}, "FOL1"),
        ({"id": "F" * 3000, "name": "n"}, "F" * 3000),
        ({"id": "FOL1", "name": "n", "x": float("nan")}, "FOL1"),
    ],
)
def test_unreadable_folder_costs_itself_and_not_its_page(item: Any, folder_id: str | None) -> None:
    page = read(item, WIRE)
    assert [row.id for row in page.rows] == ["FOL2"]
    (unreadable,) = page.unreadable
    assert unreadable.record_id == folder_id
    assert unreadable.reason
    with pytest.raises(GarbledError, match="not a folder"):
        read_record(json.dumps(item).encode(), FOLDERS)


def test_folder_that_is_listed_twice_is_one_row() -> None:
    assert [row.name for row in read(WIRE, WIRE | {"name": "later"}).rows] == ["later"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"Items": null}', b'{"Items": {}}', b'{"Items": [], "lastKey": 5}']
)
def test_body_that_is_not_a_listing_is_an_error(body: bytes) -> None:
    with pytest.raises(GarbledError):
        read_page(body, FOLDERS)
