"""The identity of a running daemon: for `daemon.started`, for notifications, and for the service manager."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.settings import Settings, shown
from syncd.urls import origin
from syncd.version import program_version

if TYPE_CHECKING:
    from syncd.rules.identity import Identity
    from syncd.settings import Loaded

UNKNOWN = "unknown"
"""The tenant while no token and no token response has named one."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a log or a receiver of many daemons needs to tell them apart; no part of it is secret."""

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
