"""A request and its answer, as they are on the wire. No I/O.

The objects of httpx cost more CPU than the request itself. The public calls return an `httpx.Response`; the flows, with
thousands of requests, use these types.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

UNREADABLE: Final = "syncd.unreadable"
"""The key in the extensions of a response for the reason why a body could not be read."""

_CODING: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its headers. The URL is percent-encoded."""

    method: str
    url: str
    content: bytes | None = None

    @property
    def path(self) -> str:
        """Return the path on the wire, without the query."""
        return "/" + self.url.split("/", 3)[3].partition("?")[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its body read and decoded.

    `unreadable` is the reason for a missing body, if the status alone is sufficient.
    """

    request: Request
    status: int
    headers: Mapping[str, str]
    raw_headers: tuple[tuple[bytes, bytes], ...]
    content: bytes
    unreadable: str | None = None

    @property
    def is_success(self) -> bool:
        """Return whether the status is 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def response(self) -> httpx.Response:
        """Return the answer as a response of httpx."""
        import httpx  # noqa: PLC0415 - 80 ms to import, and the flows do not use it

        return httpx.Response(
            self.status,
            headers=[pair for pair in self.raw_headers if pair[0].lower() not in _CODING],
            content=self.content,
            request=httpx.Request(self.request.method, self.request.url, content=self.request.content),
            extensions={} if self.unreadable is None else {UNREADABLE: self.unreadable},
        )
