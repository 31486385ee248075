"""Certificates that are expired, for another host, or of an unknown CA: nothing is sent, not even the token."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from syncd.albert import AlbertConnectError
from tests.hostile.raw_server import item, listing, rig, serve_raw

GOOD = listing(item("SES1"))


@pytest.fixture(scope="module")
def openssl() -> str:
    path = shutil.which("openssl")
    if path is None:
        pytest.skip("needs the openssl command")
    return path


def _make(openssl: str, folder: Path, *, name: str, days: int) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a CA and a certificate for a host; return the server's context and a client's that trusts the CA."""

    def run(arguments: str) -> None:
        subprocess.run([openssl, *arguments.split()], check=True, capture_output=True, cwd=folder)

    run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=own-CA")
    run(f"req -newkey rsa:2048 -nodes -keyout host.key -out host.csr -subj /CN={name}")
    (folder / "ext").write_text(f"subjectAltName={name}\n")
    run(f"x509 -req -in host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out host.pem -days {days} -extfile ext")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "host.pem", folder / "host.key")
    return server, ssl.create_default_context(cafile=folder / "ca.pem")


@pytest.mark.parametrize(
    ("name", "days", "trusted", "accepted"),
    [
        ("IP:127.0.0.1", 30, True, True),
        ("IP:127.0.0.1", 30, False, False),
        ("DNS:elsewhere.example", 30, True, False),
        ("IP:127.0.0.1", -1, True, False),
    ],
    ids=["good", "unknown CA", "wrong host", "expired"],
)
async def test_requests_are_sent_only_with_a_valid_certificate_of_a_trusted_ca_for_the_host(
    tmp_path: Path, openssl: str, name: str, days: int, *, trusted: bool, accepted: bool
) -> None:
    server, client = _make(openssl, tmp_path, name=name, days=days)
    verify = client if trusted else None
    async with serve_raw(GOOD, tls=server) as raw, rig(tmp_path, raw.url, verify=verify) as r:
        if accepted:
            assert await r.albert.list_raw(start_key=None)
            return
        with pytest.raises(AlbertConnectError) as caught:
            await r.albert.list_raw(start_key=None)
        assert caught.value.not_applied
        assert raw.requests == []
