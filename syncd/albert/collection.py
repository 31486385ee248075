"""The base of the collections of the client: one resource by its id, pages of a listing, and the unparsed answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, Field

from syncd.albert.arguments import validated
from syncd.albert.errors import InvalidRequestError
from syncd.albert.pagination import AsyncAlbertPaginator
from syncd.albert.paths import segment
from syncd.albert.readers import Reader

if TYPE_CHECKING:
    from syncd.albert.errors import AlbertResponseError
    from syncd.albert.session import AsyncAlbertSession
    from syncd.albert.urls import Params

M = TypeVar("M", bound=BaseModel)
Id: TypeAlias = Annotated[str, Field(strict=True)]
"""Text; bytes are not accepted for it."""


class Collection(Generic[M]):
    """Resources of one kind under one path, for reading.

    The ``*_raw`` methods return the unparsed body of a 2xx answer. Every method that sends a request can raise any
    error that :meth:`AsyncAlbertSession.ask` lists; their base is :class:`AlbertException`.

    Parameters
    ----------
    session : AsyncAlbertSession
        The session that sends the requests.

    Raises
    ------
    InvalidRequestError
        It is not a session.
    """

    _api_version = "v3"
    _resource: ClassVar[str]
    """The path below the version of the API."""
    _model: ClassVar[type[BaseModel]]
    _noun: ClassVar[str]
    """The name of one resource in errors, such as `a chat session`."""

    def __init__(self, *, session: AsyncAlbertSession) -> None:
        if not hasattr(session, "ask"):
            raise InvalidRequestError(f"session must be an AsyncAlbertSession, not {type(session).__name__}")
        self._session = session
        self.base_path: str = f"/api/{self._api_version}/{self._resource}"
        self._reader: Reader[M] = Reader(self._model, self._noun, self.base_path)  # type: ignore[arg-type]  # it is M

    @validated
    async def get_by_id(self, *, id: Id | None) -> M:
        """Return the resource with this id.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        NotFoundError, GoneError
            There is no such resource.
        AlbertResponseError
            The answer is not such a resource.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        path = self._path(id)
        return self._reader.record((await self._session.ask("GET", path)).content, "GET", path)

    async def list_raw(self, *, start_key: str | None) -> bytes:
        """Return the body of one page of the unfiltered listing; None for the first page.

        Raises
        ------
        InvalidRequestError
            The key cannot be sent.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        params = None if start_key is None else {"startKey": start_key}
        return (await self._session.ask("GET", self.base_path, params=params)).content

    async def get_raw(self, *, id: str) -> bytes:
        """Return the body of the resource with this id.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        return (await self._session.ask("GET", self._path(id))).content

    def _pages(
        self,
        params: Params,
        *,
        max_items: int | None,
        start_key: str | None,
        on_error: Callable[[object, AlbertResponseError], None] | None,
    ) -> AsyncAlbertPaginator[M]:
        return AsyncAlbertPaginator(
            session=self._session,
            path=self.base_path,
            deserialize=self._reader.item,
            deserialize_page=self._reader.items,
            params=params,
            max_items=max_items,
            start_key=start_key,
            on_error=on_error,
        )

    def _path(self, id: str | None) -> str:
        return f"{self.base_path}/{segment(id)}"
