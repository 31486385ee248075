"""Errors of aiohttp as errors of the client, with the host and a precise reason. The transport calls it. No I/O.

No message quotes what the server sent, because an answer can echo the token. The descriptions of the parser are
constant.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from http import HTTPStatus
from http.client import responses
from typing import TYPE_CHECKING, Final

import aiohttp

from syncd.albert.errors import AlbertConnectError, AlbertException, AlbertLostError, AlbertResponseError

if TYPE_CHECKING:
    from yarl import URL

    from syncd.albert.proxy import Proxy

LONGEST_HEADER: Final = 65_536
"""Bytes of a header line or a status line. Gateways send cookies and policies far beyond aiohttp's 8 KiB."""
MOST_HEADERS: Final = 1024
"""Headers of an answer: 64 KiB of short ones."""
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
"""OpenSSL's reasons for a peer whose first bytes are not TLS."""
_UNTRUSTED: Final = re.compile("self.signed|local issuer")
_DESCRIPTION: Final = re.compile(
    r"(?:Bad status line:\n\s*)?(?P<words>[A-Z][^\n]*):\n\n\s*b['\"](?P<data>.*)", re.DOTALL
)
"""How aiohttp reports an error of its parser llhttp: a constant description, then the data."""


_PROXY_HINTS: Final[dict[int, str]] = {
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "; check the user name and the password of the proxy",
    HTTPStatus.FORBIDDEN: "; the proxy does not allow this host",
}


def place_of(url: URL) -> str:
    """Return `host:port` of a URL, for messages."""
    host = url.raw_host or ""
    return f"[{host}]:{url.port}" if ":" in host else f"{host}:{url.port}"


def connect_failure(error: aiohttp.ClientError | OSError, url: URL, proxy: Proxy | None) -> AlbertConnectError:
    """Return the error for a connection that was not established. Nothing was sent to Albert."""
    server = place_of(url)
    through = "" if proxy is None else f" through the proxy {proxy.place}"
    if proxy is not None and (text := _proxy_text(error, server, proxy)) is not None:
        return AlbertConnectError(text)
    if isinstance(error, aiohttp.ClientConnectorError):
        return AlbertConnectError(_connector_text(_os_error(error), server, through))
    return AlbertConnectError(f"no connection to {server}{through}: {_closed(error)}")


def request_failure(error: aiohttp.ClientError, url: URL) -> AlbertException:
    """Return the error for a request that was sent, or may have been sent."""
    server = place_of(url)
    match error:
        case aiohttp.ClientPayloadError():
            return AlbertLostError(f"the answer of {server} was cut: {_payload_reason(error)}")
        case aiohttp.ClientOSError():
            return AlbertLostError(f"the connection to {server} broke: {_reason(error)}")
        case aiohttp.ServerDisconnectedError():
            hint = "; if this host never answers, the port may expect https" if url.scheme == "http" else ""
            return AlbertLostError(f"{server} closed the connection without an answer{hint}")
        case aiohttp.ClientResponseError():
            return AlbertResponseError(f"the answer of {server} cannot be read as HTTP: {_parse_reason(error.message)}")
        case _:  # unknown to this version; a lost answer is the cautious interpretation
            return AlbertLostError(f"the connection to {server} failed ({type(error).__name__})")


