"""The connection to Albert through a proxy and with a private CA, and the errors when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.sandbox import Sandbox, serve
from tests.albert.client_wire import Reply, serving
from tests.helpers import fork_server
from tests.helpers.certificates import make_certificate
from tests.helpers.http_proxy import http_proxy, tls_front
from tests.helpers.programs import environment

pytestmark = pytest.mark.timeout(120)
PASSWORD = "cAnArY-pass"


async def syncd(folder: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it printed on both streams."""
    env = environment(folder, ALBERT_TOKEN="sandbox-token", SYNCD_REQUEST_TIMEOUT="20", SYNCD_RETRY_MAX="0", **more)
    done = await fork_server.run(arguments, environment=env, folder=folder)
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_pass_and_queue_go_through_the_proxy_to_a_server_of_a_private_ca(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls")
    (tmp_path / "proxy").write_text("")
    async with (
        serve(Sandbox(30)) as sandbox,
        tls_front(int(str(sandbox.url).rpartition(":")[2]), certificate.server_context()) as url,
        http_proxy(password=PASSWORD) as proxy,
    ):
        (tmp_path / "proxy").write_text(f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}\n")
        settings = {
            "ALBERT_BASE_URL": url, "SYNCD_PROXY_FILE": str(tmp_path / "proxy"), "SYNCD_CA_FILE": str(certificate.ca),
        }  # fmt: skip
        enqueued = await syncd(tmp_path, "enqueue", "create", "--source-session-id", "s-1", "--name", "N", **settings)
        assert enqueued[0] == 0
        code, output = await syncd(tmp_path, "once", SYNCD_LOG_LEVEL="debug", **settings)
        assert (code, "pass.complete" in output) == (0, True), output
        assert len(sandbox.live()) == 31
        assert set(proxy.connects) == {url.removeprefix("https://")}
        assert b"sandbox-token" not in bytes(proxy.forwarded)
        assert PASSWORD not in output


async def test_error_of_a_proxy_that_refuses_the_password_does_not_show_it(tmp_path: Path) -> None:
    async with http_proxy(password="another") as proxy:
        settings = {
            "ALBERT_BASE_URL": "https://albert.example",
            "SYNCD_PROXY": f"http://u:{PASSWORD}@127.0.0.1:{proxy.port}",
        }
        code, output = await syncd(tmp_path, "once", SYNCD_LOG_LEVEL="debug", **settings)
        assert code == 1
        assert "refused to connect to albert.example:443: 407 Proxy Authentication Required" in output
        doctor_code, doctor = await syncd(tmp_path, "doctor", **settings)
        assert doctor_code == 1
        assert "SYNCD_PROXY" in doctor
        for text in (output, doctor):
            assert PASSWORD not in text
            assert "Traceback" not in text


async def test_doctor_points_at_the_server_and_not_at_the_token_when_the_answer_is_not_http(tmp_path: Path) -> None:
    async with serving() as wire:
        wire.default = lambda _: Reply(b"SSH-2.0-OpenSSH_9.2\r\n", "close")
        code, doctor = await syncd(tmp_path, "doctor", ALBERT_BASE_URL=wire.url)
        assert code == 1
        assert "cannot be read as HTTP: the server speaks SSH on this port" in doctor
        assert "check ALBERT_BASE_URL; another server" in doctor
        assert "TOKEN" not in doctor
