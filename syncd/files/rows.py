"""The rows of a file, in the forms in which other programs write them. `imports` reads operations and source ids so.

Accepted are CSV (comma, semicolon or tab, with or without Excel's line `sep=;`), JSON Lines and a JSON array. Workbooks
are refused: a spreadsheet shows ids as numbers and dates, and its CSV has what the user sees.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from syncd.errors import UsageError

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEP = re.compile(r"sep=(?P<delimiter>[^\"\r\n])[,;\t]*\s*", re.IGNORECASE)
"""The first line by which Excel names the delimiter; spreadsheets can add empty cells."""
_BLANK = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file.

    Attributes
    ----------
    line : int
        The line where it begins; the first line is 1.
    item : int | None
        Its number in a JSON array, whose items can be on one line; None in the other forms.
    values : dict[str, str | None]
        The values by column; None for an empty one.
    """

    line: int
    item: int | None
    values: dict[str, str | None]

    @property
    def place(self) -> str:
        """The line and the item, for messages."""
        return f"line {self.line}" if self.item is None else f"line {self.line}, item {self.item}"


def read_rows(stream: TextIO, columns: Sequence[str], *, others: bool = False) -> Iterator[Row]:
    """Yield the rows of a file and close it.

    The first character that is not white space decides: `{` is JSON Lines, `[` is a JSON array, anything else is CSV.
    Rows of empty cells are skipped.

    Parameters
    ----------
    columns : Sequence[str]
        The names of columns that the caller reads.
    others : bool
        Whether the file may have further columns, which are ignored. It must have the first of `columns` then.

    Raises
    ------
    UsageError
        The file has another form, or a row is malformed. The message has the line, and the column where that is known.
    """
    with stream:
        lines = _lines(stream)
        head = list(itertools.islice(_until_text(lines), 1))
        skipped, first = head[0] if head else (0, "")
        rest = itertools.chain([first], lines) if first else iter(())
        start = first.lstrip()[:1]
        if start == "{":
            yield from _json_lines(rest, skipped, columns, others=others)
        elif start == "[":
            yield from _json_array("".join(rest), skipped, columns, others=others)
        elif start == "<":
            raise UsageError(f"line {skipped + 1}: the file is HTML or XML; save it as CSV (UTF-8)")
        else:
            yield from _csv(rest, skipped, columns, others=others)


def _lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a stream.

    The stream decodes invalid bytes as lone surrogates, so that the line and the character can be reported.
    """
    number = 0
    encoding = (stream.encoding or "utf-8").upper().removesuffix("-SIG").removesuffix("-LE").removesuffix("-BE")
    try:
        for number, line in enumerate(stream, 1):
            if not line.isascii() and (surrogate := re.search("[\ud800-\udfff]", line)) is not None:
                where = f"line {number}, character {surrogate.start() + 1}"
                raise UsageError(f"{where}: not {encoding} text; save the file as CSV UTF-8")
            yield line
    except UnicodeDecodeError:
        raise UsageError(f"after line {number}: the {encoding} text is cut; save the file as CSV UTF-8") from None


def _until_text(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    """Yield the first line with text, after the number of empty lines before it."""
    for skipped, line in enumerate(lines):
        if line.strip():
            yield skipped, line
            return


def _csv(lines: Iterator[str], skipped: int, columns: Sequence[str], *, others: bool) -> Iterator[Row]:
    first = next(lines, "")
    named = _SEP.fullmatch(first)
    if named is not None:
        skipped, first = skipped + 1, next(lines, "")
    delimiter = named["delimiter"] if named is not None else _delimiter(first, columns, others=others)
    names = _column_names(_cells(first, delimiter), columns, skipped + 1, others=others)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    before = skipped + 1
    began = before + 1
    try:
        while (cells := _next_cells(reader)) is not None:
            line, began = began, before + reader.line_num + 1  # a quoted cell can have several lines
            if any(cell.strip() for cell in cells):
                values = _values(cells, names, line, delimiter)
                yield Row(line, None, {name: value for name, value in values.items() if name in columns})
    except csv.Error as error:
        raise UsageError(f"line {began}: not CSV: {error}") from error


def _next_cells(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the cells of the next row, of any length as in JSON; None after the last one.

    The limit of the csv module is that of the whole process, so it is changed only while a row is parsed.
    """
    before = csv.field_size_limit(sys.maxsize)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _delimiter(header: str, columns: Sequence[str], *, others: bool) -> str:
    """Return the delimiter with which the header has known names; the best guess if none has."""
    cells_of = {delimiter: _cells(header, delimiter) for delimiter in _DELIMITERS}
    needed = {columns[0]} if others else None
    for delimiter, cells in cells_of.items():
        names = {name for name in cells if name}
        if names and (needed <= names if needed is not None else names <= set(columns)):
            return delimiter
    return max(cells_of, key=lambda delimiter: (len(set(cells_of[delimiter]) & set(columns)), len(cells_of[delimiter])))


