"""Chat folders: the reading part of the official SDK's collection. `pull.folders` uses the calls without models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from syncd.albert.arguments import validated
from syncd.albert.errors import AlbertResponseError
from syncd.albert.models import ChatFolder
from syncd.albert.pagination import AsyncAlbertPaginator
from syncd.albert.paths import segment
from syncd.albert.readers import Reader

if TYPE_CHECKING:
    from syncd.albert.session import AsyncAlbertSession
    from syncd.albert.urls import Params

Id: TypeAlias = Annotated[str, Field(strict=True)]
"""Text; bytes are not accepted for it."""


class ChatFolderCollection:
    """The folders of chat sessions of a tenant, for reading.

    The class of the official SDK (``albert.collections.chat_folders``) without ``create``, ``update`` and ``delete``.
    The ``*_raw`` methods return the unparsed body of a 2xx answer.

    Arguments are validated as by :class:`ChatSessionCollection`. Every method that sends a request can raise any error
    that :meth:`AsyncAlbertSession.ask` lists; their base is :class:`AlbertException`.

    Parameters
    ----------
    session : AsyncAlbertSession
        The session that sends the requests.
    """

    _api_version = "v3"

    def __init__(self, *, session: AsyncAlbertSession) -> None:
        self._session = session
        self.base_path: str = f"/api/{self._api_version}/chats/folders"
        self._reader = Reader(ChatFolder, "a chat folder", self.base_path)

    @validated
    async def get_by_id(self, *, id: Id | None) -> ChatFolder:
        """Return the folder with this id.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        NotFoundError, GoneError
            There is no such folder.
        AlbertResponseError
            The answer is not a chat folder.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        path = self._path(id)
        return self._reader.record((await self._session.ask("GET", path)).content, "GET", path)

    @validated
    def get_all(
        self,
        *,
        name: list[str] | None = None,
        exact_match: bool = False,
        max_items: Annotated[int, Field(ge=0)] | None = None,
        start_key: str | None = None,
        on_error: Callable[[object, AlbertResponseError], None] | None = None,
    ) -> AsyncAlbertPaginator[ChatFolder]:
        """Return an iterator over the folders that match all given filters. The call itself sends nothing.

        Parameters
        ----------
        name : list[str] | None
            Names, of which one must match. An empty list does not filter.
        exact_match : bool
            Whether names must match exactly. It is sent with a name or without. The official SDK sends it with a name
            only, and its default is True.
        max_items : int | None
            The number of folders after which the iteration ends. ``has_more`` of the iterator then tells whether there
            are more.
        start_key : str | None
            The page to begin with, such as the ``last_key`` of an earlier iterator.
        on_error : Callable[[object, AlbertResponseError], None] | None
            Called with each item that is not a folder, and its error. Without it, such an item raises.

        Returns
        -------
        AsyncAlbertPaginator[ChatFolder]
            An async iterator. Its docstring lists where a listing ends and what an iteration raises.
        """
        params: Params = {"name": name, "exactMatch": "true" if exact_match else None}
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
        """Return the body of the folder with this id.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        return (await self._session.ask("GET", self._path(id))).content

    def _path(self, id: str | None) -> str:
        return f"{self.base_path}/{segment(id)}"
