"""Keeps a database to one Albert tenant: nothing is written or sent when the settings name another one.

`open_flows` uses the guard for `run` and `once`.

::

    inspect  before the schema is migrated: compare origin and tenant, obtain a token       ─┐ another tenant:
    start    in one transaction: store what is new, put the operations of a copy on hold     ├ `tenant.mismatch`,
    check    before the first request with each later token: compare its tenant             ─┘ exit code 2
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

import anyio

from syncd.albert.errors import AlbertException, AlbertTenantError
from syncd.errors import SyncdError, TenantMismatchError
from syncd.mirror.store import identity, restored
from syncd.rules.identity import Identity, mismatch_message, same_tenant
from syncd.tenant import require_active

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.albert import AsyncAlbertSession
    from syncd.albert.auth import Token
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.identity import StoredIdentity

SECONDS_TO_AUTHENTICATE = 5.0
"""Seconds that a start waits for a first token. Without one the start continues: later tokens are checked too."""

HELD = "these operations are of a restored backup or of another tenant: they may be done already"
"""Why operations are on hold, for the log."""


@dataclass(kw_only=True)
class TenantGuard:
    """Compares the tenant of the settings and of every token with the one that the database mirrors.

    Parameters
    ----------
    named : Identity
        The tenant that the settings name.
    force : bool
        Act on a database although `migrate-store` moved it away.
    on_token : Callable[[], None]
        Called before the first use of each token, after it was compared.
    """

    named: Identity
    log: FilteringBoundLogger
    force: bool = False
    on_token: Callable[[], None] = lambda: None
    _pinned: Identity = field(default=Identity(), init=False)
    _database: Database | None = field(default=None, init=False)
    """The database, once the identity may be written to it."""
    _error: SyncdError | None = field(default=None, init=False)
    _refused: anyio.Event = field(default_factory=anyio.Event, init=False)

    @property
    def pinned(self) -> Identity:
        """The tenant that the database mirrors, as far as it is known."""
        return self._pinned

    async def inspect(self, database: Database, session: AsyncAlbertSession) -> None:
        """Compare the settings with the database, and the first token too; write nothing.

        A failure to obtain a token is left to the flows, which retry and report it.

        Raises
        ------
        DatabaseMovedError
            The content was moved to another database.
        TenantMismatchError
            The settings, or the token, name another tenant.
        """
        stored = await database.read(identity.read_any_revision)
        self._pinned = stored.pinned
        try:
            require_active(stored, self.named, force=self.force)
        except TenantMismatchError:
            self._log_mismatch(self.named)
            raise
        with suppress(AlbertException), anyio.move_on_after(SECONDS_TO_AUTHENTICATE):
            await session.authenticate()
        self.require()

    async def start(self, database: Database) -> None:
        """Store the identity in the database, and put the operations of a copy on hold, before anything is claimed.

        Raises
        ------
        TenantMismatchError
            Another replica stored another tenant meanwhile.
        """
        self._database = database

        def work(connection: Connection) -> tuple[StoredIdentity, int]:
            now = database.clock.read(connection)
            stored = identity.pin(connection, self.named, now)
            same = same_tenant(stored.pinned, self.named)
            held = restored.hold_operations_of_copy(connection, now) if same else None
            return stored, restored.count_on_hold(connection) if held is None else held

        stored, held = await database.write(work)
        with suppress(AlbertTenantError):
            self._note_pinned(stored, self.named)
        self.require()
        if held:
            self.log.warning("operations.on_hold", operations=held, reason=HELD, hint="run: syncd operations list")

    async def check(self, token: Token) -> None:
        """Compare a token with the database before its first use.

        Raises
        ------
        AlbertTenantError
            The token belongs to another tenant. `run` then ends the daemon.
        """
        named = self.named if token.tenant_id is None else replace(self.named, tenant_id=token.tenant_id)
        if not same_tenant(self._pinned, named):
            self._refuse(named)
        self.named = named
        if (database := self._database) is not None and token.tenant_id and self._pinned.tenant_id is None:
            self._note_pinned(await database.write(lambda c: identity.pin(c, named, database.clock.read(c))), named)
        self.on_token()

    async def run(self) -> None:
        """Wait until a token is refused, then raise the reason.

        Raises
        ------
        TenantMismatchError
            A token belongs to another tenant.
        """
        await self._refused.wait()
        self.require()

    def require(self) -> None:
        """Raise the reason why a token was refused, if one was.

        Raises
        ------
        TenantMismatchError
            A token belongs to another tenant.
        """
        if self._error is not None:
            raise self._error

    def _note_pinned(self, stored: StoredIdentity, named: Identity) -> None:
        """Take over what the database holds now; another replica may have stored its own tenant first."""
        before, self._pinned = self._pinned, stored.pinned
        if not same_tenant(stored.pinned, named):
            self._refuse(named)
        if stored.pinned != before:
            self.log.info("tenant.pinned", origin=stored.pinned.origin, tenant=stored.pinned.tenant_id)

    def _refuse(self, named: Identity) -> NoReturn:
        if self._error is None:
            self._error = TenantMismatchError(mismatch_message(self._pinned, named))
            self._log_mismatch(named)
            self._refused.set()
        raise AlbertTenantError(str(self._error))

    def _log_mismatch(self, named: Identity) -> None:
        self.log.error(
            "tenant.mismatch",
            origin=self._pinned.origin, tenant=self._pinned.tenant_id,
            settings_origin=named.origin, settings_tenant=named.tenant_id,
            hint="fix ALBERT_BASE_URL or the credentials, or run: syncd tenant accept",
        )  # fmt: skip