def _cells(header: str, delimiter: str) -> list[str]:
    """Return the names in a header, without the empty cells at its end."""
    try:
        cells = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter, strict=True), [])]
    except csv.Error:
        cells = [cell.strip() for cell in header.split(delimiter)]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _column_names(names: list[str], columns: Sequence[str], line: int, *, others: bool) -> list[str]:
    unknown = [name for name in names if name not in columns]
    if len(unknown) == len(names) or (unknown and not others):
        listed = ", ".join(f"{name!r}{_meant(name, columns)}" if name else "a cell without a name" for name in unknown)
        reason = f"; unknown: {listed}" if listed else "; it is empty"
        raise UsageError(f"line {line}: the first line must name the columns, out of {', '.join(columns)}{reason}")
    if len(set(names) - set(unknown)) != len(names) - len(unknown):
        twice = next(name for name in names if names.count(name) > 1 and name in columns)
        raise UsageError(f"line {line}: the column {twice} is named twice")
    return names


def _meant(name: str, columns: Sequence[str]) -> str:
    """Return a hint for a name that differs from a column in its case and punctuation only."""
    squeezed = re.sub(r"[\W_]", "", name).lower()
    for column in columns:
        if squeezed == column.replace("_", ""):
            return f" (did you mean {column}?)"
    return ""


def _values(cells: list[str], names: list[str], line: int, delimiter: str) -> dict[str, str | None]:
    """Return the cells by column, None for one of white space only; empty cells after the last column are ignored."""
    extra = next((place for place in range(len(cells), len(names), -1) if cells[place - 1].strip()), None)
    if extra is not None:
        raise UsageError(
            f"line {line}, cell {extra}: there are only {len(names)} columns; a cell that contains "
            f"{_DELIMITERS.get(delimiter, repr(delimiter))} must be in double quotation marks"
        )
    if len(cells) < len(names):
        raise UsageError(f"line {line}: it has {len(cells)} of {len(names)} cells; {names[len(cells)]} is missing")
    return {name: value if value.strip() else None for name, value in zip(names, cells, strict=False)}


def _json_lines(lines: Iterator[str], skipped: int, columns: Sequence[str], *, others: bool) -> Iterator[Row]:
    for number, text in enumerate(lines, skipped + 1):
        if not text.strip():
            continue
        try:
            pairs = json.loads(text, object_pairs_hook=_Pairs)
        except json.JSONDecodeError as error:
            hint = "; each object is on one line, or all are in one array [...]" if text.strip() == "{" else ""
            raise UsageError(f"line {number}, column {error.colno}: not JSON: {error.msg}{hint}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"line {number}: not JSON: {error}") from error
        yield Row(number, None, _record(pairs, f"line {number}", columns, others=others))


def _json_array(text: str, skipped: int, columns: Sequence[str], *, others: bool) -> Iterator[Row]:
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    place = _after_blank(text, text.index("[") + 1)
    line, counted = skipped + 1, 0
    for number in itertools.count(1):
        if number == 1 and text[place : place + 1] == "]":
            break
        line, counted = line + text.count("\n", counted, place), place
        where = f"line {line}, item {number}"
        try:
            pairs, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise UsageError(f"line {skipped + error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: not JSON: {error}") from error
        yield Row(line, number, _record(pairs, where, columns, others=others))
        place = _after_blank(text, end)
        if text[place : place + 1] != ",":
            break
        place = _after_blank(text, place + 1)
    if text[place : place + 1] != "]" or text[place + 1 :].strip():
        line += text.count("\n", counted, place)
        raise UsageError(f"line {line}: not JSON: the array does not end with ]")


def _after_blank(text: str, place: int) -> int:
    match = _BLANK.match(text, place)
    return match.end() if match is not None else place


def _record(pairs: Any, where: str, columns: Sequence[str], *, others: bool) -> dict[str, str | None]:  # noqa: ANN401
    """Return the values of a JSON object, checked. Empty texts are kept: an empty folder means something."""
    if not isinstance(pairs, _Pairs):
        raise UsageError(f"{where}: not an object")
    known = [(name, value) for name, value in pairs if name in columns] if others else list(pairs)
    record = dict(known)
    if len(record) != len(known):
        ((twice, _),) = Counter(name for name, _ in known).most_common(1)
        raise UsageError(f"{where}: the key {twice!r} is there twice")
    for name, value in record.items():
        if name not in columns:
            raise UsageError(f"{where}: unknown key {name!r}{_meant(name, columns)}; known are {', '.join(columns)}")
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{where}: {name} must be text, in quotation marks")
    return record


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of a JSON object. A dict would keep one of two values with the same key."""
