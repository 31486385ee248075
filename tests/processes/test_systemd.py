"""The service for systemd: the messages of the daemon over a real socket, and the unit as systemd checks it."""

from __future__ import annotations

import configparser
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from syncd.daemon.systemd import ServiceManager
from tests.processes.helpers import COMMAND, ROOT, Syncd, eventually

UNIT = ROOT / "deploy" / "systemd" / "syncd.service"


@dataclass
class Manager:
    """The end of the socket at which systemd listens."""

    address: str
    connection: socket.socket
    received: list[dict[str, str]] = field(default_factory=list)

    def messages(self) -> list[dict[str, str]]:
        """Return all messages until now."""
        while True:
            try:
                text = self.connection.recv(65536).decode()
            except BlockingIOError:
                return self.received
            self.received.append(dict(line.split("=", 1) for line in text.split("\n")))

    def values(self, name: str) -> list[str]:
        return [message[name] for message in self.messages() if name in message]


@contextmanager
def listening(address: str) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        connection.setblocking(False)  # noqa: FBT003 - no keyword there
        yield Manager(address, connection)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@syncd-test-{uuid4()}"
    with listening(address) as made:
        yield made


async def test_daemon_reports_ready_its_health_signs_of_life_and_its_end(syncd: Syncd, manager: Manager) -> None:
    daemon = await syncd.start("run", NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="300000")
    await eventually(lambda: manager.values("READY"))
    await daemon.event("daemon.started")
    await eventually(lambda: len(manager.values("WATCHDOG")) >= 3)
    await eventually(lambda: "healthy" in manager.values("STATUS"))
    assert manager.values("STOPPING") == []
    assert await daemon.stop() == 0
    assert manager.values("STOPPING") == ["1"]
    assert manager.values("READY") == ["1"]


async def test_daemon_that_ends_before_it_is_ready_reports_no_start(syncd: Syncd, manager: Manager) -> None:
    syncd.file.write_bytes(b"not a database" * 1000)
    daemon = await syncd.start("run", NOTIFY_SOCKET=manager.address)
    assert await daemon.code() == 3
    assert manager.values("READY") == []


async def test_stopped_process_sends_no_sign_of_life(syncd: Syncd, tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as manager:
        daemon = await syncd.start("run", NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="300000")
        await eventually(lambda: manager.values("WATCHDOG"))
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            count = len(manager.values("WATCHDOG"))
            for _ in range(2):  # each takes longer than a period
                await anyio.run_process([*COMMAND, "--help"], env=syncd.environment, cwd=syncd.folder)
            assert len(manager.values("WATCHDOG")) <= count + 1
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        assert await daemon.stop() == 0


def test_variables_of_systemd_are_taken_out_of_the_environment_and_those_of_another_process_have_no_watchdog() -> None:
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    manager = ServiceManager.of_environment(environment)
    assert environment == {"PATH": "/bin"}
    assert manager._watchdog_seconds is None
    assert ServiceManager.of_environment({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "5000000"})._watchdog_seconds == 5.0


@pytest.mark.parametrize("address", [None, "/not/there", "vsock:2:1234", "@nobody-listens", "/" + "x" * 500])
def test_unreachable_manager_is_not_an_error(address: str | None) -> None:
    manager = ServiceManager(address)
    manager.ready()
    manager.stopping()


DENY_EXECUTABLE_MEMORY = """\
import ctypes, os, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-m", "syncd", "once"])
"""
"""A cycle in a process whose memory cannot become executable, as with MemoryDenyWriteExecute of the unit."""


async def test_cycle_runs_where_memory_cannot_become_executable(syncd: Syncd) -> None:
    once = await syncd.start_program([sys.executable, "-c", DENY_EXECUTABLE_MEMORY])
    if (code := await once.code()) == 77:
        pytest.skip("this kernel cannot deny executable memory")
    assert code == 0
    assert once.events("pass.complete")


def installed_unit(tmp_path: Path) -> Path:
    """Return the unit with a program that exists on this machine."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/syncd/.venv/bin/syncd", sys.executable))
    return copy


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(installed_unit(tmp_path))], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_unit_is_hardened_as_documented(tmp_path: Path) -> None:
    checked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(installed_unit(tmp_path))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (level,) = re.findall(r"exposure level for syncd.service: ([0-9.]+)", checked.stdout)
    assert float(level) < 2.0
    page = (ROOT / "docs" / "deploy.md").read_text()
    (documented,) = re.findall(r"exposure level of ([0-9.]+)", page)
    assert abs(float(documented) - float(level)) < 0.5  # the weights differ between releases of systemd


def test_unit_notifies_can_be_enabled_and_is_not_restarted_when_that_would_not_help() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert service["Type"] == "notify"
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    assert service["RestartPreventExitStatus"] == "2 3"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
