"""Opening a file of rows as text: its encoding is recognized by its first bytes. `enqueue` and `sources` call it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import BinaryIO, TextIO

from syncd.errors import UsageError

_OTHER_FORMS = (
    (b"PK\x03\x04", "it is an Excel workbook (.xlsx) or another ZIP file; save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "it is an Excel workbook (.xls); save the sheet as CSV UTF-8"),
    (b"\x1f\x8b", "it is compressed; unpack it first: gunzip -c FILE | syncd ... import -"),
    (b"PAR1", "it is a Parquet file; export it as CSV or JSON Lines"),
    (b"SQLite format 3\0", "it is a SQLite database; export a table as CSV"),
    (b"%PDF", "it is a PDF; export the table as CSV"),
)
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""Byte order marks other than that of UTF-8; the longer ones come first."""


def open_text(file: Path) -> TextIO:
    """Open a file, or standard input for `-`, as text in UTF-8, UTF-16 or UTF-32, without its byte order mark.

    Invalid bytes are decoded as lone surrogates, so that the reader can report their line.

    Raises
    ------
    UsageError
        The file does not exist, cannot be read, or has a form that is not text. The message says what to do.
    """
    name = "standard input" if str(file) == "-" else str(file)
    try:
        raw = _standard_input() if str(file) == "-" else file.open("rb")
        stream = io.BufferedReader(raw)  # type: ignore[type-var]  # only the methods of a raw stream are used
        head = stream.peek(64)[:64]
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    for start, reason in _OTHER_FORMS:
        if head.startswith(start):
            stream.close()
            raise UsageError(f"{name} is not a text file: {reason}")
    encoding = _encoding(head)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "surrogatepass"
    return io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="")


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise UsageError("standard input is closed; name a file, or give it a pipe")
    return sys.stdin.buffer


def _encoding(head: bytes) -> str:
    """Return the encoding of a text that begins with these bytes.

    A file of rows begins with an ASCII character, so that the positions of its NULs show UTF-16 and UTF-32 without a
    mark, and their byte order.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if head[1:4] == bytes(3) and head[0]:
        return "utf-32-le"
    if head[:3] == bytes(3) and head[3:4].strip(b"\0"):
        return "utf-32-be"
    if len(head) > 1 and head[0] and not head[1]:
        return "utf-16-le"
    return "utf-16-be" if len(head) > 1 and not head[0] and head[1] else "utf-8-sig"
