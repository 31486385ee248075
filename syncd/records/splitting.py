"""Splits a page into the bytes of its items, so that a defect in one of them affects only that item.

Used by `records.plain_pages`. NaN and lone surrogates, which `msgspec` does not accept, are masked first: replaced by
JSON of the same length. A masked item is defective, and its original bytes are kept for a more tolerant parser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from syncd.records.tolerant_json import NUL


@dataclass(frozen=True, slots=True)
class SplitPage:
    """The items of a page.

    Parameters
    ----------
    items : Sequence[Raw]
        JSON, one for each item. Their text may still be invalid UTF-8.
    defects : dict[int, bytes]
        The original bytes, by their places, of items with text or numbers that no database stores.
    """

    items: Sequence[Raw]
    defects: dict[int, bytes]
    next_key: str | None

    def original(self, place: int) -> bytes:
        """Return the bytes of an item as Albert sent them."""
        return self.defects.get(place) or bytes(self.items[place])


class _Listing(msgspec.Struct, gc=False):
    Items: list[Raw]
    lastKey: str | None = None  # noqa: N815 - the name on the wire


_LISTING = msgspec.json.Decoder(_Listing)
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_NAME = re.compile(rb'[\s{,]*"(?:[^"\\]++|\\.)*+"\s*:\s*', re.DOTALL)
"""The text between the value of a member and that of the next one."""
_BETWEEN = re.compile(rb"[\s\[,]*")
"""The text between an item and the next one."""
_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""A pair, which is left as it is, or half of one."""

MASKED_NUMBER = "0.0"
"""Part of each number that `_mask` writes."""


def split(body: bytes) -> SplitPage | None:
    """Split a page; None if it is not a listing, or has defects that cannot be masked."""
    if (listing := _decode(body)) is not None:
        return SplitPage(listing.Items, _with_nul(listing.Items) if has_nul(body) else {}, listing.lastKey)
    masked = _mask(body)
    if masked == body or (listing := _decode(masked)) is None:
        return None
    if listing.lastKey is not None and MASKED_NUMBER in listing.lastKey:
        return None  # the key itself may have been masked
    items = [bytes(item) for item in listing.Items]
    starts = _starts(masked, items)
    if starts is None:
        return None
    defects = {}
    for place, (item, start) in enumerate(zip(items, starts, strict=True)):
        original = body[start : start + len(item)]
        if item != original or NUL in item:
            defects[place] = original
    return SplitPage(listing.Items, defects, listing.lastKey)


def _starts(masked: bytes, items: Sequence[bytes]) -> list[int] | None:
    """Return where each item begins; None if that is not clear, as in a page that has a member twice.

    The members are followed from the beginning: the same bytes can also be in a member before `Items`.
    """
    try:
        members = _MEMBERS.decode(masked)
    except (msgspec.MsgspecError, ValueError):
        return None
    position = 0
    for name, value in members.items():
        position = _end(_NAME, masked, position)
        if name == "Items":
            break
        position += len(bytes(value))
    starts = []
    for item in items:
        position = _end(_BETWEEN, masked, position)
        if not masked.startswith(item, position):
            return None
        starts.append(position)
        position += len(item)
    return starts


def _end(pattern: re.Pattern[bytes], text: bytes, position: int) -> int:
    """Return where a match at a position ends; the position if nothing matches."""
    match = pattern.match(text, position)
    return position if match is None else match.end()


def has_nul(body: bytes) -> bool:
    """Whether text in a body may contain NUL."""
    return b"\\" in body and NUL in body  # one byte is found forty times faster than six


def _with_nul(items: Sequence[Raw]) -> dict[int, bytes]:
    return {place: item for place, item in enumerate(map(bytes, items)) if NUL in item}


def _decode(body: bytes) -> _Listing | None:
    try:
        return _LISTING.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _mask(body: bytes) -> bytes:
    """Replace lone surrogates by NUL, and numbers that are not finite by zero.

    A match in the middle of other text does no harm: its item is read from the original bytes.
    """
    if b"\\ud" in body or b"\\uD" in body:
        body = _SURROGATE.sub(lambda match: match[0] if len(match[0]) > len(NUL) else NUL, body)
    return body.replace(b"NaN", b"0.0").replace(b"Infinity", b"0.000000")
