"""Reads Albert's answers about chat folders: pages of the listing, and single folders. No I/O.

`pull.folders` calls it. An unreadable folder costs itself and not its page. A body that is not a listing raises
`GarbledError`: it is never an empty listing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from syncd.records.items import LONGEST_INDEXED
from syncd.records.parse import GarbledError
from syncd.records.timestamps import read_time
from syncd.records.tolerant_json import canonical, parse, sendable, storable


class FolderRow(NamedTuple):
    """A folder as the mirror stores it; times as `clock.utc_text` writes them, `extra` as canonical JSON."""

    id: str
    name: str
    type: str | None
    parent_id: str | None
    created_at: str | None
    updated_at: str | None
    extra: str


@dataclass(frozen=True, slots=True)
class UnreadableFolder:
    """An item that is not a folder: its id if that can be read, and the reason."""

    folder_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class FolderPage:
    """A page of the listing."""

    rows: list[FolderRow]
    unreadable: list[UnreadableFolder]
    next_key: str | None


class _UnreadableError(Exception):
    """An item is not a folder; the text is the reason."""


def read_folder_page(body: bytes) -> FolderPage:
    """Read a page of the listing.

    Raises
    ------
    GarbledError
        The body is not `{"Items": [...], "lastKey": ...}`.
    """
    try:
        data, careful = parse(body)
    except ValueError as error:
        raise GarbledError(str(error)) from None
    if not isinstance(data, dict) or not isinstance(items := data.get("Items"), list):
        raise GarbledError('the answer is not a listing: it has no "Items"')
    next_key = data.get("lastKey")
    if next_key is not None and not (isinstance(next_key, str) and sendable(next_key)):
        raise GarbledError('the answer is not a listing: its "lastKey" is not text')
    found = [_try(item, careful=careful) for item in items]
    rows = {one.id: one for one in found if isinstance(one, FolderRow)}
    return FolderPage(
        list(rows.values()), [one for one in found if isinstance(one, UnreadableFolder)], next_key or None
    )


def read_folder(body: bytes) -> FolderRow:
    """Read the answer to the request for one folder.

    Raises
    ------
    GarbledError
        The body is not a folder.
    """
    try:
        item, careful = parse(body)
        return _read(item, careful=careful)
    except (ValueError, _UnreadableError) as error:
        raise GarbledError(f"the answer is not a folder: {error}") from None


def _try(item: Any, *, careful: bool) -> FolderRow | UnreadableFolder:  # noqa: ANN401 - any JSON
    try:
        return _read(item, careful=careful)
    except _UnreadableError as error:
        folder_id = item.get("id") if isinstance(item, dict) else None
        readable = isinstance(folder_id, str) and folder_id != "" and sendable(folder_id)
        return UnreadableFolder(folder_id if readable else None, str(error))


def _read(item: Any, *, careful: bool) -> FolderRow:  # noqa: ANN401 - any JSON
    if not isinstance(item, dict):
        raise _UnreadableError("not an object")
    folder_id = item.get("id")
    if not isinstance(folder_id, str) or not folder_id or not sendable(folder_id):
        raise _UnreadableError("no readable id")
    if len(folder_id.encode()) > LONGEST_INDEXED:
        raise _UnreadableError("its id is too long for an index")
    if careful and not storable(item):
        raise _UnreadableError("text that no database can store")
    if not isinstance(name := item.get("name"), str):
        raise _UnreadableError("no readable name")
    rest = {key: value for key, value in item.items() if key not in {"id", "name", "type", "parentId"}}
    kind, parent_id = _text(item, "type"), _text(item, "parentId")
    created_at, updated_at = _take_time(rest, "Created"), _take_time(rest, "Updated")
    try:
        extra = canonical(rest)
    except ValueError:
        raise _UnreadableError("a field that JSON cannot represent") from None
    return FolderRow(folder_id, name, kind, parent_id or None, created_at, updated_at, extra)


def _text(item: dict[str, Any], name: str) -> str | None:
    value = item.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _UnreadableError(f"{name} is not text")


def _take_time(rest: dict[str, Any], block: str) -> str | None:
    """Take the time out of `Created` or `Updated`; anything else in the block stays in `rest`."""
    audit = rest.pop(block, None)
    if not isinstance(audit, dict):
        if audit is not None:
            rest[block] = audit
        return None
    at = audit.get("at")
    moment = read_time(at) if isinstance(at, str) and at else None
    others = {key: value for key, value in audit.items() if key != "at" or (moment is None and at is not None)}
    if others:
        rest[block] = others
    return moment
