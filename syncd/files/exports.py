"""Files for other tools: each view and table in one file, all of one moment, each there whole or not at all.

A file is written under a temporary name and renamed when all of them are complete. No step renames several files: a
reader, or a kill, between the renames finds new files beside old ones. `syncd-export.json` is renamed last: it says
what syncd wrote, and its `bytes` and `exported_at` are of files that are all in their places. A file that it does not
name is somebody else's and is never overwritten. Files are for their owner alone (0600), as the mirror is.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.errors import SyncdError, UsageError, how_to_install
from syncd.mirror.read import catalog
from syncd.mirror.schema.types import Boolean, UtcDateTime
from syncd.temp_dirs import temp_dir

if TYPE_CHECKING:
    from types import ModuleType

    from syncd.mirror.db.database import Connection

Format = Literal["parquet", "csv", "jsonl"]
MANIFEST = "syncd-export.json"
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a cell for a formula."""


class Writer(Protocol):
    """A file in the making."""

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write some rows."""
        ...

    def finish(self) -> None:
        """Write what belongs at the end."""
        ...


@dataclass(frozen=True)
class Plan:
    """What is to be exported, found possible before the database is opened.

    Parameters
    ----------
    escape_formulas : bool
        Put an apostrophe before what a spreadsheet would take for a formula (CSV only).
    """

    directory: Path
    format: Format
    escape_formulas: bool = False
    known: Mapping[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> str:
        """Return the name of the file of a view or a table."""
        return f"{name}.{self.format}"


def plan(directory: Path, format: Format, *, escape_formulas: bool = False) -> Plan:
    """Look whether the export can be, and make its directory.

    Raises
    ------
    UsageError
        The library for the format is missing, or the directory cannot be used or holds foreign files.
    """
    if escape_formulas and format != "csv":
        raise UsageError("--escape-formulas is for --format csv: only there can a cell be taken for a formula")
    if format == "parquet":
        _arrow()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = _read_manifest(directory / MANIFEST)
    except OSError as error:
        raise UsageError(f"cannot export to {directory}: {error.strerror}") from error
    found = Plan(directory, format, escape_formulas, known)
    foreign = [
        name for name in map(found.file, catalog.EXPORTED) if name not in known and os.path.lexists(directory / name)
    ]
    if foreign:
        raise UsageError(
            f"{directory} holds {', '.join(foreign)}, which syncd did not write; "
            "move it away or export to another directory"
        )
    return found


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the files that earlier exports wrote, by name."""
    try:
        files = json.loads(path.read_bytes())["files"]
        return {str(one["file"]): dict(one) for one in files}
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} is not what syncd wrote; move it away or export to another directory") from error


def export(
    connection: Connection, plan: Plan, *, now: datetime, begin: Callable[[int], None], advance: Callable[[int], None]
) -> dict[str, Any]:
    """Write every file, all from one snapshot, and put them in their places.

    Parameters
    ----------
    begin : Callable[[int], None]
        Told how many rows there are before the first is written.
    advance : Callable[[int], None]
        Told how many rows have been written.

    Returns
    -------
    dict[str, Any]
        `exported_at`, the snapshot's `last_complete_pass_at`, and `files`: name, rows and bytes of each.

    Raises
    ------
    SyncdError
        The disk is full, or the directory went away: nothing was put in place, or the message says otherwise.
    """
    freshness = catalog.freeze(connection)
    begin(sum(catalog.count(connection, name) for name in catalog.EXPORTED))
    last = freshness["last_complete_pass_at"]
    summary: dict[str, Any] = {
        "exported_at": utc_text(now),
        "last_complete_pass_at": utc_text(last) if last is not None else None,
        "files": [],
    }
    try:
        with temp_dir(plan.directory, "syncd-export") as unfinished:
            temporary = unfinished.joinpath
            done = 0
            for name in catalog.EXPORTED:
                made = temporary(plan.file(name))
                rows = 0
                for rows in _write(made, plan, name, catalog.stream(connection, name)):
                    advance(done + rows)
                done += rows
                size = made.stat().st_size
                summary["files"].append({"file": plan.file(name), "rows": rows, "bytes": size})
            _write_manifest(temporary(MANIFEST), plan, summary)
            _put_in_place(plan.directory, [*map(plan.file, catalog.EXPORTED), MANIFEST], temporary)
    except OSError as error:
        raise SyncdError(
            f"the export to {plan.directory} failed: {error.strerror}; the files of the last one are as they were"
        ) from error
    return summary


def _put_in_place(directory: Path, files: Sequence[str], temporary: Callable[[str], Path]) -> None:
    """Rename all files, the manifest last.

    Raises
    ------
    OSError
        The first could not be renamed.
    SyncdError
        One behind it could not.
    """
    for number, file in enumerate(files):
        try:
            temporary(file).replace(directory / file)
        except OSError as error:
            if number == 0:
                raise
            raise SyncdError(
                f"the export to {directory} failed at {file}: {error.strerror}; "
                f"{number} of {len(files)} files are new, the others are those of the last one"
            ) from error


