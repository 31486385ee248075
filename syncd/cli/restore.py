"""`syncd restore`: a backup takes the place of the mirror."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, by_option, print_json, run, say, takes_settings
from syncd.errors import SyncdError, UsageError
from syncd.logs import safe_text
from syncd.status.health import counted

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.rules.identity import Identity
    from syncd.settings import Loaded, Settings

STANDARD_INPUT = "-"
EMPTY_INPUT = (
    "standard input is empty: give it the backup, as in syncd restore - < backup.db; "
    "docker run needs the option --interactive, and kubectl exec needs --stdin"
)


@click.command(short_help="Replace the mirror by a backup.")
@click.argument("file", type=click.Path(), required=False)
@click.option(
    "--in-place",
    is_flag=True,
    help="Replace nothing: the database was restored by other means, such as pg_restore. Only put operations on hold.",
)
@by_option
@as_json_option
@takes_settings()
def restore(loaded: Loaded, file: str | None, by: str, *, in_place: bool, as_json: bool) -> None:
    """Replace the mirror by the backup FILE (- for standard input).

    The backup is verified and brought to the current schema, the old mirror is kept beside the new one, and one rename
    replaces it. No daemon may run, and no other program may have the mirror open. Operations that were open in the
    backup are on hold: they may be done already. See: syncd operations list, then release or cancel them.
    """
    if (file is None) is not in_place:
        raise UsageError("name the backup FILE, or use --in-place for a database that was restored by other means")
    settings = loaded.settings
    facts = _hold_in_place(settings, by) if file is None else _replace(settings, file, by)
    if as_json:
        print_json(facts)
        return
    if facts["kept"] is not None:
        click.echo(f"the old mirror is kept as {safe_text(facts['kept'])}")
    if facts["file"] is not None:
        counts = ", ".join(f"{count} {table}" for table, count in facts["rows"].items())
        replaced = f"restored {safe_text(facts['file'])} to {safe_text(facts['database'])}"
        click.echo(f"{replaced}, verified; {counts}")
    held = counted(facts["on_hold"], "operation is on hold", "operations are on hold")
    click.echo(held + (HINT if facts["on_hold"] else ""))


HINT = "; run: syncd operations list, then release or cancel them"


def _replace(settings: Settings, file: str, by: str) -> dict[str, Any]:
    """Replace the SQLite file, and warn if it mirrors another tenant than the settings name."""
    from syncd.clock import SystemClock
    from syncd.mirror.copy import restore as copying
    from syncd.mirror.db.daemon_lock import daemon_lock
    from syncd.opening import database_backend

    backend = database_backend(settings)
    database = backend.file
    if database is None:
        raise UsageError(
            "the mirror is on PostgreSQL, which has its own tool: stop the daemons, run pg_restore, then: "
            "syncd restore --in-place, and start the daemons"
        )
    backend.exists()  # a folder in its place is an error
    with daemon_lock(database, "restore") as lock, _backup(file, database) as backup:
        source = "standard input" if file == STANDARD_INPUT else file
        done = copying.restore(database, backup, now=SystemClock().now(), by=by, source=safe_text(source))
        if os.geteuid() == 0:  # the owner of the mirror must be able to use the lock file that root has just made
            owner = database.stat()
            lock.give_to(owner.st_uid, owner.st_gid)
    _warn_of_other_tenant(settings, done.pinned)
    if done.moved_to is not None:
        say(
            f"warning: the replaced mirror was moved to {safe_text(done.moved_to)}, and the restored one acts again; "
            "make sure that no daemon works there"
        )
    return {
        "file": source, "database": str(database.absolute()), "kept": None if done.kept is None else str(done.kept),
        "schema": done.revision, "rows": done.rows, "on_hold": done.on_hold, "seconds": round(done.seconds, 3),
    }  # fmt: skip


@contextmanager
def _backup(file: str, database: Path) -> Iterator[Path]:
    """Yield the backup; standard input is first written to a file beside the mirror.

    Raises
    ------
    UsageError
        Standard input is empty.
    SyncdError
        Standard input cannot be written to a file.
    """
    from syncd.temp_dirs import temp_dir

    if file != STANDARD_INPUT:
        yield Path(file)
        return
    with ExitStack() as stack:
        try:
            received = stack.enter_context(temp_dir(database.absolute().parent, "syncd-restore-input")) / "backup"
            with os.fdopen(os.open(received, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
                shutil.copyfileobj(sys.stdin.buffer, out)
            if not received.stat().st_size:
                raise UsageError(EMPTY_INPUT)
        except OSError as error:
            raise SyncdError(f"the backup cannot be read from standard input: {error.strerror}") from error
        yield received


def _warn_of_other_tenant(settings: Settings, pinned: Identity) -> None:
    from syncd.rules.identity import same_tenant
    from syncd.tenant import explicitly_named_identity

    named = explicitly_named_identity(settings)
    if not same_tenant(pinned, named):
        say(
            f"warning: the restored database mirrors {safe_text(str(pinned))}, but the settings name "
            f"{safe_text(str(named))}; change the settings, or run: syncd tenant accept"
        )


def _hold_in_place(settings: Settings, by: str) -> dict[str, Any]:
    """Put the open operations of the database on hold, as the start of a marked copy does."""
    return run(lambda: _hold(settings, by))


async def _hold(settings: Settings, by: str) -> dict[str, Any]:
    from syncd.mirror.db.shared_clock import read_clock
    from syncd.mirror.store import identity, operator_actions, restored
    from syncd.opening import database_backend, open_database

    backend = database_backend(settings)

    def work(connection: Connection) -> int:
        now = read_clock(connection)
        identity.forget_copy(connection)
        on_hold = restored.hold_open_operations(connection, now)
        detail = f"restored by other means, {on_hold} operations on hold"
        at = restored.not_before_any_result(connection, now)
        operator_actions.record(connection, now=at, by=by, action="restore", subject="database", detail=detail)
        return on_hold

    backend.require_exists()
    async with backend.keep_others_out("restore"), open_database(settings) as database:
        name = backend.url.render_as_string(hide_password=True)
        _warn_of_other_tenant(settings, (await database.read(identity.read)).pinned)
        return {"file": None, "database": name, "kept": None, "on_hold": await database.write(work)}
