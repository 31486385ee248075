"""A mirror, the sandbox that it mirrors, and the processes of syncd that work on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncd.sandbox import Sandbox
from tests.helpers import fork_server
from tests.kills.mirrors import Mirrors

ROOT = Path(__file__).resolve().parents[2]
BEGINNING = 12
SOURCES = ("kill-1", "kill-2", "kill-3")


def environment(mirror: str, url: str, **more: str) -> dict[str, str]:
    """Return the environment of a syncd without waits."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(ROOT),
        "ALBERT_BASE_URL": url,
        "ALBERT_TOKEN": "sandbox-token",
        "SYNCD_DATABASE_URL": mirror,
        "SYNCD_DELETE_GRACE": "0",
        "SYNCD_DELETE_CONFIRMATIONS": "1",
        "SYNCD_UNKNOWN_SETTLE": "0",
        "SYNCD_RETRY_BASE": "0",
        "SYNCD_LEASE": "1",
        "SYNCD_STATUS_PORT": "0",
        "SYNCD_LOG_FORMAT": "json",
        **more,
    }


async def syncd(
    command: Sequence[str], folder: Path, mirror: str, url: str, **more: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with places in it where `PLACE` asks for them."""
    module = "tests.kills.instrumented_syncd" if "PLACE" in more else "syncd"
    return await fork_server.run(command, environment=environment(mirror, url, **more), folder=folder, module=module)


@dataclass
class Case:
    """A mirror for a command, and the Albert that it mirrors."""

    folder: Path
    mirrors: Mirrors
    sandbox: Sandbox
    queued: bool
    """Whether operations are in its queue."""
    more: dict[str, str] = field(default_factory=dict)
    """Environment variables for each command."""

    async def sql(self, statement: str) -> list[Any]:
        """Query the database as an analyst does."""
        return await self.mirrors.sql(self.folder, statement)

    async def count(self, rows: str) -> int:
        """Return the number of rows of a table, or of those that meet a condition."""
        return int((await self.sql(f"SELECT count(*) FROM {rows}"))[0][0])

    async def syncd(self, command: Sequence[str], **more: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command."""
        return await syncd(
            command, self.folder, self.mirrors.url(self.folder), self.sandbox.url, **{**self.more, **more}
        )

    async def differences(self) -> list[str]:
        """Compare the mirror and the queue with Albert; return the differences."""
        wrong = await self.mirrors.wrong(self.folder)
        created = [effect.source_session_id for effect in self.sandbox.effects if effect.kind == "created"]
        if sorted(created) != sorted(SOURCES if self.queued else ()):
            wrong.append(f"created {created}")
        deleted = [effect.session_id for effect in self.sandbox.effects if effect.kind == "deleted"]
        if len(deleted) != len(set(deleted)):
            wrong.append(f"deleted {deleted}")
        states = await self.sql("SELECT id, state, last_error FROM operations WHERE state <> 'succeeded'")
        if states:
            wrong.append(f"operations {states}")
        mirror = dict(await self.sql("SELECT id, name FROM chat_sessions"))
        live = self.sandbox.live()
        live_names = {session_id: wire["name"] for session_id, wire in live.items()}
        if mirror != live_names:
            wrong.append(f"mirror {mirror.items() ^ live_names.items()}")
        linked = dict(await self.sql("SELECT source_session_id, session_id FROM source_sessions WHERE state='linked'"))
        if linked != {wire["sourceSessionId"]: session_id for session_id, wire in live.items()}:
            wrong.append(f"source ids {linked}")
        return wrong
