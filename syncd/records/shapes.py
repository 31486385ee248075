"""The structs that `msgspec` decodes records into, made from a list of fields, and the way from structs to rows.

Used by `records.plain_pages` alone. Structs become columns, columns are checked as a whole, and columns become rows:
most steps are single calls into C for all items of a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import astuple

from syncd.records.fields import EXTRA, Field, FieldList, FieldType, R
from syncd.records.items import SHORT_INDEXED, is_exact
from syncd.records.timestamps import read_times

DEFECTS = (msgspec.MsgspecError, ValueError, RecursionError)
"""The errors of a decoder."""
Names = frozenset[tuple[str, str]]
"""Fields on the wire: the object that contains each ("" for the record itself), and its name there."""
_ENCODER = msgspec.json.Encoder(order="sorted")
_ANY = msgspec.json.Decoder()
_DECODED: dict[FieldType, Any] = {
    FieldType.TEXT: str,
    FieldType.TIME: str,
    FieldType.BOOLEAN: bool,
    FieldType.NUMBER: int | float,
    FieldType.JSON: Any,
}


class Shape(Generic[R]):
    """The structs for a list of fields and some unknown fields.

    Parameters
    ----------
    unknown : Names
        Fields that rows keep in `extra`. All others that are not in the list make `decode_page` and `decode_item` fail.
    """

    def __init__(self, fields: FieldList[R], unknown: Names) -> None:
        self.fields = fields
        self.unknown = unknown
        self._unknown = {
            known_block.name: sorted(name for block, name in unknown if block == known_block.name)
            for known_block in fields.blocks
        }
        record, *blocks = fields.blocks
        structs = {block.name: _struct(_typed(block.fields), self._unknown[block.name]) for block in blocks}
        self._empty = {block.name: None if block.required else structs[block.name]() for block in blocks}
        inner: list[tuple[Any, ...]] = [
            (block.name, structs[block.name]) if block.required else (block.name, structs[block.name] | None, None)
            for block in blocks
        ]
        item = _struct([*_typed(record.fields), *inner], self._unknown[""])
        page = msgspec.defstruct("Page", [("Items", list[item]), ("lastKey", str | None, None)], gc=False)  # type: ignore[valid-type]
        self._page = msgspec.json.Decoder(page, float_hook=_float)
        self._item = msgspec.json.Decoder(item, float_hook=_float)
        self._extra_of = {
            block: _struct([], names, kw_only=False) for block, names in self._unknown.items() if block and names
        }
        self._extra_names = sorted([*self._unknown[""], *self._extra_of])
        self._extra = _struct([], self._extra_names, kw_only=False)

    def decode_page(self, body: bytes) -> Any:  # noqa: ANN401 - a struct with Items and lastKey
        """Decode a page; None if an item has a defect or another unknown field."""
        try:
            return self._page.decode(body)
        except DEFECTS:
            return None

    def decode_each(self, raws: Sequence[Raw]) -> list[Struct | None]:
        """Decode items; None in the place of each that has a defect or another unknown field."""
        items: list[Struct | None] = []
        decode = self._item.decode
        for raw in raws:
            try:
                items.append(decode(raw))
            except DEFECTS:
                items.append(None)
        return items

    def unknown_names(self, raw: Raw) -> Names:
        """Return the fields of an item that are not in the list, as far as a struct can have them."""
        item: object = None
        with suppress(*DEFECTS):
            item = _ANY.decode(raw)
        if not isinstance(item, dict):
            return frozenset()
        unknown = set()
        for block in self.fields.blocks:
            members = item.get(block.name) if block.name else item
            if isinstance(members, dict):
                unknown |= {(block.name, name) for name in members.keys() - block.names if _can_be_named(name)}
        return frozenset(unknown)

    def rows(self, items: Sequence[Struct]) -> tuple[list[R], set[int]]:
        """Turn decoded items into rows.

        Returns
        -------
        tuple[list[R], set[int]]
            The rows, and the places of odd items: their rows are to be ignored, since columns cannot hold their values.
        """
        if not items:
            return [], set()
        wire_columns = self._columns(items)
        columns: dict[str, Sequence[Any]] = {}
        odd: set[int] = set()
        for field in self.fields.fields:
            columns[field.column], places = _checked(wire_columns[field.block, field.name], field.type)
            odd.update(places)
        odd.update(_badly_indexed([columns[name] for name in self.fields.indexed]))
        columns[EXTRA] = self._extras(wire_columns, len(items))
        return list(map(self.fields.row, *(columns[name] for name in self.fields.columns))), odd

    def _columns(self, items: Sequence[Struct]) -> dict[tuple[str, str], Sequence[Any]]:
        """Turn structs into columns, by the place of each field on the wire."""
        wire_columns = {("", name): column for name, column in _transposed(items).items()}
        for block, empty in self._empty.items():
            members = [empty if member is None else member for member in wire_columns["", block]]
            wire_columns |= {(block, name): column for name, column in _transposed(members).items()}
        return wire_columns

    def _extras(self, wire_columns: Mapping[tuple[str, str], Sequence[Any]], count: int) -> Sequence[str]:
        """Write `extra` for each item."""
        if not self.unknown:
            return ["{}"] * count
        parts = {name: wire_columns["", name] for name in self._unknown[""]}
        for block, struct in self._extra_of.items():
            items = zip(*(wire_columns[block, name] for name in self._unknown[block]), strict=True)
            parts[block] = [UNSET if all(value is UNSET for value in item) else struct(*item) for item in items]
        extras = map(self._extra, *(parts[name] for name in self._extra_names))
        return [text.decode() for text in map(_ENCODER.encode, extras)]


def _badly_indexed(columns: Sequence[Sequence[str]]) -> set[int]:
    """Find the items with an empty id, or with texts that may be too long for their index."""
    odd = {place for place, text in enumerate(columns[0]) if not text} if "" in columns[0] else set[int]()
    if sum(max(map(len, column)) for column in columns) > SHORT_INDEXED:
        lengths = (sum(map(len, texts)) for texts in zip(*columns, strict=True))
        odd |= {place for place, length in enumerate(lengths) if length > SHORT_INDEXED}
    return odd


def _checked(column: Sequence[Any], type_: FieldType) -> tuple[Sequence[Any], Iterable[int]]:
    """Bring the values of a column to their stored form, and find the places of those that have none."""
    match type_:
        case FieldType.TIME:
            return read_times(column)
        case FieldType.NUMBER:
            odd = {place for place, value in enumerate(column) if value is not None and not is_exact(value)}
            return [None if value is None or place in odd else float(value) for place, value in enumerate(column)], odd
        case FieldType.JSON:
            return [None if value is None else _ENCODER.encode(value).decode() for value in column], ()
    return column, ()


def _transposed(structs: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Turn structs of one type into columns, by their names on the wire."""
    return dict(zip(structs[0].__struct_encode_fields__, zip(*map(astuple, structs), strict=False), strict=True))


