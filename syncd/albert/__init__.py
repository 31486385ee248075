"""A client for the chat sessions of Albert. It works without the rest of syncd.

::

    async with AsyncAlbertSession(base_url="https://app.albertinvent.com", token=token) as session:
        sessions = ChatSessionCollection(session=session)
        async for each in sessions.get_all(name=["Titanium dioxide"]):
            print(each.id, each.name)

:mod:`syncd.albert.errors` lists the errors and what to do about each.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from syncd.albert.errors import (
    AlbertAuthError,
    AlbertClientError,
    AlbertConnectError,
    AlbertException,
    AlbertHTTPError,
    AlbertLostError,
    AlbertResponseError,
    AlbertServerError,
    AlbertTenantError,
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
from syncd.albert.paths import segment

if TYPE_CHECKING:
    from syncd.albert.auth import AlbertClientCredentials
    from syncd.albert.chat_folders import ChatFolderCollection
    from syncd.albert.chat_sessions import UNSET, ChatSessionCollection
    from syncd.albert.models import AuditFields, ChatFolder, ChatFolderType, ChatSession, ChatSessionKind, Status
    from syncd.albert.pagination import AsyncAlbertPaginator, Page
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
    "AlbertTenantError",
    "AlbertTimeoutError",
    "AlbertTransportError",
    "AsyncAlbertPaginator",
    "AsyncAlbertSession",
    "AuditFields",
    "BadGateway",
    "BadRequestError",
    "ChatFolder",
    "ChatFolderCollection",
    "ChatFolderType",
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

_LATER = {
    "AlbertClientCredentials": "auth",
    "AsyncAlbertPaginator": "pagination",
    "AsyncAlbertSession": "session",
    "AuditFields": "models",
    "ChatFolder": "models",
    "ChatFolderCollection": "chat_folders",
    "ChatFolderType": "models",
    "ChatSession": "models",
    "ChatSessionCollection": "chat_sessions",
    "ChatSessionKind": "models",
    "Page": "pagination",
    "Status": "models",
    "UNSET": "chat_sessions",
}
"""Names whose modules import aiohttp and pydantic. They are loaded on first use: checking an id needs neither."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
