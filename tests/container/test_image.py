"""The image as an operator runs it: read only, without capabilities, on a small volume, watched by its healthcheck.

`make image-test` builds it and starts an engine of its own; otherwise these tests are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from tests.container.engine import IMAGE, IN_AN_ENGINE, ROOT, docker, until

SESSIONS = 300
OURS_AT_MOST = 80_000_000
"""Bytes that the image may add to its base."""
pytestmark = IN_AN_ENGINE


@dataclass
class Server:
    """The sandbox, in a process of its own on the host."""

    url: str
    token: str

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        with urlopen(Request(self.url + path, data=data, method=method, headers=headers), timeout=10) as answer:  # noqa: S310
            return json.load(answer)


@pytest.fixture
def albert() -> Iterator[Server]:
    command = [sys.executable, "-m", "syncd", "sandbox", "--port", "0", "--sessions", str(SESSIONS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        variables = dict(process.stdout.readline().strip().split("=", 1) for _ in range(2))
        yield Server(variables["ALBERT_BASE_URL"], variables["ALBERT_TOKEN"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Mount 2 MB that belong to the image's user."""
    folder = tmp_path / "data"
    folder.mkdir()
    options = "size=2m,uid=10001,gid=10001,mode=0750"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass
class Running:
    """A container of the image."""

    name: str

    @property
    def health(self) -> str:
        return docker("inspect", "--format", "{{.State.Health.Status}}", self.name)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in docker("logs", self.name).splitlines()]
        return [line for line in lines if line["event"] == name]

    def syncd(self, *arguments: str) -> str:
        return docker("exec", self.name, "syncd", *arguments)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def container(albert: Server, volume: Path) -> Iterator[Running]:
    name = docker(
        "run", "--detach", "--network", "host",
        "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "256m",
        "--health-interval", "1s", "--health-start-period", "1s", "--volume", f"{volume}:/data",
        "--env", f"ALBERT_BASE_URL={albert.url}", "--env", f"ALBERT_TOKEN={albert.token}",
        "--env", "SYNCD_PASS_INTERVAL=1", "--env", f"SYNCD_STATUS_PORT={free_port()}", IMAGE,
    )  # fmt: skip
    try:
        yield Running(name)
    finally:
        docker("rm", "--force", name)


def mirrored(volume: Path) -> int:
    with closing(sqlite3.connect(volume / "syncd.db")) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM chat_sessions").fetchone()[0])


def test_image_mirrors_waits_out_a_full_volume_and_stops_cleanly(
    albert: Server, volume: Path, container: Running
) -> None:
    until(lambda: container.health == "healthy", "healthy")
    until(lambda: bool(container.events("pass.complete")), "a first pass")
    assert json.loads(container.syncd("status", "--json"))["freshness"]["live_sessions"] == SESSIONS

    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError as error:
            assert error.strerror == "No space left on device"  # noqa: PT017 - the loop ends no other way
    for number in range(400):
        albert.call("POST", "/api/v3/chats/sessions", {"name": "n" * 900, "sourceSessionId": f"more-{number}"})
    until(lambda: bool(container.events("database.waiting")), "the full volume is noticed")
    before = len(container.events("pass.complete"))
    until(lambda: container.health == "healthy", "healthy while it waits")
    assert docker("inspect", "--format", "{{.State.Running}} {{.RestartCount}}", container.name) == "true 0"
    assert len(container.events("pass.complete")) == before

    ballast.unlink()
    until(lambda: len(container.events("pass.complete")) > before + 1, "it recovers by itself")
    began = time.monotonic()
    docker("stop", "--time", "20", container.name)
    assert time.monotonic() - began < 10
    assert docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", container.name) == "0 false"
    assert container.events("daemon.stopped")
    assert mirrored(volume) == SESSIONS + 400


def test_container_runs_as_nobody_in_particular_and_can_write_to_its_volume_alone(container: Running) -> None:
    until(lambda: container.health == "healthy", "healthy")
    look = (
        "import os, sqlite3, sys\n"
        "assert os.getuid() == os.getgid() == 10001\n"
        "assert sqlite3.sqlite_version_info >= (3, 51, 3), sqlite3.sqlite_version\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "assert int(status['CapEff'], 16) == int(status['CapBnd'], 16) == 0\n"
        "assert status['NoNewPrivs'].strip() == '1'\n"
        "for folder in ('/', '/tmp', '/opt/syncd', '/etc'):\n"
        "    try: open(f'{folder}/x', 'w')\n"
        "    except OSError: continue\n"
        "    sys.exit(f'{folder} can be written to')\n"
    )
    docker("exec", container.name, "python", "-c", look)
    assert oct(int(docker("exec", container.name, "stat", "--format", "%a", "/data/syncd.db"), 8)) == oct(0o600)
    assert container.syncd("healthcheck") == "ok"
    assert json.loads(container.syncd("doctor", "--json"))[1]["verdict"] == "ok"


def test_database_of_a_secret_file_takes_the_place_of_the_default(tmp_path: Path) -> None:
    secret = tmp_path / "database_url"
    secret.write_text("postgresql+asyncpg://syncd@db.test/mirror\n")
    secret.chmod(0o644)
    options = ("--volume", f"{secret}:/secret:ro", "--env", "SYNCD_DATABASE_URL_FILE=/secret")
    assert "db.test/mirror" in docker("run", "--rm", *options, IMAGE, "config")


def test_image_is_small_and_says_what_it_is() -> None:
    def size(image: str) -> int:
        return int(docker("inspect", "--format", "{{.Size}}", image))

    assert size(IMAGE) - size("python:3.12-slim-trixie") < OURS_AT_MOST
    labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", IMAGE))
    assert labels["org.opencontainers.image.title"] == "syncd"
    assert docker("run", "--rm", IMAGE, "--version").split()[-1] == labels["org.opencontainers.image.version"]
