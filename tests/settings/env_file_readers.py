"""How Docker and systemd read an environment file: their own programs, run without an engine and without a manager."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DOCKER = shutil.which("docker")
SYSTEMD = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")
"""systemd's reader of environment.d, which parses lines with the function that reads `EnvironmentFile=`. It differs in
one point: it replaces `$NAME`."""


class _Engine(socketserver.ThreadingUnixStreamServer):
    """Answers `docker create` like an engine, and keeps the environment that the client sends."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.environments: list[list[str]] = []
        super().__init__(path, _Handler)

    def get_request(self) -> tuple[Any, Any]:
        request, _ = super().get_request()
        return request, ("client", 0)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Engine

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_GET(self) -> None:
        self._answer(200, b"OK")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.environments.append(body["Env"] or [])
        self._answer(201, b'{"Id": "0", "Warnings": []}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)


@contextmanager
def _engine(folder: Path) -> Iterator[_Engine]:
    with _Engine(str(folder / "e")) as engine:
        thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield engine
        finally:
            engine.shutdown()
            thread.join()


def read_by_docker(folder: Path, file: Path) -> dict[str, str] | None:
    """Return what a container's environment would have; None if Docker refuses the file."""
    assert DOCKER is not None
    environment = {"DOCKER_HOST": f"unix://{folder}/e", "HOME": str(folder), "PATH": os.environ["PATH"]}
    with _engine(folder) as engine:
        command = [DOCKER, "create", "--pull", "never", "--env-file", str(file), "image"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            assert "invalid env file" in done.stderr
            return None
        (variables,) = engine.environments
    return dict(variable.split("=", 1) for variable in variables)


def read_by_systemd(folder: Path, file: Path) -> dict[str, str]:
    """Return what a unit's environment would have; systemd skips lines that it cannot read."""
    place = folder / "environment.d"
    place.mkdir(exist_ok=True)
    shutil.copy(file, place / "99.conf")
    done = subprocess.run([SYSTEMD], env={"XDG_CONFIG_HOME": str(folder)}, capture_output=True, check=True, timeout=30)
    return dict(variable.split("=", 1) for variable in shlex.split(done.stdout.decode()))
