"""Notifications of the daemon as a process: a receiver on a socket, and a health that changes."""

from __future__ import annotations

import signal
import socket

from tests.processes.helpers import SECRET, Syncd, eventually
from tests.status.test_notifier import receiving

OFTEN = {"syncd.status.health_monitor.SECONDS_BETWEEN_READINGS": 0.1}
"""Seconds between two readings of the health; a change lasts for two."""


async def test_refused_credentials_and_their_end_are_notifications(syncd: Syncd) -> None:
    syncd.constants |= OFTEN
    async with receiving() as receiver:
        hook = syncd.folder / "hook"
        hook.write_text(f"{receiver.url}\n")
        daemon = await syncd.run(SYNCD_NOTIFY_URL_FILE=str(hook))
        await daemon.event("pass.complete")
        assert receiver.bodies == []
        syncd.sandbox.tokens.static = "another"
        await eventually(lambda: receiver.bodies)
        changed = await daemon.event("health.changed", healthy=False)
        syncd.sandbox.tokens.static = SECRET
        await eventually(lambda: receiver.bodies[-1]["healthy"])
        begin, end = receiver.bodies[0], receiver.bodies[-1]
        assert (begin["event"], begin["healthy_before"], begin["healthy"]) == ("health.changed", True, False)
        assert begin["problems"] == changed["problems"]
        assert begin["problems"]
        for problem in begin["problems"]:
            assert set(problem) == {"code", "text", "command"}
        assert (begin["origin"], begin["host"]) == (syncd.sandbox.url, socket.gethostname())
        assert (end["healthy_before"], end["problems"]) == (False, [])
        assert SECRET not in str(receiver.bodies)
        assert receiver.url not in "".join(daemon.lines)
        assert await daemon.stop() == 0


async def test_receiver_that_never_answers_delays_neither_the_work_nor_the_end(syncd: Syncd) -> None:
    syncd.constants |= OFTEN
    async with receiving() as receiver:
        receiver.silent = True
        daemon = await syncd.run(SYNCD_NOTIFY_URL=receiver.url, SYNCD_SHUTDOWN_GRACE="3")
        await daemon.event("pass.complete")
        syncd.sandbox.tokens.static = "another"
        await eventually(lambda: receiver.bodies)
        syncd.sandbox.tokens.static = SECRET
        before = len(daemon.events("pass.complete"))
        await eventually(lambda: len(daemon.events("pass.complete")) > before + 1)
        assert await daemon.stop() == 0
        stopped = daemon.events()[-1]
        assert (stopped["event"], "reason" in stopped) == ("daemon.stopped", False)  # nothing used up the grace


async def test_sighup_takes_over_another_receiver(syncd: Syncd) -> None:
    syncd.constants |= OFTEN
    async with receiving() as receiver:
        env = syncd.folder / "my.env"
        env.write_text("SYNCD_NOTIFY_URL=http://127.0.0.1:9/\n")
        daemon = await syncd.start("run", "--env-file", "my.env")
        await daemon.event("pass.complete")
        env.write_text(f"SYNCD_NOTIFY_URL={receiver.url}\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert (await daemon.event("settings.reloaded"))["changed"] == ["SYNCD_NOTIFY_URL"]
        syncd.sandbox.tokens.static = "another"
        await eventually(lambda: receiver.bodies)
        syncd.sandbox.tokens.static = SECRET
        assert await daemon.stop() == 0