def _typed(fields: Sequence[Field]) -> list[tuple[Any, ...]]:
    """Return the name, the type and, if it is optional, the default of each field."""
    return [
        (field.name, _DECODED[field.type]) if field.required else (field.name, _DECODED[field.type] | None, None)
        for field in fields
    ]


def _struct(fields: Sequence[tuple[Any, ...]], unknown: Sequence[str], *, kw_only: bool = True) -> type[Struct]:
    """Make a struct of fields with any names on the wire. In Python they have numbers."""
    attributes = {
        f"f{number}": field for number, field in enumerate([*fields, *((name, Any, UNSET) for name in unknown)])
    }
    return msgspec.defstruct(
        "Fields",
        [(name, *field[1:]) for name, field in attributes.items()],
        rename={name: field[0] for name, field in attributes.items()},
        forbid_unknown_fields=True,
        kw_only=kw_only,
        gc=False,
    )


def _can_be_named(name: str) -> bool:
    """Whether a struct can have a field of this name."""
    return name.isprintable() and not {'"', "\\"}.intersection(name)


def _float(text: str) -> Raw:
    """Keep a float of unknown JSON as `tolerant_json.canonical` writes it.

    Raises
    ------
    ValueError
        The number is infinite.
    """
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("an infinite number")
    return Raw(repr(value).encode())
