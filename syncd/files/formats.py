"""The formats of `syncd export`: CSV, JSON Lines and Parquet. `exports` opens a file and calls the `Writer` for it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

import msgspec
import sqlalchemy as sa

from syncd.errors import UsageError, how_to_install
from syncd.mirror.schema.types import Boolean, UtcDateTime

if TYPE_CHECKING:
    from types import ModuleType

Format = Literal["parquet", "csv", "jsonl"]
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet reads a cell that begins with one of these as a formula."""
ROWS_OF_A_GROUP = 120_000
"""Rows of a row group in Parquet: the size at which DuckDB and others read fastest, and 60 MB of sessions in memory."""

Rows = Sequence[Sequence[Any]]


class Writer(Protocol):
    """A file that is being written."""

    def write(self, rows: Rows) -> None:
        """Write rows of text, numbers and None."""

    def finish(self) -> None:
        """Write the end of the file; the caller closes it."""


class Csv:
    """RFC 4180: CRLF, a header, quotes where they are needed, UTF-8 without a mark. Null is an empty field."""

    def __init__(self, file: IO[bytes], columns: Sequence[sa.Column[Any]], *, escape_formulas: bool) -> None:
        self._escape = escape_formulas
        self._booleans = any(isinstance(column.type, Boolean) for column in columns)
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._csv = csv.writer(self._text)
        self._csv.writerow([column.name for column in columns])

    def write(self, rows: Rows) -> None:
        """Write rows."""
        self._csv.writerows([map(self._cell, row) for row in rows] if self._escape or self._booleans else rows)

    def finish(self) -> None:
        """Leave the file to its owner, who closes it."""
        self._text.detach()

    def _cell(self, value: Any) -> Any:  # noqa: ANN401 - a value of a row
        if isinstance(value, bool):
            return "true" if value else "false"
        is_formula = self._escape and isinstance(value, str) and value.startswith(FORMULA_SIGNS)
        return f"'{value}" if is_formula else value


class JsonLines:
    """One JSON object a line, in UTF-8. Times are text, and `extra` is JSON in a string, as in the mirror."""

    def __init__(self, file: IO[bytes], columns: Sequence[sa.Column[Any]]) -> None:
        self._file = file
        self._names = [column.name for column in columns]
        self._encode = msgspec.json.Encoder().encode_lines

    def write(self, rows: Rows) -> None:
        """Write rows."""
        self._file.write(self._encode([dict(zip(self._names, row, strict=True)) for row in rows]))

    def finish(self) -> None:
        """Write nothing: the format has no end."""


class Parquet:
    """Parquet: times are timestamps in UTC (microseconds), `extra` is JSON text, and the footer names the origin."""

    def __init__(self, file: IO[bytes], columns: Sequence[sa.Column[Any]], about: Mapping[str, str]) -> None:
        self._arrow, parquet = arrow()
        fields = [(column.name, self._type(column.type)) for column in columns]
        self._schema = self._arrow.schema(fields, metadata=dict(about))
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._batches: list[Any] = []
        self._rows = 0

    def _type(self, kind: sa.types.TypeEngine[Any]) -> Any:  # noqa: ANN401 - pyarrow's
        if isinstance(kind, UtcDateTime):
            return self._arrow.timestamp("us", tz="UTC")
        if isinstance(kind, Boolean):
            return self._arrow.bool_()
        if isinstance(kind, sa.Float):
            return self._arrow.float64()
        return self._arrow.int64() if isinstance(kind, sa.Integer) else self._arrow.string()

    def write(self, rows: Rows) -> None:
        """Write rows; those of a row group are kept until it is full."""
        columns = zip(zip(*rows, strict=True), self._schema, strict=True)
        arrays = [self._array(values, column.type) for values, column in columns]
        self._batches.append(self._arrow.record_batch(arrays, schema=self._schema))
        self._rows += len(rows)
        if self._rows >= ROWS_OF_A_GROUP:
            self._write_group()

    def _array(self, values: tuple[Any, ...], kind: Any) -> Any:  # noqa: ANN401 - pyarrow's
        if self._arrow.types.is_timestamp(kind):
            return self._arrow.array(values, self._arrow.string()).cast(kind)
        return self._arrow.array(values, kind)

    def _write_group(self) -> None:
        table = self._arrow.Table.from_batches(self._batches, schema=self._schema)
        self._batches, self._rows = [], 0
        self._writer.write_table(table, row_group_size=table.num_rows)

    def finish(self) -> None:
        """Write the last row group and the footer."""
        if self._rows:
            self._write_group()
        self._writer.close()


def arrow() -> tuple[ModuleType, ModuleType]:
    """Import pyarrow, which only Parquet needs.

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
