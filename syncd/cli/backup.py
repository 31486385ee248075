"""`syncd backup`: a consistent copy of the mirror, taken while the daemon runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from syncd.cli.common import as_json_option, print_json, takes_settings
from syncd.errors import UsageError

if TYPE_CHECKING:
    from syncd.settings import Loaded


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json_option
@takes_settings()
def backup(loaded: Loaded, file: Path, *, as_json: bool) -> None:
    """Copy the mirror to FILE: consistent, verified, and for its owner alone (mode 0600).

    The daemon may go on. FILE takes its place in one step when the copy is whole, so a schedule may write the same FILE
    again and again, and a reader of it never sees half a copy.
    """
    from syncd.mirror.copy.backup import copy
    from syncd.opening import database_backend

    backend = database_backend(loaded.settings)
    if backend.file is None:
        raise UsageError(
            "the mirror is on PostgreSQL, which has its own tool: pg_dump --format=custom --file=FILE DATABASE"
        )
    backend.require_exists()
    copied = copy(backend.file, file)
    if as_json:
        print_json({"file": str(file), "bytes": copied.size, "rows": copied.rows, "seconds": round(copied.seconds, 3)})
    else:
        counts = ", ".join(f"{count} {table}" for table, count in copied.rows.items())
        click.echo(f"{file}: {copied.size} bytes, verified; {counts}")
