"""The environment of most tests: the sandbox on a socket, a real SQLite file, the real flows, a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa
from structlog.testing import LogCapture

from syncd.albert import AsyncAlbertSession, ChatFolderCollection, ChatSessionCollection
from syncd.lookups import Lookups
from syncd.mirror.db.database import Database
from syncd.mirror.db.shared_clock import HostClock
from syncd.mirror.schema import migrate, tables
from syncd.mirror.store import operation_views, operations
from syncd.pull.flow import PassOutcome, Pull, PullSettings
from syncd.pull.folders import FolderSettings, MirrorFolders
from syncd.push.flow import Push, PushSettings
from syncd.push.record import RetryPolicy
from syncd.reconcile import Reconcile
from syncd.records.ids import OperationId
from syncd.rules.deletion import Guard
from syncd.rules.retry import Backoff
from syncd.sandbox import Habits, Sandbox, serve
from syncd.witness import Witness
from tests.helpers import empty_mirror
from tests.helpers.databases import current_url
from tests.helpers.logs import capturing_logger
from tests.helpers.virtual_clock import VirtualClock


@dataclass
class Harness:
    """The sandbox, the mirror, and the flows between them."""

    sandbox: Sandbox
    database: Database
    albert: ChatSessionCollection
    clock: VirtualClock
    log: LogCapture
    chat_folders: ChatFolderCollection
    guard: Guard = field(default=Guard(grace=0, confirmations=1, max_count=25, max_fraction=0.05))
    pull_settings: PullSettings | None = None
    machine: str = "a machine"
    push_settings: PushSettings = field(
        default=PushSettings(
            concurrency=4, lease=60, retry_policy=RetryPolicy(max_attempts=8, backoff=Backoff(0.5, 300), settle=60)
        )
    )

    @property
    def events(self) -> list[Mapping[str, Any]]:
        return list(self.log.entries)

    def named(self, event: str) -> list[Mapping[str, Any]]:
        return [entry for entry in self.log.entries if entry["event"] == event]

    def _logger(self) -> Any:
        return capturing_logger(self.log)

    def pull(self, **changes: Any) -> Pull:
        settings = self.pull_settings or PullSettings(
            max_pages=10_000, max_seconds=21_600, backoff=Backoff(0.5, 300), guard=self.guard, settle=60
        )
        return Pull(
            database=self.database,
            lookups=self.lookups,
            clock=self.clock,
            log=self._logger(),
            settings=replace(settings, **changes),
            jitter=lambda: 1.0,
            machine=self.machine,
        )

    def folders(self, **changes: Any) -> MirrorFolders:
        settings = FolderSettings(max_pages=100, backoff=Backoff(0.5, 300), guard=self.guard)
        return MirrorFolders(
            database=self.database,
            albert=self.chat_folders,
            clock=self.clock,
            log=self._logger(),
            settings=replace(settings, **changes),
            jitter=lambda: 1.0,
        )

    def push(self, *, albert: ChatSessionCollection | None = None, **changes: Any) -> Push:
        retry_policy = {name: changes.pop(name) for name in list(changes) if name in RetryPolicy.__dataclass_fields__}
        changes["retry_policy"] = replace(self.push_settings.retry_policy, **retry_policy)
        return Push(
            database=self.database,
            lookups=self.lookups if albert is None else self.lookups_over(albert),
            clock=self.clock,
            log=self._logger(),
            settings=replace(self.push_settings, **changes),
            jitter=lambda: 1.0,
            machine=self.machine,
        )

    @cached_property
    def lookups(self) -> Lookups:
        """Return the look-ups that all flows share."""
        return self.lookups_over(self.albert)

    def lookups_over(self, albert: ChatSessionCollection) -> Lookups:
        """Return look-ups that use another client."""
        witness = Witness(database=self.database, albert=albert, clock=self.clock, log=self._logger())
        return Lookups(albert=albert, clock=self.clock, witness=witness)

    def reconcile(self) -> Reconcile:
        return Reconcile(
            settle=self.push_settings.retry_policy.settle,
            database=self.database,
            lookups=self.lookups,
            clock=self.clock,
            log=self._logger(),
        )

    async def one_pass(self, **changes: Any) -> PassOutcome:
        return await self.pull(**changes).run()

    async def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run SQL as another program would: on a connection of its own."""

        def work(connection: sa.Connection) -> list[dict[str, Any]]:
            result = connection.exec_driver_sql(statement, parameters)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

        if statement.lstrip().upper().startswith("SELECT"):
            return await self.database.read(work)
        return await self.database.write(work)

    async def enqueue(self, *rows: dict[str, Any]) -> list[int]:
        ids: list[int] = [*await self.database.write(lambda c: operations.enqueue(c, rows))]
        return ids

    async def operation(self, operation_id: int) -> dict[str, Any]:
        row = await self.database.read(lambda c: operation_views.get(c, OperationId(operation_id)))
        assert row is not None
        return dict(row)

    async def last_pass(self) -> dict[str, Any]:
        return (await self.sql("SELECT * FROM passes ORDER BY id DESC LIMIT 1"))[0]

    async def live(self) -> dict[str, str]:
        return {row["id"]: row["name"] for row in await self.sql("SELECT id, name FROM chat_sessions")}

    async def empty(self) -> None:
        """Take all out of a PostgreSQL that many examples of one test share."""
        if self.database.dialect == "postgresql":
            await self.sql(f"TRUNCATE {', '.join(tables.metadata.tables)} RESTART IDENTITY")

    async def add_refusing_trigger(self, event: str, condition: str = "true") -> None:
        """Make the database refuse each INSERT or UPDATE of a session, until `remove_trigger`."""
        if self.database.dialect == "sqlite":
            body = "BEGIN SELECT RAISE(ABORT, 'the mirror refuses'); END"
        else:
            body = "EXECUTE FUNCTION refuse()"
            await self.sql(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN RAISE EXCEPTION 'the mirror refuses'; END$$"
            )
        await self.sql(f"CREATE TRIGGER refuses BEFORE {event} ON sessions FOR EACH ROW WHEN ({condition}) {body}")

    async def remove_trigger(self) -> None:
        """Remove the trigger of `add_refusing_trigger`."""
        await self.sql("DROP TRIGGER refuses" + (" ON sessions" if self.database.dialect != "sqlite" else ""))

    def there(self) -> dict[str, str]:
        return {session_id: wire["name"] for session_id, wire in self.sandbox.live().items()}

    def asked(self, method: str, prefix: str = "/api/v3/chats/sessions") -> Sequence[str]:
        """Return the raw paths of the requests of a method, as they were on the wire."""
        return [
            request.raw_path
            for request in self.sandbox.requests
            if request.method == method and request.raw_path.startswith(prefix)
        ]


