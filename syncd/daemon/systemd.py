"""Messages to systemd, for services of `Type=notify`: ready, status text, watchdog, stopping.

The protocol is that of sd_notify(3): a datagram with lines `NAME=value` to the socket that `NOTIFY_SOCKET` names. It is
a few lines, and the packages for it are unmaintained or need libsystemd. Without systemd nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING

from syncd.logs import safe_text

if TYPE_CHECKING:
    from syncd.clock import Clock
    from syncd.status.health_monitor import Health
    from syncd.status.watchdog import Watchdog

WATCHDOG_FRACTION = 1 / 3
"""Part of the period of the watchdog between two messages; two of them may come late."""
IDLE_SECONDS = 3600.0
"""Seconds between two rounds of the loop if systemd has no watchdog for this process."""


class ServiceManager:
    """The service manager that started this process, or none.

    Parameters
    ----------
    address : str | None
        The path of a socket, or `@` and a name for one in the abstract namespace; None without a service manager.
    watchdog_seconds : float | None
        The period after which systemd restarts a process that sends no message; None without a watchdog.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self._address = None if address is None else _socket_address(address)
        self._watchdog_seconds = watchdog_seconds
        self._status = ""

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """Take the variables of systemd out of the environment, so that no child process sends messages."""
        address = environment.pop("NOTIFY_SOCKET", None)
        period, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        is_ours = process in {"", str(os.getpid())}
        seconds = int(period) / 1e6 if period.isdecimal() and int(period) > 0 and is_ours else None
        return cls(address, seconds if address else None)

    def ready(self) -> None:
        """Report that the start is complete."""
        self._send("READY=1", "STATUS=running")

    def stopping(self) -> None:
        """Report that the end has begun."""
        self._send("STOPPING=1", "STATUS=stopping")

    def show_health(self, health: Health) -> None:
        """Show the health in `systemctl status`, when it has changed."""
        problems = [safe_text(problem.text) for problem in health.problems]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        status = f"{problems[0]}{more}" if problems else "healthy"
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    async def run(self, watchdog: Watchdog, clock: Clock) -> None:
        """Send WATCHDOG=1 repeatedly while every loop makes progress, as `/livez` reports it."""
        period = self._watchdog_seconds
        while True:
            if period is not None and not watchdog.stalled():
                self._send("WATCHDOG=1")
            await clock.sleep(IDLE_SECONDS if period is None else period * WATCHDOG_FRACTION)

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        # A service manager that does not receive must neither delay nor end the daemon.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)  # noqa: FBT003 - no keyword there
            connection.sendto("\n".join(lines).encode(), self._address)


def _socket_address(address: str) -> str | None:
    """Return the address for the socket; None for another kind of address than systemd's on this machine."""
    if address.startswith("@"):
        return f"\0{address[1:]}"
    return address if address.startswith("/") else None
