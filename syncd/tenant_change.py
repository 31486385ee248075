"""Changes the tenant that a database mirrors. `syncd tenant accept` calls it; no daemon runs meanwhile.

A new address of the same tenant changes nothing for the queue. Operations that were meant for another tenant are put on
hold, because Albert would apply them to sessions of the wrong tenant. The running pass ends, because its checkpoint is
a page key of the other tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from syncd.albert import AlbertException, ChatSessionCollection
from syncd.mirror.store import identity, operator_actions, passes, restored, witnesses
from syncd.records.parse import GarbledError, read_session
from syncd.rules.identity import Identity

if TYPE_CHECKING:
    from syncd.albert import AsyncAlbertSession
    from syncd.mirror.db.database import Connection, Database

MOST_REQUESTS = 5
"""Known sessions that are requested at most, to see whether the tenant has one of them."""


@dataclass(frozen=True, slots=True)
class TenantChange:
    """The tenant before and after, and how many operations are on hold since; None if the tenant is the same."""

    before: Identity
    after: Identity
    on_hold: int | None


async def accept_tenant(
    database: Database, session: AsyncAlbertSession | None, named: Identity, *, by: str
) -> TenantChange:
    """Make a database mirror the tenant that the settings name.

    Parameters
    ----------
    session : AsyncAlbertSession | None
        A session with the credentials of the settings; None without credentials. It is used only where the tenant ids
        do not show whether the tenant is another one: a known session is requested then.
    by : str
        The person, for the log of operator actions.

    Raises
    ------
    DatabaseUnusableError
        The database cannot be used.
    """
    before = (await database.read(identity.read)).pinned
    same = await _is_same(database, session, before, named)

    def work(connection: Connection) -> int | None:
        now = database.clock.read(connection)
        identity.accept(connection, named, now)
        on_hold = None
        if not same:
            on_hold = restored.hold_open_operations(connection, now)
            passes.abandon(connection, now=now, error="the tenant of the database was changed")
        at = restored.not_before_any_result(connection, now)
        detail = f"{before} -> {named}" + ("" if on_hold is None else f", {on_hold} operations on hold")
        operator_actions.record(connection, now=at, by=by, action="accept", subject="tenant", detail=detail)
        return on_hold

    return TenantChange(before, named, await database.write(work))


async def _is_same(database: Database, session: AsyncAlbertSession | None, before: Identity, named: Identity) -> bool:
    """Return whether the tenant is the one that the database mirrors already, as far as that can be known."""
    if before == Identity() or before == named:
        return True
    if before.tenant_id is not None and named.tenant_id is not None:
        return before.tenant_id.upper() == named.tenant_id.upper()
    if session is None:
        return False
    albert = ChatSessionCollection(session=session)
    known = await database.read(partial(witnesses.candidates, place=0.5, limit=MOST_REQUESTS))
    for candidate in known[:MOST_REQUESTS]:
        try:
            row = read_session(await albert.get_raw(id=candidate.session_id))
        except (AlbertException, GarbledError):
            continue
        if row.source_session_id == candidate.source_session_id:  # ids are counted, so two tenants can have the same id
            return True
    return False
