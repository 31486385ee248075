"""The document of `/status.json`, which `syncd status --json` prints too."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from syncd.clock import utc_text
from syncd.mirror.read.views import PASSES_SHOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syncd.mirror.read.stats import Snapshot
    from syncd.status.health import Health
    from syncd.status.snapshot import DaemonIdentity


def document(
    health: Health, overview: Mapping[str, Any] | None, daemon: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the health and the overview of a mirror. It is not healthy before its first complete pass.

    Parameters
    ----------
    overview : Mapping[str, Any] | None
        The result of `mirror.read.views.overview`; None if the database cannot be read.
    daemon : Mapping[str, Any] | None
        The result of `of_daemon`; None if no daemon was asked.
    """
    shown = {} if overview is None else {**overview, "passes": overview["passes"][:PASSES_SHOWN]}
    starting = overview is not None and overview["freshness"]["age_seconds"] is None
    return {
        "healthy": health.healthy and not starting,
        "starting": starting,
        "problems": [problem.as_dict() for problem in health.problems],
        "notices": [problem.as_dict() for problem in health.notices],
        "daemon": daemon,
        **shown,
    }


def of_daemon(identity: DaemonIdentity, snapshot: Snapshot | None) -> dict[str, Any]:
    """Return the fields that identify the daemon that answers."""
    return {
        "version": identity.version,
        "origin": identity.origin,
        "tenant": identity.tenant(),
        "host": identity.host,
        "database": identity.database,
        "started_at": identity.started_at,
        "leads": identity.leads(),
        "replicas": [] if snapshot is None else list(snapshot.replicas),
    }


def encode(document: Mapping[str, Any]) -> bytes:
    """Encode a document as JSON; times as `clock.utc_text` writes them."""
    return msgspec.json.encode(_plain(document))


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value of the document
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, dict):
        return {name: _plain(element) for name, element in value.items()}
    return [_plain(element) for element in value] if isinstance(value, list) else value
