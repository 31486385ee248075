"""Chat folders: the reading part of the official SDK's collection. `pull.folders` uses the calls without models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from syncd.albert.arguments import validated
from syncd.albert.collection import Collection
from syncd.albert.errors import AlbertResponseError
from syncd.albert.models import ChatFolder
from syncd.albert.pagination import AsyncAlbertPaginator

if TYPE_CHECKING:
    from syncd.albert.urls import Params


class ChatFolderCollection(Collection[ChatFolder]):
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

    _resource, _model, _noun = "chats/folders", ChatFolder, "a chat folder"

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
            The number of folders after which the iteration ends. ``has_more`` of the iterator then shows whether there
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
        return self._pages(params, max_items=max_items, start_key=start_key, on_error=on_error)
