"""Bodies of requests and answers. Answers are bounded before and after decompression. No I/O."""

from __future__ import annotations

import json
import zlib
from typing import Final

from syncd.albert.errors import InvalidRequestError

ENCODINGS: Final = "gzip, identity"
"""The content encodings that the client accepts. It reads no others."""

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class UnreadableBodyError(Exception):
    """A body cannot be read. The text gives the reason and quotes nothing of the body."""


def json_body(value: object) -> bytes:
    """Return the JSON of a value, the same bytes as httpx sends.

    Raises
    ------
    InvalidRequestError
        The value cannot be written as JSON.
    """
    try:
        return _JSON.encode(value).encode()
    except (ValueError, TypeError, RecursionError) as error:
        reason = type(error).__name__
    raise InvalidRequestError(f"the body cannot be sent as JSON ({reason})")


def decoded(raw: bytes, encoding: str, limit: int) -> bytes:
    """Return the content of a body of at most ``limit`` bytes, given its ``Content-Encoding``.

    Only gzip and identity are read, because the client asks for no others. Brotli and zstandard would need the same
    care again, and several codings on top of each other are the form of decompression bombs.

    Raises
    ------
    UnreadableBodyError
        The coding is unknown, or there are several. Or the gzip is corrupt or truncated, or the content is larger than
        the limit.
    """
    coding = encoding.strip().lower()
    if coding in {"", "identity"} or not raw:
        return raw
    if coding not in _GZIP:
        raise UnreadableBodyError("its content encoding is not gzip")
    try:
        return _gunzipped(raw, limit)
    except zlib.error:
        pass  # raised below without the context: the message of zlib adds nothing
    raise UnreadableBodyError("its gzip is corrupt")


def _gunzipped(raw: bytes, limit: int) -> bytes:
    """Decompress all members of a gzip stream into at most ``limit + 1`` bytes."""
    parts: list[bytes] = []
    left = limit + 1
    while raw:
        member = zlib.decompressobj(_GZIP_WINDOW)
        part = member.decompress(raw, left)
        left -= len(part)
        if left <= 0:
            raise too_large(limit)
        if not member.eof:
            raise UnreadableBodyError("its gzip is truncated")
        parts.append(part)
        raw = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(limit: int) -> UnreadableBodyError:
    """Return the error for a body beyond the limit."""
    return UnreadableBodyError(f"it is larger than {limit} bytes")
