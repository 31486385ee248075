"""Reading what Albert sends: a page's bytes become rows, unreadable items and the key of the next page. No I/O.

One unreadable item costs itself and not its page. A body that is no listing at all raises `GarbledError`: it is
never an empty listing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from syncd.clock import utc_text
from syncd.records.tolerant_json import NUL, canonical, parse, payload, sendable, storable

Row = tuple[str | None, ...]
"""A session's content as text, in the order of `mirror.tables.CONTENT`; times as `clock.utc_text` writes them."""

ID, NAME, PARENT_ID, SOURCE, UPDATED_AT = 0, 1, 2, 3, 14
"""Where a row has what the flows look at."""

_TEXTS = ("parentId", "sourceSessionId", "status", "kind", "automationId", "automationRunId")
_KNOWN = frozenset({"id", "name", "lastMessageAt", "Created", "Updated", *_TEXTS})
_AUDIT = frozenset({"by", "byName", "at"})


class GarbledError(Exception):
    """A success that cannot be read: the server's words are not what the call answers with.

    `session_id` is there when the answer is a session of which that much could be read.
    """

    def __init__(self, words: str, session_id: str | None = None) -> None:
        super().__init__(words)
        self.session_id = session_id


class UnreadableError(Exception):
    """An item that cannot be read; `session_id` is there when that much could be."""

    def __init__(self, reason: str, session_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.session_id = session_id


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item for the quarantine: its id if that could be read, why it could not, and the item as JSON."""

    session_id: str | None
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the listing: one row for each readable session, each id once."""

    rows: list[Row]
    unreadable: list[Unreadable]
    next_key: str | None

    @property
    def empty(self) -> bool:
        """Whether the page brought no item at all."""
        return not self.rows and not self.unreadable


def read_page(body: bytes) -> Page:
    """Read a page of the listing.

    A page on which all is as `albert-api.md` describes it is decoded straight into its shape, several times faster
    than the general way; any other page goes the general way, item by item.

    Raises
    ------
    GarbledError
        The body is not `{"Items": [...], "lastKey": ...}`.
    """
    if b"\\" not in body or NUL not in body:  # one byte is looked for forty times faster than six
        try:
            return _read_plain(_PLAIN.decode(body))
        except (msgspec.MsgspecError, ValueError):
            pass
    return _read_any(body)


class _Audit(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    by: str | None = None
    byName: str | None = None  # noqa: N815 - the wire's
    at: str | None = None


class _Session(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    name: str
    sourceSessionId: str  # noqa: N815 - the wire's
    parentId: str | None = None  # noqa: N815 - the wire's
    status: str | None = None
    kind: str | None = None
    automationId: str | None = None  # noqa: N815 - the wire's
    automationRunId: str | None = None  # noqa: N815 - the wire's
    lastMessageAt: str | None = None  # noqa: N815 - the wire's
    Created: _Audit | None = None
    Updated: _Audit | None = None


class _Listing(msgspec.Struct, gc=False):
    Items: list[_Session]
    lastKey: str | None = None  # noqa: N815 - the wire's


_PLAIN = msgspec.json.Decoder(_Listing)
_NOBODY = _Audit()
LONGEST_IDS = 2600
"""Bytes of an id and its source id: PostgreSQL finds nothing longer by an index over both, and refuses the row."""
_SHORT = LONGEST_IDS // 4
"""Characters that are never more bytes than that."""


def _read_plain(listing: _Listing) -> Page:
    """Turn a page without surprises into rows.

    Raises
    ------
    ValueError
        There is a surprise: a time that cannot be read, an empty id, the same id twice.
    """
    times = _plain_times(listing.Items)
    rows: list[Row] = [
        (
            item.id, item.name, item.parentId, item.sourceSessionId, item.status, item.kind, item.automationId,
            item.automationRunId, times[item.lastMessageAt],
            (created := item.Created or _NOBODY).by, created.byName, times[created.at],
            (updated := item.Updated or _NOBODY).by, updated.byName, times[updated.at],
            "{}",
        )
        for item in listing.Items
    ]  # fmt: skip
    ids = {item.id for item in listing.Items}
    if len(ids) != len(rows) or "" in ids:
        raise ValueError("an id is empty, or there twice")
    longest = max(map(len, ids), default=0) + max((len(item.sourceSessionId) for item in listing.Items), default=0)
    if longest > _SHORT:
        raise ValueError("ids are long, perhaps too long")
    return Page(rows, [], listing.lastKey or None)


def _plain_times(items: list[_Session]) -> dict[str | None, str | None]:
    """Return the times of a page in the mirror's form; those of one length are looked at all at once.

    Raises
    ------
    ValueError
        One of them is no time.
    """
    given = {item.lastMessageAt for item in items}
    given.update([item.Created.at for item in items if item.Created])
    given.update([item.Updated.at for item in items if item.Updated])
    texts = [text for text in given if text is not None]
    times: dict[str | None, str | None] = {None: None}
    for length in set(map(len, texts)):
        same = [text for text in texts if len(text) == length]
        if _in_form(same, length):
            deque(map(datetime.fromisoformat, same), maxlen=0)  # they may look like times and be none
            times |= {text: text[:-1] + _FRACTION[length] for text in same}
        else:
            times |= {text: _require_time(text) for text in same}
    return times


def _in_form(texts: list[str], length: int) -> bool:
    """Whether texts of one length are in the mirror's form but for their fraction, as far as their marks tell."""
    joined = "".join(texts)
    marks = (*zip(range(4, 20, 3), _SHAPE[length == 20], strict=True), (length - 1, "Z"))  # noqa: PLR2004
    return (
        length in _FRACTION
        and all(joined[place::length] == mark * len(texts) for place, mark in marks)
        and "T24" not in joined
    )


def _require_time(text: str) -> str:
    """Bring a time to the mirror's form, or raise ValueError."""
    moment = read_time(text)
    if moment is None:
        raise ValueError("not a time")
    return moment


def _read_any(body: bytes) -> Page:
    """Read a page item by item, so that one that cannot be read costs itself and not its page."""
    data, careful = _parse(body)
    if not isinstance(data, dict) or not isinstance(items := data.get("Items"), list):
        raise GarbledError('the answer is not a listing: it has no "Items"')
    next_key = data.get("lastKey")
    if next_key is not None and (not isinstance(next_key, str) or not sendable(next_key)):
        raise GarbledError('the answer is not a listing: its "lastKey" is not text')
    rows: dict[str | None, Row] = {}
    unreadable = []
    for item in items:
        try:
            row = read_item(item, careful=careful)
        except UnreadableError as error:
            unreadable.append(Unreadable(error.session_id, error.reason, payload(item)))
            continue
        other = rows.get(row[ID])
        if other is None or (row[UPDATED_AT] or "") >= (other[UPDATED_AT] or ""):
            rows[row[ID]] = row
    return Page(list(rows.values()), unreadable, next_key or None)


def _parse(body: bytes) -> tuple[Any, bool]:
    try:
        return parse(body)
    except ValueError as error:
        raise GarbledError(str(error)) from None


def read_session(body: bytes) -> Row:
    """Read the answer to a create or a look-up.

    Raises
    ------
    GarbledError
        The body is not a session.
    """
    data, careful = _parse(body)
    try:
        return read_item(data, careful=careful)
    except UnreadableError as error:
        raise GarbledError(f"the answer is not a session: {error.reason}", error.session_id) from error


def read_item(item: Any, *, careful: bool = True) -> Row:  # noqa: ANN401 - whatever the server sent
    """Read one session.

    Parameters
    ----------
    item : Any
        What stands in `Items`.
    careful : bool
        Whether the text in it may hold what a database cannot: NUL or half of a surrogate pair.

    Raises
    ------
    UnreadableError
        It has no id, lacks what a session must have, or has it in the wrong type.
    """
    if type(item) is not dict:
        raise UnreadableError("not an object")
    session_id = item.get("id")
    if type(session_id) is not str or not session_id or not sendable(session_id):
        raise UnreadableError("no readable id")
    if careful and not storable(item):
        raise UnreadableError("text that no database can hold (NUL or half a surrogate pair)", session_id)
    name = item.get("name")
    if type(name) is not str:
        raise UnreadableError("no readable name", session_id)
    parent_id, source, status, kind, automation_id, run_id = map(item.get, _TEXTS)
    if type(source) is not str:
        raise UnreadableError("no readable sourceSessionId", session_id)
    if len(session_id) + len(source) > _SHORT:
        _require_short(session_id, source)
    for value in (parent_id, status, kind, automation_id, run_id):
        if value is not None and type(value) is not str:
            wrong = next(field for field in _TEXTS if type(item.get(field)) not in {str, type(None)})
            raise UnreadableError(f"{wrong} should be text and is not", session_id)
    unknown = {key: item[key] for key in item.keys() - _KNOWN} if not item.keys() <= _KNOWN else {}
    last_message_at = _time(item.get("lastMessageAt"), "lastMessageAt", unknown)
    created = _audit(item.get("Created"), "Created", unknown, session_id)
    updated = _audit(item.get("Updated"), "Updated", unknown, session_id)
    try:
        extra = canonical(unknown) if unknown else "{}"
    except ValueError:
        raise UnreadableError("a field that JSON cannot hold (NaN, or a number without end)", session_id) from None
    return (
        session_id, name, parent_id, source, status, kind, automation_id, run_id, last_message_at,
        *created, *updated, extra,
    )  # fmt: skip


def _require_short(session_id: str, source: str) -> None:
    if (length := len(session_id.encode()) + len(source.encode())) > LONGEST_IDS:
        words = f"id and sourceSessionId have {length} bytes together, and no more than {LONGEST_IDS} can be kept"
        raise UnreadableError(words, session_id)


def _audit(block: Any, name: str, unknown: dict[str, Any], session_id: str) -> tuple[str | None, ...]:  # noqa: ANN401
    """Read `Created` or `Updated`; what is not known of it goes to `unknown`."""
    if block is None:
        return (None, None, None)
    if type(block) is not dict:
        raise UnreadableError(f"{name} is not an object", session_id)
    by, by_name, at = block.get("by"), block.get("byName"), block.get("at")
    if (by is not None and type(by) is not str) or (by_name is not None and type(by_name) is not str):
        raise UnreadableError(f"{name} has a field that should be text and is not", session_id)
    rest = {key: block[key] for key in block.keys() - _AUDIT} if not block.keys() <= _AUDIT else {}
    moment = _time(at, "at", rest)
    if rest:
        unknown[name] = rest
    return (by, by_name, moment)


def _time(value: Any, name: str, unknown: dict[str, Any]) -> str | None:  # noqa: ANN401
    """Read a time; one that cannot be read is kept in `unknown` as it came."""
    if value is None:
        return None
    if type(value) is str and (moment := read_time(value)) is not None:
        return moment
    unknown[name] = value
    return None


def read_time(text: str) -> str | None:
    """Bring an ISO 8601 time to the mirror's form; a time without a zone is taken as UTC; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        if text[-1] == "Z" and text[4:20:3] in _SHAPE and len(text) in _FRACTION and text[11:13] != "24":
            return text[:-1] + _FRACTION[len(text)]
        return utc_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


_SHAPE = ("--T::.", "--T::Z")
"""Every third character, from the fifth on, of a time that is all but in the mirror's form, with a fraction or not."""
_FRACTION = {20: ".000000Z", 24: "000Z", 27: "Z"}
"""What a UTC time of that length lacks to be in the mirror's form."""
