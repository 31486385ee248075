"""Reading a file of operations or source ids: all of it is good, or none of it is used."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import sqlalchemy as sa

from syncd.albert.errors import InvalidIdError
from syncd.albert.paths import segment
from syncd.decide import difference
from syncd.errors import UsageError
from syncd.mirror.tables import CONTENT, operations, sessions

if TYPE_CHECKING:
    from sqlalchemy import Connection

COLUMNS = ("kind", "source_session_id", "name", "parent_id", "id")
SOURCE_COLUMN = "source_session_id"


def open_text(file: Path) -> TextIO:
    """Open a file of UTF-8 text, or standard input for `-`; a byte order mark is skipped.

    Raises
    ------
    UsageError
        There is no such file, or it cannot be read.
    """
    if str(file) == "-":
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
    try:
        return file.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def check_operation(row: dict[str, Any]) -> str | None:
    """Say what is wrong with an operation before it is queued; None when nothing is."""
    kind, source_id, session_id = row.get("kind"), row.get("source_session_id"), row.get("session_id")
    rules = (
        (kind in {"create", "delete"}, f"kind must be create or delete, not {kind!r}"),
        (kind != "create" or (source_id and row.get("name")), "a create needs source_session_id and name"),
        (kind != "create" or not session_id, "a create takes no id: Albert gives it"),
        (
            kind != "delete" or bool(source_id) != bool(session_id),
            "a delete needs id or source_session_id, one of them",
        ),
    )
    problems = [words for holds, words in rules if not holds]
    for name, value in (("source_session_id", source_id), ("id", session_id)):
        if value and (reason := unsendable(value)) is not None:
            problems.append(f"{name}: {reason}")
    for name in ("name", "parent_id", "requested_by"):
        value = row.get(name)
        if value is not None and ("\0" in value or _has_surrogate(value)):
            problems.append(f"{name} holds text that no database can hold")
    return problems[0] if problems else None


def unsendable(value: str) -> str | None:
    """Say why an id can never be sent to Albert; None when it can."""
    try:
        segment(value)
    except InvalidIdError as error:
        return str(error)
    return None


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def read_operations(stream: TextIO, *, on_row: Callable[[int], None] | None = None) -> list[dict[str, Any]]:
    """Read operations, each with its `line`.

    Raises
    ------
    UsageError
        A row is bad; the message has its line and the reason.
    """
    rows = []
    for line, found in _records(stream, COLUMNS):
        row = {
            "line": line,
            "kind": found.get("kind") or "create",
            "source_session_id": found.get("source_session_id"),
            "session_id": found.get("id"),
            "name": found.get("name"),
            "parent_id": found.get("parent_id"),
        }
        if (reason := check_operation(row)) is not None:
            raise UsageError(f"line {line}: {reason}; nothing was queued")
        rows.append(row)
        if on_row is not None and len(rows) % 1000 == 0:
            on_row(len(rows))
    return rows


def read_sources(stream: TextIO) -> list[str]:
    """Read source ids: CSV with the column `source_session_id`, or JSON Lines with that key.

    Raises
    ------
    UsageError
        A row is bad; the message has its line and the reason.
    """
    ids = []
    for line, found in _records(stream, (SOURCE_COLUMN,)):
        value = found.get(SOURCE_COLUMN)
        reason = unsendable(value) if value else "there is no source_session_id"
        if reason is not None:
            raise UsageError(f"line {line}: {reason}; nothing was added")
        ids.append(value or "")
    return ids


def _records(stream: TextIO, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield each record with its line; CSV and JSON Lines are told apart by the first character."""
    try:
        with stream:
            first = stream.read(1)
            text = _Pushed(first, stream)
            yield from _json_lines(text, columns) if first == "{" else _csv(text, columns)
    except UnicodeDecodeError as error:
        raise UsageError(f"the file is not UTF-8 text: {error.reason} at byte {error.start}") from error


class _Pushed:
    """The lines of a stream of which one character has been read already."""

    def __init__(self, first: str, stream: TextIO) -> None:
        self._first = first
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        head = self._first if self._first == "\n" else self._first + self._stream.readline()
        if head:
            yield head
        yield from self._stream


