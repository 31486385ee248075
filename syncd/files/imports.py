"""Reading a file of operations or source ids: all of it is good, or none of it is used."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from syncd.albert.errors import InvalidIdError
from syncd.albert.paths import segment
from syncd.errors import UsageError

COLUMNS = ("kind", "source_session_id", "name", "parent_id", "id")
SOURCE_COLUMN = "source_session_id"


def open_text(file: Path) -> TextIO:
    """Open a file of UTF-8 text, or standard input for `-`; a byte order mark is skipped.

    Bytes that are not UTF-8 come as lone surrogates, so that who reads can say in which line they are.

    Raises
    ------
    UsageError
        There is no such file, or it cannot be read.
    """
    if str(file) == "-":
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        return file.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
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
    """Read source ids: CSV with the column `source_session_id`, or JSON Lines with that key; others are passed over.

    Raises
    ------
    UsageError
        A row is bad; the message has its line and the reason.
    """
    ids = []
    for line, found in _records(stream, (SOURCE_COLUMN,), others=True):
        value = found.get(SOURCE_COLUMN)
        reason = unsendable(value) if value else "there is no source_session_id"
        if reason is not None:
            raise UsageError(f"line {line}: {reason}; nothing was added")
        ids.append(value or "")
    return ids


def _records(
    stream: TextIO, columns: tuple[str, ...], *, others: bool = False
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield each record with its first line; CSV and JSON Lines are told apart by the first character.

    Parameters
    ----------
    others : bool
        Whether columns may be there that are none of `columns`.
    """
    with stream:
        first = stream.read(1)
        lines = _lines(first, stream)
        yield from (_json_lines if first == "{" else _csv)(lines, columns, others=others)


def _lines(first: str, stream: TextIO) -> Iterator[str]:
    """Yield the lines of a stream of which one character has been read already."""
    head = first if first == "\n" else first + stream.readline()
    for number, line in enumerate(itertools.chain([head] if head else [], stream), 1):
        if not line.isascii() and _has_surrogate(line):
            raise UsageError(f"line {number}: not UTF-8 text")
        yield line


def _csv(
    lines: Iterator[str], columns: tuple[str, ...], *, others: bool
) -> Iterator[tuple[int, dict[str, str | None]]]:
    reader = csv.reader(lines, strict=True)
    names: list[str] | None = None
    began = 1
    try:
        for cells in reader:
            line, began = began, reader.line_num + 1  # a quoted cell may span lines: a record is where it begins
            if names is None:
                names = _column_names(cells, columns, others=others)
            elif not cells:
                continue
            elif len(cells) != len(names):
                raise UsageError(f"line {line}: it has {len(cells)} cells and not {len(names)}")
            else:
                yield line, {name: value or None for name, value in zip(names, cells, strict=True)}
    except csv.Error as error:
        raise UsageError(f"line {began}: not CSV: {error}") from error
    if names is None:
        _column_names([], columns, others=others)


def _column_names(cells: list[str], columns: tuple[str, ...], *, others: bool) -> list[str]:
    names = [name.strip() for name in cells]
    unknown = [name for name in names if name not in columns]
    if len(unknown) == len(names) or (unknown and not others):
        raise UsageError(
            f"line 1: the first line must name the columns, out of {', '.join(columns)}"
            + (f"; unknown: {', '.join(map(repr, unknown))}" if unknown else "")
        )
    if len(set(names) - set(unknown)) != len(names) - len(unknown):
        raise UsageError("line 1: a column is named twice")
    return names


def _json_lines(
    lines: Iterator[str], columns: tuple[str, ...], *, others: bool
) -> Iterator[tuple[int, dict[str, str | None]]]:
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            pairs = json.loads(text, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"line {number}: not JSON: {error}") from error
        if not isinstance(pairs, _Pairs):
            raise UsageError(f"line {number}: not an object")
        if others:
            pairs = [(name, value) for name, value in pairs if name in columns]
        record = dict(pairs)
        if len(record) != len(pairs):
            raise UsageError(f"line {number}: a key is there twice")
        for name, value in record.items():
            if name not in columns:
                raise UsageError(f"line {number}: unknown key {name!r}; known are {', '.join(columns)}")
            if value is not None and not isinstance(value, str):
                raise UsageError(f"line {number}: {name} must be text")
        yield number, {name: value or None for name, value in record.items()}


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of a JSON object, before one with a key twice loses a value."""
