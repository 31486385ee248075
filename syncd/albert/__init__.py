"""A client for Albert's chat sessions, usable without the rest of syncd.

::

    async with AsyncAlbertSession(base_url="https://app.albertinvent.com", token=token) as session:
        sessions = ChatSessionCollection(session=session)
        async for each in sessions.get_all(name=["Titanium dioxide"]):
            print(each.id, each.name)

:mod:`syncd.albert.errors` says what can go wrong and what to do about it.
"""

from syncd.albert.auth import AlbertClientCredentials
from syncd.albert.chat_sessions import UNSET, ChatSessionCollection
from syncd.albert.errors import (
    AlbertAuthError,
    AlbertClientError,
    AlbertConnectError,
    AlbertException,
    AlbertHTTPError,
    AlbertLostError,
    AlbertResponseError,
    AlbertServerError,
    AlbertTimeoutError,
    AlbertTransportError,
    BadGateway,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InternalServerError,
    InvalidIdError,
    InvalidRequestError,
    NotFoundError,
    PreconditionFailedError,
    PreconditionRequiredError,
    RedirectError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
    UnsupportedMediaTypeError,
)
from syncd.albert.models import AuditFields, ChatSession, ChatSessionKind, Status
from syncd.albert.pagination import AsyncAlbertPaginator, Page
from syncd.albert.paths import segment
from syncd.albert.session import AsyncAlbertSession

__all__ = [
    "UNSET",
    "AlbertAuthError",
    "AlbertClientCredentials",
    "AlbertClientError",
    "AlbertConnectError",
    "AlbertException",
    "AlbertHTTPError",
    "AlbertLostError",
    "AlbertResponseError",
    "AlbertServerError",
    "AlbertTimeoutError",
    "AlbertTransportError",
    "AsyncAlbertPaginator",
    "AsyncAlbertSession",
    "AuditFields",
    "BadGateway",
    "BadRequestError",
    "ChatSession",
    "ChatSessionCollection",
    "ChatSessionKind",
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "InternalServerError",
    "InvalidIdError",
    "InvalidRequestError",
    "NotFoundError",
    "Page",
    "PreconditionFailedError",
    "PreconditionRequiredError",
    "RedirectError",
    "ServiceUnavailableError",
    "Status",
    "TooManyRequestsError",
    "UnauthorizedError",
    "UnsupportedMediaTypeError",
    "segment",
]