def _write_manifest(path: Path, plan: Plan, summary: Mapping[str, Any]) -> None:
    """Name the files of this export, and those of earlier ones in other formats that are still there."""
    written = {one["file"]: {**one, "exported_at": summary["exported_at"]} for one in summary["files"]}
    kept = {name: one for name, one in plan.known.items() if (plan.directory / name).is_file()}
    with _new_file(path) as file:
        file.write(json.dumps({**summary, "files": list((kept | written).values())}, indent=2).encode() + b"\n")


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Make a file for its owner alone, and see it safely to the disk."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb", buffering=1 << 18) as file:  # noqa: PTH123 - of a descriptor
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, plan: Plan, name: str, chunks: Iterable[Sequence[Sequence[Any]]]) -> Iterator[int]:
    """Write one file and yield, after each chunk, how many rows it has."""
    rows = 0
    with ExitStack() as stack:
        file = stack.enter_context(_new_file(path))
        writer = _writer(plan, file, catalog.columns(name))
        for chunk in chunks:
            writer.write(chunk)
            rows += len(chunk)
            yield rows
        writer.finish()


def _writer(plan: Plan, file: IO[bytes], columns: Sequence[sa.Column[Any]]) -> Writer:
    if plan.format == "parquet":
        return Parquet(file, columns)
    if plan.format == "csv":
        return Csv(file, columns, escape_formulas=plan.escape_formulas)
    return JsonLines(file, columns)


class Csv:
    """RFC 4180: CRLF, a header, quotes where they are needed; UTF-8 without a mark; null is an empty field."""

    def __init__(self, file: IO[bytes], columns: Sequence[sa.Column[Any]], *, escape_formulas: bool) -> None:
        self._escape = escape_formulas
        self._booleans = any(isinstance(column.type, Boolean) for column in columns)
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._csv = csv.writer(self._text)
        self._csv.writerow([column.name for column in columns])

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write some rows."""
        self._csv.writerows([map(self._cell, row) for row in rows] if self._escape or self._booleans else rows)

    def finish(self) -> None:
        """Write nothing more; the file stays its owner's to close."""
        self._text.detach()

    def _cell(self, value: Any) -> Any:  # noqa: ANN401 - a value of a row
        if isinstance(value, bool):
            return "true" if value else "false"
        escaped = self._escape and isinstance(value, str) and value.startswith(FORMULA_SIGNS)
        return f"'{value}" if escaped else value


class JsonLines:
    """One JSON object a line, in UTF-8; times are text, and `extra` is JSON in a string, as in the mirror."""

    def __init__(self, file: IO[bytes], columns: Sequence[sa.Column[Any]]) -> None:
        self._file = file
        self._names = [column.name for column in columns]
        self._encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write some rows."""
        self._file.writelines(f"{self._encode(dict(zip(self._names, row, strict=True)))}\n".encode() for row in rows)

    def finish(self) -> None:
        """Write nothing more."""


class Parquet:
    """Parquet with times as timestamps in UTC (microseconds), `extra` as JSON text, each chunk a row group."""

    def __init__(self, file: IO[bytes], columns: Sequence[sa.Column[Any]]) -> None:
        self._arrow, parquet = _arrow()
        self._schema = self._arrow.schema([(column.name, self._type(column.type)) for column in columns])
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")

    def _type(self, kind: sa.types.TypeEngine[Any]) -> Any:  # noqa: ANN401 - pyarrow's
        if isinstance(kind, UtcDateTime):
            return self._arrow.timestamp("us", tz="UTC")
        if isinstance(kind, Boolean):
            return self._arrow.bool_()
        if isinstance(kind, sa.Double):
            return self._arrow.float64()
        return self._arrow.int64() if isinstance(kind, sa.Integer) else self._arrow.string()

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write some rows; the text of a time is read by pyarrow itself."""
        columns = zip(zip(*rows, strict=True), self._schema, strict=True)
        arrays = [self._array(values, column.type) for values, column in columns]
        self._writer.write_batch(self._arrow.record_batch(arrays, schema=self._schema))

    def _array(self, values: tuple[Any, ...], kind: Any) -> Any:  # noqa: ANN401 - pyarrow's
        if self._arrow.types.is_timestamp(kind):
            return self._arrow.array(values, self._arrow.string()).cast(kind)
        return self._arrow.array(values, kind)

    def finish(self) -> None:
        """Write the footer."""
        self._writer.close()


def _arrow() -> tuple[ModuleType, ModuleType]:
    """Import pyarrow, which an export to Parquet alone needs.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"--format parquet needs pyarrow, which is not installed; run: {how_to_install('parquet')}, "
            "or choose --format csv or jsonl"
        ) from error
    return pa, parquet
