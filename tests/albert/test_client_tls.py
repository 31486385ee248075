"""TLS: certificates that are accepted and refused."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from syncd.albert import (
    AlbertConnectError,
    AlbertLostError,
    AsyncAlbertSession,
)
from tests.albert.client_wire import TOKEN, Open, Wire, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for 127.0.0.1 that is its own CA."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    made = tmp_path_factory.mktemp("tls") / "made.pem"
    for name, host in (("made", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere.example")):
        file = made.with_name(f"{name}.pem")
        options = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=syncd -addext subjectAltName={host}"
        files = ["-keyout", f"{file}.key", "-out", f"{file}.crt"]
        subprocess.run([openssl, *options.split(), *files], check=True, capture_output=True)
    return made


def server_side(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{file}.crt", f"{file}.key")
    return context


async def test_certificate_of_a_private_ca_is_accepted_with_its_context(certificate: Path, opened: Open) -> None:
    trust = ssl.create_default_context(cafile=f"{certificate}.crt")
    async with serving(ssl=server_side(certificate)) as safe:
        assert (await opened(base_url=safe.url, verify=trust).get("/x")).status_code == 200
        assert safe.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_self_signed_certificate_is_refused_and_nothing_is_sent(certificate: Path, opened: Open) -> None:
    async with serving(ssl=server_side(certificate)) as unsafe:
        with pytest.raises(AlbertConnectError, match="self-signed") as caught:
            await opened(base_url=unsafe.url).get("/x")
        assert caught.value.not_applied
        assert not unsafe.seen


async def test_certificate_for_another_host_is_refused(certificate: Path, opened: Open) -> None:
    wrong = certificate.with_name("wrong.pem")
    trust = ssl.create_default_context(cafile=f"{wrong}.crt")
    async with serving(ssl=server_side(wrong)) as unsafe:
        with pytest.raises(AlbertConnectError):
            await opened(base_url=unsafe.url, verify=trust).get("/x")
        assert not unsafe.seen


@pytest.mark.slow
async def test_plain_http_server_at_an_https_url_is_a_connect_error(wire: Wire, opened: Open) -> None:
    with pytest.raises((AlbertConnectError, AlbertLostError)) as caught:
        await opened(base_url=wire.url.replace("http:", "https:"), timeout=2).get("/x")
    assert isinstance(caught.value, AlbertConnectError)
    assert not wire.seen


def test_tls_context_with_disabled_checks_is_refused() -> None:
    lax = ssl.create_default_context()
    lax.check_hostname = False
    for mode in (ssl.CERT_REQUIRED, ssl.CERT_NONE):
        lax.verify_mode = mode
        with pytest.raises(ValueError, match="checks certificates"):
            AsyncAlbertSession(base_url="https://albert.example", token=TOKEN, verify=lax)
