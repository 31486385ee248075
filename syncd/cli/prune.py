"""`syncd prune`: old rows are deleted while the daemon runs."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, by_option, print_json, run, takes_settings
from syncd.durations import parse_duration

if TYPE_CHECKING:
    from datetime import datetime

    from syncd.mirror.db.database import Database
    from syncd.settings import Loaded, Settings


MOST_DAYS = 36_500
"""The largest age: 100 years, which is before the first row of any mirror and after the first date of Python."""


class Age(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A duration such as `90d` or `12h`; read as seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:  # noqa: ANN401
        """Read the duration."""
        try:
            seconds = parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{str(value)!r} {error}, such as 90d", param, context)
        if seconds < 0:
            self.fail(f"{str(value)!r} is negative; write an age, such as 90d", param, context)
        if seconds > timedelta(days=MOST_DAYS).total_seconds():
            self.fail(f"{str(value)!r} is too long; write an age of at most {MOST_DAYS}d, such as 90d", param, context)
        return seconds


@click.command(short_help="Delete old operations, passes and resolved items.")
@click.option("--older-than", "age", type=Age(), required=True, metavar="AGE", help="Such as 90d or 36h.")
@click.option("--history", is_flag=True, help="Delete old versions of sessions, too: the history then begins later.")
@click.option("--dry-run", is_flag=True, help="Delete nothing; print how many rows are old.")
@by_option
@as_json_option
@takes_settings()
def prune(loaded: Loaded, age: float, by: str, *, history: bool, dry_run: bool, as_json: bool) -> None:
    """Delete old finished operations, passes and resolved items of the quarantine.

    Kept are open and dead operations, held passes, the newest complete pass and all after it, and recent rows that
    the newest complete pass may not have compared: those of the last day, or of twice SYNCD_DELETE_GRACE or
    SYNCD_UNKNOWN_SETTLE if that is longer. The daemon can run meanwhile. The file of SQLite does not shrink, but the
    space is used again.
    """
    counts, kept_since = run(lambda: _prune(loaded.settings, age, by, history=history, dry_run=dry_run))
    if as_json:
        print_json({"dry_run": dry_run, "deleted": counts})
        return
    done = "would be deleted" if dry_run else "deleted"
    for table, count in counts.items():
        click.echo(f"{table:18} {count} {'row' if count == 1 else 'rows'} {done}")
    if kept_since is not None:
        click.echo(f"rows since {kept_since:%Y-%m-%d %H:%M:%S} UTC are kept, because passes still use them", err=True)


async def _prune(
    settings: Settings, age: float, by: str, *, history: bool, dry_run: bool
) -> tuple[dict[str, int], datetime | None]:
    """Delete or count the old rows of each table; return the counts, and since when younger rows had to be kept."""
    from syncd.mirror.store import identity
    from syncd.mirror.store import prune as pruning
    from syncd.opening import open_database
    from syncd.tenant import explicitly_named_identity, require_active

    async def inspect(database: Database) -> None:
        """Refuse the database of another tenant; one that was moved away may be pruned."""
        stored = await database.read(identity.read_any_revision)
        require_active(stored, explicitly_named_identity(settings), force=True)

    async with open_database(settings, inspect=inspect) as database:
        now = await database.read(database.clock.read)
        before = now - timedelta(seconds=age)
        grace, settle = settings.syncd_delete_grace, settings.syncd_unknown_settle
        needed = await database.read(partial(pruning.needed_since, now=now, delete_grace=grace, settle=settle))
        kept_since = needed if needed < before else None
        old = pruning.old_rows(min(before, needed), history=history)
        if dry_run:
            return await database.read(lambda connection: pruning.count(connection, old)), kept_since
        what = f"rows older than {timedelta(seconds=age)}" + (", with history" if history else "")
        return await pruning.prune(database, old, by=by, now=now, what=what), kept_since
