"""`syncd export`."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, mode_option, print_json, read, say, takes_settings
from syncd.logs import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from syncd.mirror.db.database import Connection
    from syncd.settings import Loaded

EXPORTABLE = (
    "chat_sessions", "chat_sessions_all", "chat_session_history", "chat_session_changes", "chat_sessions_daily",
    "chat_folders", "mirror_freshness", "passes", "operations", "source_sessions", "quarantine",
)  # fmt: skip
"""What `--only` accepts; a test compares it with `catalog.EXPORTED`, whose import would slow down every command."""


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format",
    "format_",
    type=click.Choice(("parquet", "csv", "jsonl")),
    required=True,
    help="parquet needs: pip install 'syncd[parquet]'.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="VIEW",
    type=click.Choice(EXPORTABLE),
    help="Export this view or table; repeatable.",
)
@click.option(
    "--since",
    type=click.IntRange(0, 2**63 - 1),
    metavar="SEQ",
    help="Export the changes after this seq: chat_session_changes alone. 0 exports all of them.",
)
@mode_option
@click.option(
    "--escape-formulas",
    is_flag=True,
    help="In CSV, put ' before cells that a spreadsheet would read as a formula.",
)
@as_json_option
@takes_settings()
def export(
    loaded: Loaded,
    *,
    directory: Path,
    format_: Any,  # noqa: ANN401 - one of `Format`
    only: Sequence[str],
    since: int | None,
    mode: int | None,
    escape_formulas: bool,
    as_json: bool,
) -> None:
    """Write the mirror to files in DIR for other tools, all from one snapshot. A daemon can run meanwhile.

    The files: chat_sessions, chat_sessions_all, chat_session_history, chat_folders, passes, operations,
    source_sessions and quarantine, and syncd-export.json, which describes the snapshot. Files of an earlier export are
    replaced when all new ones are complete. Files that syncd did not write are never changed.
    """
    from syncd.clock import SystemClock
    from syncd.files.exports import export as write_files
    from syncd.files.exports import plan

    # Arrow reads it when it is imported, which `plan` does; its own allocator needs 40 MB more
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    planned = plan(
        directory, format_, only=tuple(dict.fromkeys(only)), since=since, mode=mode, escape_formulas=escape_formulas
    )
    gc.disable()  # rows contain no cycles, and looking for them takes an eighth of the time
    with ExitStack() as stack:
        begin, advance = _progress(stack)

        def work(connection: Connection) -> dict[str, Any]:
            return write_files(connection, planned, now=SystemClock().now(), begin=begin, advance=advance)

        summary = read(loaded.settings, work)
    if as_json:
        print_json({"directory": str(directory), "format": format_, **summary})
        return
    for file in summary["files"]:
        click.echo(f"{safe_text(str(directory / file['file']))}  {file['rows']} rows")
    say(f"all from one snapshot; the last complete pass ended {summary['last_complete_pass_at'] or 'never'}")
    if since is not None:
        say(f"continue with: --since {summary['last_seq']}")


def _progress(stack: ExitStack) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """Show a progress bar from the moment when the number of rows is known."""
    from syncd.cli.progress import bar

    shown: list[Callable[[int], None] | None] = []

    def begin(total: int) -> None:
        shown.append(stack.enter_context(bar("rows", total=total)))

    def advance(done: int) -> None:
        if shown and shown[0] is not None:
            shown[0](done)

    return begin, advance
