"""`syncd backup`: a consistent copy of the mirror, made while the daemon runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from syncd.cli.common import as_json_option, mode_option, print_json, say, takes_settings
from syncd.errors import UsageError
from syncd.logs import safe_text

if TYPE_CHECKING:
    from syncd.mirror.copy.backup import Backup
    from syncd.settings import Loaded

STANDARD_OUTPUT = "-"


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@mode_option
@as_json_option
@takes_settings()
def backup(loaded: Loaded, file: str, *, mode: int | None, as_json: bool) -> None:
    """Copy the mirror to FILE (- for standard output): consistent and verified.

    The daemon can continue. FILE is replaced in one step when the copy is complete, so a schedule can write the same
    FILE again and again, and a reader never sees half a copy. Put it in place with: syncd restore FILE
    """
    from syncd.clock import SystemClock
    from syncd.mirror.copy.backup import back_up, stream_backup
    from syncd.opening import database_backend

    if file == STANDARD_OUTPUT:
        _require_plain_output(mode, as_json=as_json)
    backend = database_backend(loaded.settings)
    if backend.file is None:
        raise UsageError(
            "the mirror is on PostgreSQL, which has its own tool: pg_dump --format=custom --file=FILE DATABASE; "
            "after a pg_restore, run: syncd restore --in-place"
        )
    backend.require_exists()
    now = SystemClock().now()
    if file == STANDARD_OUTPUT:
        say(_summary("standard output", stream_backup(backend.file, sys.stdout.buffer, now=now)))
        return
    copy = back_up(backend.file, Path(file), now=now, mode=mode)
    if as_json:
        print_json({"file": file, "bytes": copy.size, "rows": copy.rows, "seconds": round(copy.seconds, 3)})
    else:
        click.echo(_summary(safe_text(file), copy))


def _require_plain_output(mode: int | None, *, as_json: bool) -> None:
    """Refuse options and terminals that do not suit a backup on standard output."""
    if sys.stdout.isatty():
        raise UsageError("a terminal cannot hold a backup: name a file, or redirect it: syncd backup - > FILE")
    if as_json or mode is not None:
        raise UsageError(
            "standard output holds the backup: leave --json and --mode out, or name a file. "
            "The summary is on standard error"
        )


def _summary(name: str, copy: Backup) -> str:
    counts = ", ".join(f"{count} {table}" for table, count in copy.rows.items())
    return f"{name}: {copy.size} bytes, verified; {counts}"