def harmless_cause(error: aiohttp.ClientError | OSError) -> BaseException | None:
    """Return the error of the operating system below one of aiohttp; None without one.

    The attributes of aiohttp's errors quote headers, so that they must not be a cause themselves.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        return _os_error(error)
    if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError):
        return error
    cause = error.__cause__
    return cause if isinstance(cause, OSError) and not isinstance(cause, aiohttp.ClientError) else None


def _proxy_text(error: aiohttp.ClientError | OSError, server: str, proxy: Proxy) -> str | None:
    """Return the text for a failure of the proxy; None if the failure is one of the server behind it."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return proxy_refusal(error.status, server, proxy)
        case aiohttp.ClientResponseError():
            return f"the answer of the proxy {proxy.place} cannot be read as HTTP: {_parse_reason(error.message)}"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientConnectorDNSError():
            return f"no connection to the proxy {proxy.place}: {_reason(error.os_error)}"
        case aiohttp.ClientConnectorError():
            if f"{error.host}:{error.port}" != proxy.place.replace("[", "").replace("]", ""):
                return None
            return _connector_text(_os_error(error), f"the proxy {proxy.place}", "")
        case _:
            return f"the proxy {proxy.place} did not connect to {server}: {_closed(error)}"


def proxy_refusal(status: int, server: str, proxy: Proxy) -> str:
    """Return the text for a proxy that refuses to connect, with its status and not with its own words."""
    hint = _PROXY_HINTS.get(status, "")
    return (
        f"the proxy {proxy.place} refused to connect to {server}: {status} {responses.get(status, '')}".rstrip() + hint
    )


def _os_error(error: aiohttp.ClientConnectorError) -> BaseException:
    """Return the error below; that of a refused certificate is in an attribute of its own."""
    return getattr(error, "certificate_error", None) or error.os_error


def _connector_text(cause: BaseException, peer: str, through: str) -> str:
    """Return the text for a TCP connection or a TLS handshake that failed."""
    if isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError):
        reason = str(getattr(cause, "verify_message", "")) or "it does not match the host"
        hint = "; neither the system nor SYNCD_CA_FILE (ca_file) has its issuer" if _UNTRUSTED.search(reason) else ""
        return f"the certificate of {peer}{through} is refused: {reason.rstrip('.')}{hint}"
    if isinstance(cause, ssl.SSLError):
        if cause.reason in _NOT_TLS:
            return f"{peer}{through} does not speak TLS on this port; is https:// right for it?"
        return (
            f"no TLS connection to {peer}{through}: {str(cause.reason or 'handshake failed').lower().replace('_', ' ')}"
        )
    return f"no connection to {peer}{through}: {_reason(cause)}"


def _reason(error: BaseException) -> str:
    """Return the words of the operating system for an error."""
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError):
        return str(getattr(error, "strerror", "") or type(error).__name__)
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error.strerror or type(error).__name__)


def _closed(error: BaseException) -> str:
    return _reason(error) if isinstance(error, OSError) and error.errno else "it closed the connection"


def _payload_reason(error: aiohttp.ClientPayloadError) -> str:
    text = str(error)
    if "content length" in text:
        return "it is shorter than its Content-Length"
    return "its last chunk is missing" if "transfer length" in text else "the connection ended before the body"


def _parse_reason(message: str) -> str:
    """Return why an answer is not HTTP. The message of aiohttp can quote the answer and is not repeated."""
    if message.startswith("Got more than"):
        return f"a header is longer than {LONGEST_HEADER // 1024} KiB"
    if message.startswith("Too many headers"):
        return f"it has more than {MOST_HEADERS} headers"
    if message.startswith("Invalid HTTP header"):
        return "a header line is malformed"
    match = _DESCRIPTION.match(message)
    if match is None:
        return "its status line is malformed" if message.startswith("Bad status line") else "it is malformed"
    if match["words"].startswith("Expected"):
        return _protocol(match["data"]) or "it does not begin with an HTTP status line"
    return match["words"]


def _protocol(data: str) -> str | None:
    """Return which other protocol the first bytes are; `data` is their `repr`."""
    if data.startswith("\\x15\\x03"):
        return "the server speaks TLS on this port, so the URL must begin with https://"
    if data.startswith(("HTTP/2", "\\x00\\x00")):
        return "the server speaks HTTP/2 on this port"
    if data.startswith("SSH-"):
        return "the server speaks SSH on this port"
    return "the answer has no HTTP header" if data.lstrip().startswith(("<", "{", "[")) else None
