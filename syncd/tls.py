"""TLS contexts that verify certificates. The client uses them, and the settings check a CA file with the same code."""

from __future__ import annotations

import os
import ssl


def verifying_context(ca_file: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """Return a context that trusts the CAs of the system and, in addition, those of a file.

    Raises
    ------
    ValueError
        The file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        _load(context, ca_file)
    return context


def check_ca_file(ca_file: str | os.PathLike[str]) -> None:
    """Check that a file holds CA certificates.

    Raises
    ------
    ValueError
        The file cannot be read or holds no certificate.
    """
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_file)  # without the system's CAs, which take 20 ms to load


def _load(context: ssl.SSLContext, ca_file: str | os.PathLike[str]) -> None:
    try:
        if os.path.isdir(ca_file):  # noqa: PTH112 - OpenSSL's message for a folder is misleading
            raise ValueError("the CA file is a folder; name the file with the certificates")
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise ValueError(
            "the CA file has no certificate in PEM form (-----BEGIN CERTIFICATE-----), or a damaged one; "
            "a DER file is converted by: openssl x509 -inform der -in FILE -out FILE.pem"
        ) from None
    except OSError as error:
        raise ValueError(f"the CA file cannot be read: {error.strerror}") from None
    if not context.cert_store_stats()["x509"]:
        raise ValueError("the CA file has no certificate")
