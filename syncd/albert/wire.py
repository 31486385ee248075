"""One request and its answer as they are on the wire. No I/O.

httpx's own objects cost more than the request itself: the public calls give an `httpx.Response`, what runs thousands of
times makes do with these.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

UNREADABLE: Final = "syncd.unreadable"
"""The key of a response's extensions under which stands why a body could not be read."""

_CODING: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its headers: its URL is encoded, its content bytes."""

    method: str
    url: str
    content: bytes | None = None

    @property
    def path(self) -> str:
        """The path on the wire, without the query."""
        return "/" + self.url.split("/", 3)[3].partition("?")[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, its body read and decoded.

    `unreadable` says why there is no body, where the status alone says enough.
    """

    request: Request
    status: int
    headers: Mapping[str, str]
    raw_headers: tuple[tuple[bytes, bytes], ...]
    content: bytes
    unreadable: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def response(self) -> httpx.Response:
        """Return it as httpx's."""
        return httpx.Response(
            self.status,
            headers=[pair for pair in self.raw_headers if pair[0].lower() not in _CODING],
            content=self.content,
            request=httpx.Request(self.request.method, self.request.url, content=self.request.content),
            extensions={} if self.unreadable is None else {UNREADABLE: self.unreadable},
        )
