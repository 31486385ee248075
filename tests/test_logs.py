"""Logs: one event per line, safe to read, and readable on a terminal."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import click
import pytest

from syncd.logs import LONGEST_TEXT, configure, encodable, escape_unencodable, safe_text

HOSTILE = "a\nb\rc\x00\x07\x1b[31m\x7f\x85\x9b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ud800z"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Leave the root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


class Disk(io.RawIOBase):
    """A file on a disk with so much room."""

    def __init__(self, room: int) -> None:
        self.room, self.kept = room, b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        taken = bytes(data[: self.room])
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.kept += taken
        self.room -= len(taken)
        return len(taken)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_each_event_is_one_json_object_on_one_line() -> None:
    out = io.StringIO()
    log = configure(level="info", style="auto", stream=out)
    log.bind(pass_id=7).info("page.mirrored", sessions=3, nothing=None)
    log.debug("not.shown")
    (line,) = out.getvalue().splitlines()
    event = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event.pop("timestamp"))
    assert event == {"event": "page.mirrored", "level": "info", "pass_id": 7, "sessions": 3}


@pytest.mark.parametrize("style", ["json", "console"])
def test_hostile_text_neither_breaks_a_line_nor_reaches_a_terminal(style: str) -> None:
    out = io.StringIO()
    configure(level="info", style=style, stream=out).info("event", name=HOSTILE, inner={"deep": [HOSTILE]})
    (line,) = out.getvalue().splitlines()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", line)


def test_long_text_is_cut_and_says_how_long_it_was() -> None:
    assert safe_text("x" * 5000) == "x" * LONGEST_TEXT + "… (5000 characters)"


def test_letters_of_any_language_are_left_as_they_are() -> None:
    assert safe_text("Zähigkeit 粘度 🧪") == "Zähigkeit 粘度 🧪"


CANARY = "canary-in-a-local-variable"


NOTHING: dict[str, str] = {}


def fail(secret: str) -> None:
    """Raise an error with a cause and a long hostile text, while a secret is in a local variable."""
    try:
        assert secret.isascii()
        NOTHING["inner"]
    except KeyError as error:
        raise ValueError(HOSTILE + "x" * 5000) from error


def test_traceback_is_structured_fields_on_the_line_of_its_event_without_local_variables() -> None:
    out = io.StringIO()
    log = configure(level="info", style="json", stream=out)
    try:
        fail(CANARY)
    except ValueError:
        log.exception("loop.failed", loop="watch")
        logging.getLogger("some.library").exception("library.failed")
    assert "canary" not in out.getvalue()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    for line in lines:
        outer, cause = json.loads(line)["exception"]
        assert (outer["exc_type"], cause["exc_type"], cause["is_cause"]) == ("ValueError", "KeyError", True)
        assert [frame["name"] for frame in cause["frames"]] == ["fail"]
        assert all(set(frame) == {"filename", "lineno", "name"} for frame in outer["frames"])
        assert len(outer["exc_value"]) < LONGEST_TEXT * 2


def test_texts_of_all_errors_in_a_group_are_bounded() -> None:
    out = io.StringIO()
    log = configure(level="info", style="json", stream=out)
    group = ExceptionGroup("two", [ValueError("x" * 5000), ExceptionGroup("inner", [KeyError("y" * 5000)])])
    try:
        raise group
    except ExceptionGroup:
        log.exception("loop.failed")
    assert len(out.getvalue()) < 4 * LONGEST_TEXT
    assert "(5000 characters)" in out.getvalue()


def test_traceback_on_a_terminal_is_text_without_local_variables() -> None:
    out = Terminal()
    log = configure(level="info", style="auto", stream=out)
    try:
        fail(CANARY)
    except ValueError:
        log.exception("loop.failed")
    assert "Traceback" in out.getvalue()
    assert "canary" not in out.getvalue()


def test_terminal_gets_the_readable_form_and_a_pipe_gets_json() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    configure(level="info", style="auto", stream=terminal).info("pass.complete", seen=3)
    configure(level="info", style="auto", stream=pipe).info("pass.complete", seen=3)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert "pass.complete" in plain
    assert "seen=3" in plain
    assert json.loads(pipe.getvalue())["seen"] == 3


@pytest.mark.parametrize("room", [0, 30, 200])
def test_full_disk_under_the_log_costs_lines_and_their_number_is_told_when_there_is_room(room: int) -> None:
    disk = Disk(room)
    out = io.TextIOWrapper(io.BufferedWriter(disk))
    log = configure(level="info", style="json", stream=out)
    for number in range(100):
        log.info("event", number=number)
        logging.getLogger("some.library").warning("trouble %s", number)
    disk.room = 100_000
    log.info("room")
    out.flush()
    events = [json.loads(line) for line in disk.kept.splitlines()]
    *whole, notice, last = events
    assert (notice["event"], notice["level"], last["event"]) == ("log.dropped", "error", "room")
    assert len(whole) + notice["lines"] == 200
    log.info("event")
    assert len(disk.kept.splitlines()) == len(events) + 1


def test_reader_of_the_log_who_has_gone_is_an_error() -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        configure(level="info", style="json", stream=Gone()).info("event")


def test_warnings_of_libraries_come_in_the_same_form() -> None:
    out = io.StringIO()
    configure(level="info", style="json", stream=out)
    logging.getLogger("some.library").warning("two\nlines of %s", "trouble")
    logging.getLogger("some.library").info("not shown")
    event = json.loads(out.getvalue())
    assert (event["event"], event["level"]) == ("two\\nlines of trouble", "warning")
    assert "timestamp" in event


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("latin-1", b"Z\xe4h \\u2026 \\u7c98 \\U0001f9ea"),
        ("ascii", b"Z\\xe4h \\u2026 \\u7c98 \\U0001f9ea"),
        ("cp1252", b"Z\xe4h \x85 \\u7c98 \\U0001f9ea"),
        ("utf-8", "Zäh … 粘 🧪".encode()),
    ],
)
def test_text_that_the_encoding_of_a_stream_lacks_is_escaped(encoding: str, written: bytes) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    for _ in range(2):  # a second call changes nothing
        escape_unencodable(stream)
    click.echo("Zäh … 粘 🧪", file=stream, nl=False)
    stream.flush()
    assert raw.getvalue() == written
    assert encodable("Zäh … 粘 🧪", stream).encode(encoding) == written


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_log_is_written_on_a_stream_that_is_not_utf8(encoding: str, style: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    configure(level="info", style=style, stream=out).info("event", name="粘度 …")
    out.flush()
    assert b"\\u7c98\\u5ea6" in raw.getvalue()
    assert len(raw.getvalue().splitlines()) == 1
