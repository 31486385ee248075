"""SIGHUP: read secrets and the log level again, without a restart.

Environment files and files of secrets (`NAME_FILE`) are read again. The environment of a process cannot change. The
session has credentials of one kind: after a change to the other kind, it keeps the old ones until a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from syncd import logs
from syncd.daemon.signals import SIGHUP
from syncd.errors import SettingsError
from syncd.settings import CREDENTIALS

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.albert_session import CurrentSettings
    from syncd.app import Flows
    from syncd.daemon.shutdown import Received
    from syncd.settings import Loaded

APPLIED = ("syncd_log_level", "syncd_notify_url", *CREDENTIALS)
"""The settings that a running daemon takes over; credentials only of the kind that it began with."""


async def reload_on_sighup(
    received: Received,
    read_settings: Callable[[], Loaded],
    current: CurrentSettings,
    flows: Flows,
    log: FilteringBoundLogger,
) -> None:
    """Wait for SIGHUP, forever, and apply what can be applied."""
    while True:
        await received.wait((SIGHUP,))
        try:
            after = read_settings().settings
        except SettingsError as error:
            problems = "; ".join(error.problems)
            log.warning("settings.rejected", problems=problems, hint="fix them and send SIGHUP again")
            continue
        before = current.settings
        same_kind = before.credentials == after.credentials
        current.settings = after if same_kind else after.with_credentials_of(before)
        logs.set_level(after.syncd_log_level)
        flows.session.reload_credentials()
        flows.push.wake_up.set()
        applied = APPLIED if same_kind else set(APPLIED).difference(CREDENTIALS)
        changed = [name for name in type(after).model_fields if getattr(before, name) != getattr(after, name)]
        log.info(
            "settings.reloaded",
            log_level=after.syncd_log_level,
            changed=[name.upper() for name in changed if name in applied],
            need_restart=[name.upper() for name in changed if name not in applied],
        )
