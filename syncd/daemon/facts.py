"""The identity of a process and of its database: for the first log events, notifications and the service manager."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.mirror.schema.concerns import durability
from syncd.settings import Settings, shown
from syncd.urls import origin
from syncd.version import program_version

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.mirror.db.database import Database
    from syncd.rules.identity import Identity
    from syncd.settings import Loaded

UNKNOWN = "unknown"
"""The tenant while no token and no token response has named one."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The fields by which a log or a receiver distinguishes daemons. None of them is secret."""

    version: str
    host: str
    origin: str
    tenant: str

    def fields(self) -> dict[str, str]:
        """Return the fields of a log event."""
        return {"version": self.version, "host": self.host, "origin": self.origin, "tenant": self.tenant}


def facts(settings: Settings, pinned: Identity) -> Facts:
    """Return the identity of this process; `pinned` is the tenant that the database mirrors, as far as it is known."""
    return Facts(
        version=program_version(),
        host=socket.gethostname(),
        origin=pinned.origin or origin(settings.albert_base_url),
        tenant=pinned.tenant_id or UNKNOWN,
    )


def changed_settings(loaded: Loaded) -> dict[str, str | float | bool | None]:
    """Return the settings that differ from their defaults, by their names in the environment, without secrets."""
    settings = loaded.settings
    fields = Settings.model_fields
    return {name.upper(): shown(settings, name) for name in fields if getattr(settings, name) != fields[name].default}


async def log_database(database: Database, log: FilteringBoundLogger) -> None:
    """Log the database and its version; as a warning if a crash or another writer can damage it."""
    assessment = await database.read(durability)
    name = database.url.render_as_string(hide_password=True)
    if assessment.problem is None:
        log.info("database.opened", database=name, version=assessment.version)
        return
    log.warning(
        "database.opened", database=name, version=assessment.version, problem=assessment.problem, hint=assessment.fix
    )
