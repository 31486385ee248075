"""Structured logs: one event per line, safe to read whatever Albert or a row of the database contains.

Texts are bounded. Control characters, line separators and bidirectional marks are escaped, so that the name of a
session cannot break a line or change the colours of a terminal. `run` and `once` call `configure`; other commands use
the functions for texts and streams.

Secrets are hidden where a text of a server becomes an error (`albert.answers.redactor`), and not here.
"""

from __future__ import annotations

import atexit
import codecs
import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, WrappedLogger

MOST_FRAMES = 50
"""Frames of a traceback in an event: the outermost and the innermost half of them."""
LONGEST_TEXT = 1000
"""Characters of a text in an event: enough for the message of a server, and a line stays readable."""
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def safe_text(text: str) -> str:
    """Return a text that is bounded, with characters escaped that could break a line or change a terminal."""
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), text)


def _make_safe(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove keys whose value is None, and make texts safe."""
    return {
        key: safe_text(value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
        if value is not None
    }


def _structured_exception(exc_info: ExcInfo) -> list[dict[str, Any]]:
    """Return an error and its causes as structured fields: types, texts and frames, without local variables.

    Each text is bounded as any other text of an event.
    """
    import structlog  # noqa: PLC0415 - as in `configure`

    stacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=MOST_FRAMES)(exc_info)
    _bound_texts(stacks)
    return stacks


def _bound_texts(stacks: list[dict[str, Any]]) -> None:
    for stack in stacks:
        stack["exc_value"] = safe_text(stack["exc_value"])
        stack["exc_notes"] = [safe_text(note) for note in stack["exc_notes"]]
        for inner in stack["exceptions"]:
            _bound_texts(inner)


_ASCII = "syncd_ascii"
"""Another name for the codec ascii. click replaces a stream of the codec ascii by one that writes UTF-8."""


def _find_codec(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    ascii_codec = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_codec.encode, ascii_codec.decode, name=_ASCII,
        incrementalencoder=ascii_codec.incrementalencoder, incrementaldecoder=ascii_codec.incrementaldecoder,
    )  # fmt: skip


@functools.cache
def _register_codec() -> None:
    codecs.register(_find_codec)


def escape_unencodable(stream: TextIO | None) -> None:
    r"""Let a stream write characters that its encoding lacks as escapes such as `\u7c98`, instead of failing.

    Such streams come from `PYTHONIOENCODING=latin-1` and from locales that are not UTF-8.
    """
    if stream is None or not hasattr(stream, "reconfigure"):
        return
    encoding = codecs.lookup(stream.encoding or "ascii").name
    if encoding == "ascii":
        _register_codec()
        stream.reconfigure(encoding=_ASCII, errors="backslashreplace")
    elif encoding != "utf-8":
        stream.reconfigure(errors="backslashreplace")


def encodable(text: str, stream: TextIO | None) -> str:
    """Return a text as the stream shows it, so that columns of a table can be measured."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Lines:
    """A stream of lines that continues on a full disk: lines without room are dropped and counted.

    A line that was written in part remains in the buffer of the stream, and the next line waits until it is written.
    A closed pipe is different: `write` and `flush` raise BrokenPipeError.

    Parameters
    ----------
    notice : Callable[[int], str]
        Returns the line that reports how many lines were dropped. It is written when there is room again.
    """

    def __init__(self, out: TextIO, notice: Callable[[int], str]) -> None:
        self._out, self._notice = out, notice
        self._dropped = 0

    def write(self, line: str) -> None:
        """Write a whole line, after the notice about the lines that were dropped before it.

        Raises
        ------
        BrokenPipeError
            The reader of the pipe has closed it.
        """
        try:
            self._out.flush()
            if self._dropped:
                self._out.write(self._notice(self._dropped))
                self._dropped = 0
            self._out.write(line)
        except BrokenPipeError:
            raise
        except OSError:
            self._dropped += 1

    def flush(self) -> None:
        """Write the buffer as far as there is room; the next write tries again.

        Raises
        ------
        BrokenPipeError
            The reader of the pipe has closed it.
        """
        try:
            self._out.flush()
        except BrokenPipeError:
            raise
        except OSError:
            pass

    def let_go(self) -> None:
        """Discard a buffer for which there is still no room at the end.

        The interpreter flushes the stream at exit, and would change the exit code to 120.
        """
        try:
            self._out.flush()
        except (BrokenPipeError, ValueError):
            pass  # ValueError: the stream is closed
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._out.fileno())


def configure(*, level: str, style: str, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Set up logging for a command and return its logger.

    Parameters
    ----------
    level : str
        `debug`, `info`, `warning` or `error`.
    style : str
        `json`, `console`, or `auto`: console on a terminal.
    stream : TextIO | None
        The stream of the log; standard output if None.
    """
    import structlog  # noqa: PLC0415 - a tenth of a second, and most commands log nothing

    out = stream or sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 - no stream; it ends with the process
    escape_unencodable(out)
    console = is_console(style, out)
    render: Any = (
        structlog.dev.ConsoleRenderer(
            colors=out.isatty() and not os.environ.get("NO_COLOR"),
            exception_formatter=structlog.dev.plain_traceback,
            sort_keys=False,
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _make_safe,
        *([] if console else [structlog.processors.ExceptionRenderer(_structured_exception)]),
        render,
    ]
    lines = Lines(out, lambda dropped: _notice(processors, dropped))
    atexit.register(lines.let_go)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(lines),  # type: ignore[arg-type]  # it only writes and flushes
        cache_logger_on_first_use=False,
    )
    _redirect_library_logs(processors, lines)
    return structlog.get_logger()  # type: ignore[no-any-return]


def is_console(style: str, stream: TextIO) -> bool:
    """Return whether a log of this style is text for people on this stream, and not JSON."""
    return style == "console" or (style == "auto" and stream.isatty())


def set_level(level: str) -> None:
    """Log from this level on: `debug`, `info`, `warning` or `error`. Loggers that are in use take it over."""
    import structlog  # noqa: PLC0415 - as above

    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))


def _notice(processors: list[Any], dropped: int) -> str:
    """Return the line about dropped lines. Logging it in the usual way would wait for this same line."""
    import structlog  # noqa: PLC0415 - as above

    text = StringIO()
    log = structlog.wrap_logger(structlog.WriteLogger(text), processors=processors)
    log.error("log.dropped", lines=dropped, hint="the log could not be written; see: df -h")
    return text.getvalue()


def _redirect_library_logs(processors: list[Any], out: Lines) -> None:
    """Send the warnings of libraries through the same processors, so that the output remains one event per line."""
    import structlog  # noqa: PLC0415 - as above

    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors[:-1],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, processors[-1]],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def log_link(log: FilteringBoundLogger, link: Any) -> None:  # noqa: ANN401 - a `mirror.store.sources.Link`
    """Log the new state of a source id; `unresolved` is not an outcome."""
    write = {"linked": log.info, "missing": log.info, "conflict": log.warning}.get(link.state)
    if write is not None:
        write(
            f"source.{link.state}",
            source_session_id=link.source_session_id, session_id=link.session_id, note=link.note,
        )  # fmt: skip
