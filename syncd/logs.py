"""Structured logs: one event a line, safe to read whatever Albert or a database row holds.

Strings are bounded, and control characters, line separators and bidirectional marks are escaped: a session's name can
neither break a line nor paint the terminal.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

LONGEST_TEXT = 1000
_HOSTILE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def safe_text(text: str) -> str:
    """Bound a text and escape what could break a line, paint a terminal or turn the reading order."""
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
    return _HOSTILE.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), text)


def _make_safe(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out what is None, and make texts safe."""
    return {
        key: safe_text(value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
        if value is not None
    }


class Lines:
    """A stream of lines which a full disk neither ends nor garbles: what there is no room for is dropped, and counted.

    A line that could be written in part only stays in the stream's own buffer, and none follows it before it is out.
    The reader of a pipe who has gone is another matter: BrokenPipeError comes as ever.

    Parameters
    ----------
    notice : Callable[[int], str]
        The line that tells how many were dropped, once there is room again.
    """

    def __init__(self, out: TextIO, notice: Callable[[int], str]) -> None:
        self._out, self._notice = out, notice
        self._dropped = 0

    def write(self, line: str) -> None:
        """Write a whole line, behind the notice of those that were dropped before it."""
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
        """Send out what was written, as far as there is room; the next write tries again."""
        try:
            self._out.flush()
        except BrokenPipeError:
            raise
        except OSError:
            pass

    def let_go(self) -> None:
        """Forget what there was no room for to the end: the interpreter flushes too, and would exit with 120 for it."""
        try:
            self._out.flush()
        except (BrokenPipeError, ValueError):
            pass  # as ever; ValueError is a stream that has been closed
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._out.fileno())


def configure(*, level: str, style: str, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Set logging up for a command and return its logger.

    Parameters
    ----------
    level : str
        `debug`, `info`, `warning` or `error`.
    style : str
        `json`, `console`, or `auto`: console on a terminal.
    stream : TextIO | None
        Standard output unless told otherwise.
    """
    import structlog  # noqa: PLC0415 - a tenth of a second, and most commands log nothing

    out = stream or sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 - nobody listens; it ends with the process
    console = style == "console" or (style == "auto" and out.isatty())
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
        *([] if console else [structlog.processors.format_exc_info]),
        render,
    ]
    lines = Lines(out, lambda dropped: _notice(processors, dropped))
    atexit.register(lines.let_go)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(lines),  # type: ignore[arg-type]  # all it does is to write and to flush
        cache_logger_on_first_use=False,
    )
    _lead_library_logs_here(processors, lines)
    return structlog.get_logger()  # type: ignore[no-any-return]


def _notice(processors: list[Any], dropped: int) -> str:
    """Return the line that tells of dropped ones: to log it as others are would be to wait for this very line."""
    import structlog  # noqa: PLC0415 - as above

    told = StringIO()
    log = structlog.wrap_logger(structlog.WriteLogger(told), processors=processors)
    log.error("log.dropped", lines=dropped, hint="the log could not be written; see: df -h")
    return told.getvalue()


def _lead_library_logs_here(processors: list[Any], out: Lines) -> None:
    """Send the warnings of libraries through the same processors, so that the output stays one event a line."""
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


def log_link(log: FilteringBoundLogger, link: Any) -> None:  # noqa: ANN401 - a `mirror.sources.Link`
    """Log where a source id stands now; `unresolved` is no outcome yet."""
    write = {"linked": log.info, "missing": log.info, "conflict": log.warning}.get(link.state)
    if write is not None:
        write(
            f"source.{link.state}",
            source_session_id=link.source_session_id, session_id=link.session_id, note=link.note,
        )  # fmt: skip
