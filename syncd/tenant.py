"""The tenant that the settings name, and whether a database may be acted on. Light enough for every command.

`syncd.tenant_guard` uses it for `run` and `once`, and `syncd.cli.common.write` for commands that write to the database.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from syncd.claims import tenant_of_token
from syncd.errors import DatabaseMovedError, SyncdError, TenantMismatchError
from syncd.rules.identity import Identity, mismatch_message, same_tenant
from syncd.urls import origin

if TYPE_CHECKING:
    from syncd.albert import AsyncAlbertSession
    from syncd.mirror.store.identity import StoredIdentity
    from syncd.records.ids import PassId
    from syncd.settings import Settings


class TenantCheck(Protocol):
    """Whether Albert knows the mirror's sessions. The queue and reconciling ask `pull.known_tenant` through it."""

    @property
    def is_confirmed(self) -> bool:
        """Whether Albert knew a session of the mirror since the last reason to ask."""

    def doubt(self, held: PassId) -> bool:
        """Forget an answer that is older than a held pass; return whether there is none since then."""

    async def may_act(self) -> bool:
        """Ask unless the answer is known, and return whether requests may be sent for the mirror."""


def named_identity(settings: Settings) -> Identity:
    """Return the tenant that the settings name: the base URL, and the claims of a fixed token."""
    token = settings.albert_token
    tenant_id = None if token is None else tenant_of_token(token.get_secret_value())
    return Identity(origin(settings.albert_base_url), tenant_id)


def explicitly_named_identity(settings: Settings) -> Identity:
    """Return the same for a command that contacts only the database: the default base URL names no tenant.

    A program that queues operations needs no settings of Albert. Its default base URL must not be taken for another
    tenant than the one that the daemon mirrors.
    """
    named = named_identity(settings)
    return named if "albert_base_url" in settings.model_fields_set else replace(named, origin=None)


async def tenant_of_credentials(session: AsyncAlbertSession) -> str | None:
    """Return the tenant id that the credentials name, from a token that Albert gives if none is set.

    Raises
    ------
    SyncdError
        Albert gives no token for the credentials.
    """
    from syncd.albert import AlbertException  # noqa: PLC0415 - imports aiohttp

    try:
        return await session.authenticate()
    except AlbertException as error:
        raise SyncdError(f"Albert gives no token for the credentials: {error}; run: syncd doctor") from error


def require_active(stored: StoredIdentity, named: Identity, *, force: bool = False) -> None:
    """Refuse to act on a database that was moved away, or that mirrors another tenant.

    Parameters
    ----------
    force : bool
        Act on a database although it was moved away.

    Raises
    ------
    DatabaseMovedError
        `migrate-store` moved the content to another database.
    TenantMismatchError
        The settings name another tenant.
    """
    if stored.moved_to is not None and not force:
        at = "" if stored.moved_at is None else f" at {stored.moved_at:%Y-%m-%d %H:%M:%S} UTC"
        raise DatabaseMovedError(
            f"this database was moved to {stored.moved_to}{at} and does not act any more; point SYNCD_DATABASE_URL "
            "there. To use this database again: syncd migrate-store --unmark; for one run, once or enqueue: --force"
        )
    if not same_tenant(stored.pinned, named):
        raise TenantMismatchError(mismatch_message(stored.pinned, named))
