"""`syncd backup`: a consistent copy of the mirror, made while the daemon runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from syncd.cli.common import as_json_option, mode_option, print_json, takes_settings
from syncd.errors import UsageError
from syncd.logs import safe_text

if TYPE_CHECKING:
    from syncd.settings import Loaded


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@mode_option
@as_json_option
@takes_settings()
def backup(loaded: Loaded, file: Path, *, mode: int | None, as_json: bool) -> None:
    """Copy the mirror to FILE: consistent and verified.

    The daemon can continue. FILE is replaced in one step when the copy is complete, so a schedule can write the same
    FILE again and again, and a reader never sees half a copy. Put it in place with: syncd restore FILE
    """
    from syncd.clock import SystemClock
    from syncd.mirror.copy.backup import back_up
    from syncd.opening import database_backend

    backend = database_backend(loaded.settings)
    if backend.file is None:
        raise UsageError(
            "the mirror is on PostgreSQL, which has its own tool: pg_dump --format=custom --file=FILE DATABASE; "
            "after a pg_restore, run: syncd restore --in-place"
        )
    backend.require_exists()
    done = back_up(backend.file, file, now=SystemClock().now(), mode=mode)
    if as_json:
        print_json({"file": str(file), "bytes": done.size, "rows": done.rows, "seconds": round(done.seconds, 3)})
    else:
        counts = ", ".join(f"{count} {table}" for table, count in done.rows.items())
        click.echo(f"{safe_text(str(file))}: {done.size} bytes, verified; {counts}")