@asynccontextmanager
async def open_harness(
    folder: Path,
    *,
    sessions: int = 0,
    habits: Habits | None = None,
    request_timeout: float = 5.0,
    url: str | None = None,
) -> AsyncIterator[Harness]:
    """Open a mirror and its sandbox in a folder, or over the database at `url`."""
    url = url or current_url()
    if url is None:
        file = folder / "syncd.db"
        url = f"sqlite+aiosqlite:///{file}"
        if not file.exists():
            empty_mirror.create(file)
    clock = VirtualClock()
    server = Sandbox(sessions, seed=1, habits=habits or Habits(page_size=10), now=clock.true_time)
    async with (
        serve(server),
        Database.create(sa.make_url(url), busy_timeout=5, host_clock=clock) as database,
        AsyncAlbertSession(base_url=server.url, token=server.token, timeout=request_timeout) as session,
        anyio.create_task_group() as group,
    ):
        database.clock = HostClock(clock)
        await database.write(migrate.migrate)
        for owner, name in (
            (database, "write"),
            (database, "write_batched"),
            (database, "read"),
            (database, "read_batched"),
            (session, "ask"),
        ):
            setattr(owner, name, clock.watched(getattr(owner, name)))
        group.start_soon(clock.run)
        yield Harness(
            server, database, ChatSessionCollection(session=session), clock, LogCapture(),
            ChatFolderCollection(session=session),
        )  # fmt: skip
        group.cancel_scope.cancel()
