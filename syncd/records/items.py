"""Reads one item of a page, or the answer to a look-up, field by field. Called by `records.parse`.

This is the reading that defines what a row is. `records.plain_pages` gives the same rows for most items, faster.
"""

from __future__ import annotations

from typing import Any

from syncd.records.fields import EXTRA, Block, Field, FieldList, FieldType, R
from syncd.records.timestamps import read_time
from syncd.records.tolerant_json import canonical, sendable, storable

LONGEST_INDEXED = 2600
"""Bytes of all text in one index entry. PostgreSQL refuses a row with more (2,704 bytes, less its own overhead)."""
SHORT_INDEXED = LONGEST_INDEXED // 4
"""Characters that have at most `LONGEST_INDEXED` bytes in UTF-8."""


_TEXT, _TIME = FieldType.TEXT, FieldType.TIME  # Python 3.11 needs 0.1 µs to look up a member of an enum


class UnreadableError(Exception):
    """An item that cannot be read. `record_id` is its id, if at least that can be read."""

    def __init__(self, reason: str, record_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.record_id = record_id


def read_item(item: Any, fields: FieldList[R], *, careful: bool = True) -> R:  # noqa: ANN401 - any JSON
    """Read one record.

    Parameters
    ----------
    item : Any
        Parsed JSON: an element of `Items`, or the body of an answer about one record.
    careful : bool
        Whether text in the item may contain NUL or lone surrogates, which no database stores.

    Raises
    ------
    UnreadableError
        The item has no id, lacks a required field, or has a field of the wrong type.
    """
    if type(item) is not dict:
        raise UnreadableError("not an object")
    record_id = item.get("id")
    if type(record_id) is not str or not record_id or not sendable(record_id):
        raise UnreadableError("no readable id")
    if careful and not storable(item):
        raise UnreadableError("text that no database can store (NUL or a lone surrogate)", record_id)
    try:
        return _read_fields(item, fields)
    except _WrongError as error:
        raise UnreadableError(str(error), record_id) from None
    except ValueError:
        raise UnreadableError("a value that JSON cannot express (NaN or an infinite number)", record_id) from None


class _WrongError(Exception):
    """A field that makes its item unreadable."""


def _read_fields(item: dict[str, Any], fields: FieldList[R]) -> R:
    values: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for block in fields.blocks:
        members = _block(item, block) if block.name else item
        rest = {} if members.keys() <= block.names else {name: members[name] for name in members.keys() - block.names}
        for field in block.fields:
            value = members.get(field.name)
            if type(value) is not str or field.type is not _TEXT:
                value = _value(value, field)
                if value is _KEPT:
                    rest[field.name], value = members[field.name], None
            values[field.column] = value
        if rest:
            unknown |= {block.name: rest} if block.name else rest
    _require_short([values[column] for column in fields.indexed], fields)
    return fields.row(**values, **{EXTRA: canonical(unknown) if unknown else "{}"})


def _block(item: dict[str, Any], block: Block) -> dict[str, Any]:
    """Return an object inside an item; an absent one is empty."""
    members = item.get(block.name)
    if members is None:
        return {}
    if type(members) is not dict:
        raise _WrongError(f"{block.name} should be an object and is not")
    return members


_KEPT = object()
"""In the place of a value that its column cannot hold: the column is null, and `extra` contains the value."""
_WANTED = {FieldType.BOOLEAN: "true or false", FieldType.NUMBER: "a number", FieldType.TEXT: "text"}


def _value(value: Any, field: Field) -> Any:  # noqa: ANN401 - any JSON
    """Return the value for a field's column, or `_KEPT`.

    Raises
    ------
    _WrongError
        The value has the wrong type, or is absent although it is required.
    ValueError
        JSON cannot express the value.
    """
    if value is None:
        if field.required:
            raise _WrongError(f"no readable {field.wire.path}")
        return None
    if field.type is _TIME:
        return (read_time(value) if type(value) is str else None) or _KEPT
    match field.type:
        case FieldType.BOOLEAN if type(value) is bool:
            return value
        case FieldType.NUMBER if type(value) in {int, float}:
            return float(value) if is_exact(value) else _KEPT
        case FieldType.JSON:
            return canonical(value)
    if field.required:
        raise _WrongError(f"no readable {field.wire.path}")
    raise _WrongError(f"{field.wire.path} should be {_WANTED[field.type]} and is not")


def is_exact(value: float) -> bool:
    """Whether a float holds a number exactly: all but integers of more than 53 bits."""
    try:
        return float(value) == value
    except OverflowError:
        return False


def _require_short(texts: list[str], fields: FieldList[R]) -> None:
    """Refuse texts that are too long for their index.

    Raises
    ------
    _WrongError
        They are.
    """
    if sum(map(len, texts)) > SHORT_INDEXED and (length := sum(len(text.encode()) for text in texts)) > LONGEST_INDEXED:
        names = " and ".join(fields.by_column[column].wire.path for column in fields.indexed)
        raise _WrongError(f"{names} have {length} bytes together; at most {LONGEST_INDEXED} can be stored")