def _csv(lines: _Pushed, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str | None]]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        unknown = [name for name in names if name not in columns]
        if unknown or not names:
            raise UsageError(
                f"line 1: the first line must name the columns, out of {', '.join(columns)}"
                + (f"; unknown: {', '.join(map(repr, unknown))}" if unknown else "")
            )
        if len(set(names)) != len(names):
            raise UsageError("line 1: a column is named twice")
        reader.fieldnames = names
        for record in reader:
            if None in record or None in record.values():
                raise UsageError(f"line {reader.line_num}: it has {_cells(record)} cells and not {len(names)}")
            yield reader.line_num, {name: value or None for name, value in record.items()}
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num}: not CSV: {error}") from error


def _cells(record: dict[Any, Any]) -> int:
    return sum(value is not None for name, value in record.items() if name is not None) + len(record.get(None) or ())


def _json_lines(lines: _Pushed, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str | None]]]:
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"line {number}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UsageError(f"line {number}: not an object")
        for name, value in record.items():
            if name not in columns:
                raise UsageError(f"line {number}: unknown key {name!r}; known are {', '.join(columns)}")
            if value is not None and not isinstance(value, str):
                raise UsageError(f"line {number}: {name} must be text")
        yield number, {name: value or None for name, value in record.items()}


def enqueue_all(
    connection: Connection, rows: list[dict[str, Any]], *, on_row: Callable[[int], None] | None = None
) -> int:
    """Queue every row in the caller's transaction; return how many."""
    names = ("kind", "source_session_id", "session_id", "name", "parent_id")
    for start in range(0, len(rows), 1000):
        chunk = [{name: row[name] for name in names} for row in rows[start : start + 1000]]
        connection.execute(sa.insert(operations), chunk)
        if on_row is not None:
            on_row(start + len(chunk))
    return len(rows)


def plan(connection: Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say what would become of each row, as far as the mirror and the queue can tell.

    Returns
    -------
    list[dict]
        Each with `line`, `kind`, `source_session_id`, `id`, `note` and an `outcome`: `created`, `adopted` (Albert has
        it with another name or folder), `there` (as asked for, or queued already), `deleted`, `absent` (nothing to
        delete).
    """
    planned: set[tuple[str, str]] = set()
    return [_plan_one(connection, row, planned) for row in rows]


def _plan_one(connection: Connection, row: dict[str, Any], planned: set[tuple[str, str]]) -> dict[str, Any]:
    live = _live(connection, row)
    key = (row["kind"], row["source_session_id"] or f"id {row['session_id']}")
    queued = key in planned or _queued(connection, row)
    planned.add(key)
    note = None
    if queued:
        outcome, note = "there", "queued already"
    elif row["kind"] == "delete":
        outcome = "deleted" if live is not None else "absent"
    elif live is None:
        outcome = "created"
    else:
        note = difference(tuple(live), name=row["name"], parent_id=row["parent_id"])
        outcome = "adopted" if note else "there"
    return {
        "line": row["line"], "kind": row["kind"], "source_session_id": row["source_session_id"],
        "id": row["session_id"] or (live.id if live is not None else None), "outcome": outcome, "note": note,
    }  # fmt: skip


def _live(connection: Connection, row: dict[str, Any]) -> Any:  # noqa: ANN401 - a row
    column, value = ("source_session_id", row["source_session_id"])
    if value is None:
        column, value = "id", row["session_id"]
    columns = [sa.type_coerce(sessions.c[name], sa.Text) for name in CONTENT]
    query = sa.select(*columns).where(sessions.c[column] == value, sessions.c.deleted_at.is_(None)).limit(1)
    return connection.execute(query).first()


def _queued(connection: Connection, row: dict[str, Any]) -> bool:
    column = "session_id" if row["session_id"] else "source_session_id"
    query = sa.select(operations.c.id).where(
        operations.c[column] == row[column],
        operations.c.kind == row["kind"],
        sa.text("state IN ('pending', 'running', 'unknown', 'dead')"),
        operations.c.state != "dead",
    )
    return connection.execute(query.limit(1)).first() is not None
