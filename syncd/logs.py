"""Structured logs: one event a line, safe to read whatever Albert or a database row holds.

Strings are bounded, and control characters, line separators and bidirectional marks are escaped: a session's name can
neither break a line nor paint the terminal.
"""

from __future__ import annotations

import logging
import os
import re
import sys
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

    out = stream or sys.stdout
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
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _lead_library_logs_here(processors, out)
    return structlog.get_logger()  # type: ignore[no-any-return]


def _lead_library_logs_here(processors: list[Any], out: TextIO) -> None:
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
