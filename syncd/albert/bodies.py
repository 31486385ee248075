"""Bodies, bounded before and after decompression, so that no server can fill the memory. No I/O."""

from __future__ import annotations

import zlib

ENCODINGS = "gzip, identity"
"""What is asked for, and all that is read."""

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_GZIP = frozenset({"gzip", "x-gzip"})


class UnreadableBodyError(Exception):
    """The body cannot be had; the text says why and quotes nothing of it."""


def decoded(raw: bytes, encoding: str, limit: int) -> bytes:
    """Return the content of a body of at most ``limit`` bytes, given its ``Content-Encoding``.

    Only gzip and identity are read, since only they are asked for: brotli and zstandard would need the same
    care once more, and codings stacked on each other are how bombs are built.

    Raises
    ------
    UnreadableBodyError
        An unknown coding, several codings, corrupt or truncated gzip, or more than ``limit`` bytes.
    """
    coding = encoding.strip().lower()
    if coding in {"", "identity"} or not raw:
        return raw
    if coding not in _GZIP:
        raise UnreadableBodyError("its content encoding is not gzip")
    try:
        return _gunzipped(raw, limit)
    except zlib.error:
        pass  # zlib's words add nothing, and raising out here keeps the context short
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
            raise UnreadableBodyError("its gzip is cut short")
        parts.append(part)
        raw = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(limit: int) -> UnreadableBodyError:
    """Return the error for a body beyond the limit."""
    return UnreadableBodyError(f"it is larger than {limit} bytes")
