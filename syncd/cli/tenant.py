"""`syncd tenant`: the Albert tenant that the database mirrors."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, by_option, print_json, read, run, say, takes_settings
from syncd.logs import safe_text

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.identity import StoredIdentity
    from syncd.rules.identity import Identity
    from syncd.settings import Loaded, Settings


@click.group()
def tenant() -> None:
    """Show or change the Albert tenant that the database mirrors."""


@tenant.command("show", short_help="Show the tenant of the database and of the settings.")
@as_json_option
@takes_settings()
def show(loaded: Loaded, *, as_json: bool) -> None:
    """Show the tenant that the database mirrors, and whether the settings name the same one.

    It reads the database only. The tenant of client credentials is therefore unknown here; `syncd doctor` asks Albert.
    """
    from syncd.mirror.store import identity
    from syncd.rules.identity import same_tenant
    from syncd.tenant import named_identity

    stored: StoredIdentity = read(loaded.settings, identity.read)
    named = named_identity(loaded.settings)
    facts: dict[str, Any] = {
        **asdict(stored.pinned), "pinned_at": stored.pinned_at, "settings": asdict(named),
        "matches": same_tenant(stored.pinned, named), "copied_at": stored.copied_at, "moved_to": stored.moved_to,
        "moved_at": stored.moved_at,
    }  # fmt: skip
    if as_json:
        print_json(facts)
        return
    click.echo(safe_text(f"the database mirrors  {stored.pinned}"))
    click.echo(safe_text(f"the settings name     {named}"))
    if not facts["matches"]:
        click.echo("they differ: no command acts; change the settings, or run: syncd tenant accept")
    if stored.copied_at is not None:
        click.echo(f"a backup of {stored.copied_at:%Y-%m-%d %H:%M:%S} UTC: its open operations start on hold")
    if stored.moved_to is not None:
        click.echo(safe_text(f"moved to {stored.moved_to}: this database acts only with --force"))


@tenant.command("accept", short_help="Make the database mirror the tenant of the settings.")
@by_option
@as_json_option
@takes_settings()
def accept(loaded: Loaded, by: str, *, as_json: bool) -> None:
    """Make the database mirror the tenant that the settings name.

    Open operations were meant for the tenant before, so they are put on hold if that is another one; `syncd operations
    release` or `cancel` ends the hold. No daemon may run meanwhile. With client credentials, Albert is asked for the
    tenant of the token, and for nothing else.
    """
    before, after = run(lambda: _accept(loaded.settings, by))
    if as_json:
        print_json({"before": asdict(before), "after": asdict(after)})
    elif before == after:
        click.echo(safe_text(f"the database mirrors {after} already"))
    else:
        click.echo(safe_text(f"the database mirrored {before} and mirrors {after} now"))


async def _accept(settings: Settings, by: str) -> tuple[Identity, Identity]:
    from syncd.clock import SystemClock
    from syncd.mirror.db.exclusive import without_daemon
    from syncd.mirror.store import identity, operator_actions
    from syncd.opening import database_url, open_database, require_file

    now = SystemClock().now()
    named = await _asked_identity(settings)

    def work(connection: Connection) -> Identity:
        before = identity.accept(connection, named, now).pinned
        operator_actions.record(
            connection, now=now, by=by, action="accept", subject="tenant", detail=f"{before} -> {named}"
        )
        return before

    url = database_url(settings)
    require_file(url)
    async with without_daemon(url, "tenant accept"), open_database(settings, on_wait=say) as database:
        return await database.write(work), named


async def _asked_identity(settings: Settings) -> Identity:
    """Return the tenant that the settings name, asking Albert for a token where only a token names it.

    Raises
    ------
    SyncdError
        Albert gives no token.
    """
    from syncd.albert import AlbertException
    from syncd.app import open_session
    from syncd.clock import SystemClock
    from syncd.errors import SyncdError
    from syncd.rules.identity import Identity
    from syncd.tenant import named_identity

    named = named_identity(settings)
    if settings.albert_token is not None or settings.albert_client_id is None:
        return named
    async with open_session(settings, SystemClock()) as session:
        try:
            return Identity(named.origin, await session.authenticate())
        except AlbertException as error:
            raise SyncdError(
                f"Albert does not tell the tenant of the credentials: {error}; run: syncd doctor"
            ) from error
