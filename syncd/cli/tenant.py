"""`syncd tenant`: the Albert tenant that the database mirrors."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, by_option, print_json, read, run, takes_settings
from syncd.logs import safe_text
from syncd.status.health import counted

if TYPE_CHECKING:
    from syncd.mirror.store.identity import StoredIdentity
    from syncd.settings import Loaded, Settings
    from syncd.tenant_change import TenantChange


@click.group()
def tenant() -> None:
    """Show or change the Albert tenant that the database mirrors."""


@tenant.command("show", short_help="Show the tenant of the database and of the settings.")
@as_json_option
@takes_settings()
def show(loaded: Loaded, *, as_json: bool) -> None:
    """Show the tenant that the database mirrors, and whether the settings name the same one.

    It reads the database only. The tenant of client credentials is therefore unknown here; `syncd doctor` asks Albert.
    With --json, "matches" is then null.
    """
    from syncd.mirror.store import identity
    from syncd.rules.identity import matches
    from syncd.tenant import named_identity

    stored: StoredIdentity = read(loaded.settings, identity.read)
    named = named_identity(loaded.settings)
    facts: dict[str, Any] = {
        **asdict(stored.pinned), "pinned_at": stored.pinned_at, "settings": asdict(named),
        "matches": matches(stored.pinned, named), "copied_at": stored.copied_at, "moved_to": stored.moved_to,
        "moved_at": stored.moved_at,
    }  # fmt: skip
    if as_json:
        print_json(facts)
        return
    click.echo(safe_text(f"the database mirrors  {stored.pinned}"))
    click.echo(safe_text(f"the settings name     {named}"))
    if facts["matches"] is False:
        click.echo("they differ: no command acts; change the settings, or run: syncd tenant accept")
    if facts["matches"] is None:
        click.echo("the settings do not name the tenant; to get it from Albert, run: syncd doctor")
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

    Open operations were meant for the tenant before. They are put on hold, unless Albert shows that only the address
    of the tenant has changed; `syncd operations release` or `cancel` ends the hold. No daemon may run meanwhile.
    """
    change = run(lambda: _accept(loaded.settings, by))
    if as_json:
        print_json(asdict(change))
        return
    if change.before == change.after:
        click.echo(safe_text(f"the database mirrors {change.after} already"))
    else:
        click.echo(safe_text(f"the database mirrored {change.before} and mirrors {change.after} now"))
    if change.on_hold:
        held = counted(change.on_hold, "operation is on hold", "operations are on hold")
        click.echo(f"{held}; run: syncd operations list, then release or cancel them")


async def _accept(settings: Settings, by: str) -> TenantChange:
    """Ask Albert for the tenant of the credentials where the settings do not name it, and store it."""
    from syncd.albert_session import CurrentSettings, open_session
    from syncd.clock import SystemClock
    from syncd.opening import database_backend, open_database
    from syncd.tenant import named_identity, tenant_of_credentials
    from syncd.tenant_change import accept_tenant

    clock, named, session = SystemClock(), named_identity(settings), None
    backend = database_backend(settings)
    backend.require_exists()
    async with AsyncExitStack() as stack:
        if settings.albert_token is not None or settings.albert_client_id is not None:
            session = await stack.enter_async_context(open_session(CurrentSettings(settings), clock))
            named = replace(named, tenant_id=await tenant_of_credentials(session))
        await stack.enter_async_context(backend.keep_others_out("tenant accept"))
        database = await stack.enter_async_context(open_database(settings))
        return await accept_tenant(database, session, named, by=by)
