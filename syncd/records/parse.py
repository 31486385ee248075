"""Reads the bodies of Albert's answers: pages of records, and single records. No I/O.

Called by the flows, with a list of fields (`records.fields`). An unreadable item does not make its page unreadable. A
body that is not a listing raises `GarbledError`: it is never an empty listing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic

from syncd.records.fields import SESSIONS, FieldList, R, SessionRow
from syncd.records.items import UnreadableError, read_item
from syncd.records.plain_pages import plain_pages
from syncd.records.tolerant_json import parse, payload, sendable

READER_VERSION = 1
"""Raise it by one when the same item gives another row than before, although the fields are the same."""

_NEXT_KEY = re.compile(rb'"lastKey"\s*:\s*"([\x20\x21\x23-\x5b\x5d-\x7e]+)"\s*}\s*\Z')
"""A page key of plain ASCII at the end of a page. Quotation marks in texts are escaped, so that none looks like it."""
_END = 4096
"""Bytes at the end of a page in which its key is searched."""


class GarbledError(Exception):
    """A 2xx whose body is not an answer to the call.

    `record_id` is the id of the record in it, if at least that can be read.
    """

    def __init__(self, reason: str, record_id: str | None = None) -> None:
        super().__init__(reason)
        self.record_id = record_id


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item for the quarantine: its id if that can be read, the reason, and the item as ASCII JSON."""

    record_id: str | None
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """A page of a listing: one row for each readable record, in their order, each id once."""

    rows: list[R]
    unreadable: list[Unreadable]
    next_key: str | None


def read_page(body: bytes, fields: FieldList[R]) -> Page[R]:
    """Read a page of a listing.

    Raises
    ------
    GarbledError
        The body is not `{"Items": [...], "lastKey": ...}`.
    """
    plain = plain_pages(fields).read(body)
    if plain is None:
        items, careful, next_key = _read_listing(body)
        outcomes = [_try(item, fields, careful=careful) for item in items]
        return _page(outcomes, fields, next_key)
    results: list[R | Unreadable | None] = [*plain.rows]
    for place, raw in plain.odd.items():
        results[place] = _read_raw(raw, fields)
    return _page(results, fields, plain.next_key)


def _page(outcomes: Sequence[R | Unreadable | None], fields: FieldList[R], next_key: object) -> Page[R]:
    if next_key is not None and not (isinstance(next_key, str) and sendable(next_key)):
        raise GarbledError('the answer is not a listing: its "lastKey" is not text')
    rows = [outcome for outcome in outcomes if isinstance(outcome, fields.row)]
    unreadable = (
        [outcome for outcome in outcomes if isinstance(outcome, Unreadable)] if len(rows) < len(outcomes) else []
    )
    return Page(_newest(rows, fields.newest_by), unreadable, next_key or None)


def _newest(rows: list[R], newest_by: str) -> list[R]:
    """Return one row for each id: of several, the newest one, or the last one if they are of the same time."""
    if len({row.id for row in rows}) == len(rows):
        return rows
    newest: dict[str, R] = {}
    for row in rows:
        other = newest.get(row.id)
        if other is None or (getattr(row, newest_by) or "") >= (getattr(other, newest_by) or ""):
            newest[row.id] = row
    return list(newest.values())


def _read_listing(body: bytes) -> tuple[list[Any], bool, object]:
    """Parse a listing as a whole: its items, whether their text may contain what no database stores, and its key."""
    data, careful = _parse(body)
    if not isinstance(data, dict) or not isinstance(items := data.get("Items"), list):
        raise GarbledError('the answer is not a listing: it has no "Items"')
    return items, careful, data.get("lastKey")


def _read_raw(raw: bytes, fields: FieldList[R]) -> R | Unreadable:
    try:
        item, careful = parse(raw)
    except ValueError:
        return Unreadable(None, "not JSON", payload(raw.decode(errors="backslashreplace")))
    return _try(item, fields, careful=careful)


def _try(item: Any, fields: FieldList[R], *, careful: bool) -> R | Unreadable:  # noqa: ANN401 - any JSON
    try:
        return read_item(item, fields, careful=careful)
    except UnreadableError as error:
        return Unreadable(error.record_id, error.reason, payload(item))


def _parse(body: bytes) -> tuple[Any, bool]:
    try:
        return parse(body)
    except ValueError as error:
        raise GarbledError(str(error)) from None


def read_record(body: bytes, fields: FieldList[R]) -> R:
    """Read the answer to a create or a look-up.

    Raises
    ------
    GarbledError
        The body is not such a record.
    """
    item, careful = _parse(body)
    try:
        return read_item(item, fields, careful=careful)
    except UnreadableError as error:
        raise GarbledError(f"the answer is not a {fields.noun}: {error.reason}", error.record_id) from error


def next_key_at_end(body: bytes) -> str | None:
    """Return the `lastKey` of a page without reading the page, if it is plain text at the end; None if it is not."""
    match = _NEXT_KEY.search(body, max(len(body) - _END, 0))
    return None if match is None else match[1].decode()


@cache
def reader_of(fields: FieldList[Any]) -> bytes:
    """Return what distinguishes this reader from those that read the same pages as other rows.

    A page that another reader has read is read again: see `mirror.store.pages.digest`.
    """
    columns = [(field.column, field.type.value, field.required, field.wire.path) for field in fields.by_column.values()]
    return hashlib.sha256(repr((READER_VERSION, columns)).encode()).digest()


def read_session(body: bytes) -> SessionRow:
    """Read the answer to a create or a look-up of a session.

    Raises
    ------
    GarbledError
        The body is not a session.
    """
    return read_record(body, SESSIONS)
