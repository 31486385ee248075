"""Certificates for tests, made with the openssl command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificate:
    """A CA, and a server's certificate that it signed."""

    ca: Path
    chain: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


def make_certificate(folder: Path, *, name: str = "IP:127.0.0.1", days: int = 30) -> Certificate:
    """Make a CA and a certificate for a subjectAltName; the test is skipped without openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    folder.mkdir(parents=True, exist_ok=True)

    def run(arguments: str) -> None:
        subprocess.run([openssl, *arguments.split()], check=True, capture_output=True, cwd=folder)

    ca = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign"
    run(f"req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=own-CA {ca}")
    run("req -newkey rsa:2048 -nodes -keyout host.key -out host.csr -subj /CN=host")
    (folder / "ext").write_text(f"subjectAltName={name}\n")
    run(f"x509 -req -in host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out host.pem -days {days} -extfile ext")
    return Certificate(folder / "ca.pem", folder / "host.pem", folder / "host.key")
