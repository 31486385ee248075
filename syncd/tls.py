"""TLS contexts that verify certificates. The client uses them, and the settings check a CA file with the same code."""

from __future__ import annotations

import os
import ssl


def client_context(
    verify: ssl.SSLContext | None, ca_file: str | os.PathLike[str] | None = None
) -> ssl.SSLContext | None:
    """Return the context of a client.

    Parameters
    ----------
    verify : ssl.SSLContext | None
        A context of the caller.
    ca_file : str | os.PathLike[str] | None
        A file of CA certificates that are trusted in addition to those of the system.

    Returns
    -------
    ssl.SSLContext | None
        None if the default context of the HTTP library is sufficient.

    Raises
    ------
    ValueError
        The context does not check certificates and host names. Or the file cannot be read or has no certificate. Or
        both are given.
    """
    if verify is not None and (verify.verify_mode != ssl.CERT_REQUIRED or not verify.check_hostname):
        raise ValueError("verify must be a context that checks certificates and host names")
    if ca_file is None:
        return verify
    if verify is not None:
        raise ValueError("verify and ca_file exclude each other; add the file to the context")
    context = ssl.create_default_context()
    _load(context, ca_file)
    return context


def check_ca_file(ca_file: str | os.PathLike[str]) -> None:
    """Check that a file holds CA certificates and can be read again.

    Raises
    ------
    ValueError
        The file cannot be read, holds no certificate, or is a pipe.
    """
    if os.path.exists(ca_file) and not os.path.isfile(ca_file) and not os.path.isdir(ca_file):  # noqa: PTH110, PTH112, PTH113
        raise ValueError("the CA file is not a regular file, and it is read several times; name a file on the disk")
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
