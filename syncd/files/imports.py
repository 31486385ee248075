"""Files of operations and of source ids: all rows are used, or none. `enqueue` and `sources` call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO

from syncd.albert.errors import InvalidIdError
from syncd.albert.paths import segment
from syncd.errors import UsageError
from syncd.files.rows import Row, read_rows
from syncd.records.enums import OperationKind
from syncd.records.operation_kinds import IMPORT_COLUMNS, problem
from syncd.records.tolerant_json import sendable

SOURCE_COLUMN = "source_session_id"
MOST_SHOWN = 20
"""Refused rows that a message names: a screen of them, and the number of the rest."""


def check_operation(row: dict[str, Any]) -> str | None:
    """Return why an operation is refused before it is queued; None for an accepted one."""
    problems = [refusal] if (refusal := problem(row)) is not None else []
    for name, value in (("source_session_id", row.get("source_session_id")), ("id", row.get("session_id"))):
        if value and (reason := unsendable(value)) is not None:
            problems.append(f"{name}: {reason}")
    for name in ("name", "parent_id", "requested_by"):
        value = row.get(name)
        if value is not None and not sendable(value):
            problems.append(f"{name} holds text that no database can hold")
    return problems[0] if problems else None


def unsendable(value: str) -> str | None:
    """Return why an id cannot be sent to Albert, or names no session; None if it is accepted."""
    if not value.strip():
        return f"{value!r} contains only white space"
    try:
        segment(value)
    except InvalidIdError as error:
        return str(error)
    return None


def read_operations(stream: TextIO, *, on_row: Callable[[int], None] | None = None) -> list[dict[str, Any]]:
    """Read operations, each with its `line`, its `item` in a JSON array, and its `place` for messages.

    Raises
    ------
    UsageError
        The file has another form, or rows are refused. The message has the place and the reason of each.
    """
    rows, refused = [], list[str]()
    for each in read_rows(stream, IMPORT_COLUMNS):
        row = _operation(each)
        if (reason := check_operation(row)) is not None:
            refused.append(f"{each.place}: {reason}")
        rows.append(row)
        if on_row is not None and len(rows) % 1000 == 0:
            on_row(len(rows))
    _require_none(refused, "nothing was queued")
    return rows


def _require_none(refused: list[str], result: str) -> None:
    if not refused:
        return
    more = [f"and {len(refused) - MOST_SHOWN} more rows"] if len(refused) > MOST_SHOWN else []
    lines = "\n".join(refused[:MOST_SHOWN] + more)
    raise UsageError(f"{lines}; {result}")


def _operation(row: Row) -> dict[str, Any]:
    """Return the columns of an operation. An empty folder means something only in an update: out of the folder."""
    values = row.values
    kind, parent_id = values.get("kind") or OperationKind.CREATE.value, values.get("parent_id")
    return {
        "line": row.line,
        "item": row.item,
        "place": row.place,
        "kind": kind,
        "source_session_id": values.get("source_session_id"),
        "session_id": values.get("id"),
        "name": values.get("name"),
        "parent_id": parent_id if kind == OperationKind.UPDATE else parent_id or None,
    }


def read_sources(stream: TextIO) -> list[tuple[str, str]]:
    """Read source ids from the column or key `source_session_id`, each after its place; others are ignored.

    Raises
    ------
    UsageError
        The file has another form, or ids are missing or cannot be sent. The message has the place and the reason of
        each.
    """
    ids, refused = [], list[str]()
    for each in read_rows(stream, (SOURCE_COLUMN,), others=True):
        value = each.values.get(SOURCE_COLUMN)
        reason = unsendable(value) if value else f"there is no {SOURCE_COLUMN}"
        if reason is not None:
            refused.append(f"{each.place}: {reason}")
        ids.append((each.place, value or ""))
    _require_none(refused, "nothing was added")
    return ids
