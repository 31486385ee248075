"""Logs the error that ends `syncd run` or `syncd once`, in the form of the log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click

from syncd.errors import SyncdError
from syncd.logs import is_console

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@contextmanager
def log_failure(log: FilteringBoundLogger, *, style: str, stream: TextIO) -> Iterator[None]:
    """Log `daemon.failed` with the reason and the exit code if the work fails.

    The error is raised again, and the command line prints it on standard error. If the log goes to the same place, such
    as the journal or a terminal, the error is reported once: as an event in a log in JSON, as a message otherwise.

    Parameters
    ----------
    style, stream
        The format of the log and its stream.

    Raises
    ------
    SyncdError
        The error of the work. An unforeseen error is logged with its traceback and raised as a `SyncdError`.
    click.exceptions.Exit
        The event is the only report of the error.
    """
    once, console = _same_file(stream, sys.stderr), is_console(style, stream)
    try:
        yield
    except SyncdError as error:
        if not (once and console):
            reason = "; ".join(str(error).splitlines())
            log.error("daemon.failed", reason=reason, exit_code=error.exit_code)  # noqa: TRY400 - not a defect
        if once and not console:
            raise click.exceptions.Exit(error.exit_code) from None
        raise
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise
    except Exception as error:
        reason = f"unforeseen error: {type(error).__name__}"
        log.exception("daemon.failed", reason=reason, exit_code=SyncdError.exit_code)
        if once:
            raise click.exceptions.Exit(SyncdError.exit_code) from None
        raise SyncdError(f"{reason}; this is a defect of syncd, and the log has the details") from None


def _same_file(stream: TextIO, other: TextIO) -> bool:
    """Return whether two streams write to the same file, pipe, socket or terminal."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.fstat(other.fileno()))
    except (OSError, ValueError):  # closed, or not a file of the operating system
        return stream is other
