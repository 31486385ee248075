"""Chat sessions: the collection of the seed page, and the same calls without models, which the flows use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, Field

from syncd.albert.arguments import validated
from syncd.albert.collection import Collection, Id
from syncd.albert.errors import AlbertException, AlbertResponseError, InvalidRequestError
from syncd.albert.models import ChatSession, ChatSessionKind, refuse_unknown
from syncd.albert.pagination import AsyncAlbertPaginator
from syncd.albert.paths import segment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syncd.albert.urls import Params


class Unset:
    """The type of :data:`UNSET`: the default of an argument for which None has a meaning."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


def _without_unknown_keys(session: object) -> object:
    """Return an argument for a session; a dict must have the keywords of :class:`ChatSession` only."""
    if isinstance(session, dict):
        refuse_unknown(ChatSession, session)
    return session


class ChatSessionCollection(Collection[ChatSession]):
    """The chat sessions of a tenant.

    The class of the seed page (``albert.collections.chat_sessions``), with the filters and the ``update`` of newer
    SDKs. The ``*_raw`` methods return the unparsed body of a 2xx answer, ``delete_raw`` its status.

    Arguments are validated before anything is sent: a missing or unknown one raises ``TypeError``, a wrong value
    :class:`InvalidRequestError`, and a wrong id :class:`InvalidIdError`.

    Every method that sends a request can raise any error that :meth:`AsyncAlbertSession.ask` lists. Their base is
    :class:`AlbertException`; the section "Raises" of each method adds its own.

    Parameters
    ----------
    session : AsyncAlbertSession
        The session that sends the requests.
    """

    _resource, _model, _noun = "chats/sessions", ChatSession, "a chat session"

    @validated
    async def create(self, *, session: Annotated[ChatSession, BeforeValidator(_without_unknown_keys)]) -> ChatSession:
        """Create a session from the fields that were set; return the stored one, with its ``id``.

        As on the seed page, a dict of the fields is accepted too.

        Raises
        ------
        TypeError
            A dict has an unknown key, such as ``parentid``. Nothing was sent.
        InvalidRequestError
            The session cannot be written as JSON. Nothing was sent.
        InvalidIdError
            No request could look the source id up. Nothing was sent.
        ConflictError, BadRequestError
            The usual answers to a source id that exists already.
        AlbertResponseError
            The answer is not a chat session. The create may have been applied.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says. ``not_applied`` shows whether a repetition is safe.
        """
        segment(session.source_session_id)
        return self._reader.record(await self.create_raw(body=body_of(session)), "POST", self.base_path)

    @validated
    async def get_by_source_session_id(self, *, source_session_id: Id) -> ChatSession:
        """Return the session with this external identifier.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        NotFoundError, GoneError
            There is no such session.
        AlbertResponseError
            The answer is not a chat session.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        body = await self.get_raw_by_source_session_id(source_session_id=source_session_id)
        return self._reader.record(body, "GET", self._source_path(source_session_id))

    @validated
    def get_all(
        self,
        *,
        name: list[str] | None = None,
        created_by: str | None = None,
        updated_by: str | None = None,
        exact_match: bool = False,
        parent_id: str | None = None,
        kind: ChatSessionKind | str | None = None,
        automation_id: str | None = None,
        max_items: Annotated[int, Field(ge=0)] | None = None,
        start_key: str | None = None,
        on_error: Callable[[object, AlbertResponseError], None] | None = None,
    ) -> AsyncAlbertPaginator[ChatSession]:
        """Return an iterator over the sessions that match all given filters. The call itself sends nothing.

        Parameters
        ----------
        name : list[str] | None
            Names, of which one must match. An empty list does not filter.
        created_by, updated_by : str | None
            The id of a user; filters of the seed page that newer SDKs do not have.
        exact_match : bool
            Whether names must match exactly. It is sent with a name or without, as on the seed page. Newer SDKs send it
            with a name only, and their default is True.
        parent_id, automation_id : str | None
            The id of a folder and of an automation; filters of newer SDKs.
        kind : ChatSessionKind | str | None
            A filter of newer SDKs.
        max_items : int | None
            The number of sessions after which the iteration ends. ``has_more`` of the iterator then shows whether there
            are more.
        start_key : str | None
            The page to begin with, such as the ``last_key`` of an earlier iterator.
        on_error : Callable[[object, AlbertResponseError], None] | None
            Called with each item that is not a session, and its error. Without it, such an item raises.

        Returns
        -------
        AsyncAlbertPaginator[ChatSession]
            An async iterator. Its docstring lists where a listing ends and what an iteration raises.
        """
        params: Params = {
            "name": name,
            "createdBy": created_by,
            "updatedBy": updated_by,
            "exactMatch": "true" if exact_match else None,
            "parentId": parent_id,
            "kind": None if kind is None else str(kind),
            "automationId": automation_id,
        }
        return self._pages(params, max_items=max_items, start_key=start_key, on_error=on_error)

    @validated
    async def update(
        self, *, id: Id | None, name: str | None = None, parent_id: str | Unset | None = UNSET
    ) -> ChatSession:
        """Rename a session, move it to a folder (``parent_id=None``: out of its folder), or both; return it.

        This sends two requests, a PATCH and a GET. Without a change it sends the GET only.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        NotFoundError, GoneError
            There is no such session.
        AlbertResponseError
            The answer to the GET is not a chat session. The change has been applied.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says. If ``method`` is ``GET``, the change has been applied.
        """
        changes: dict[str, str | None] = {}
        if name is not None:
            changes["name"] = name
        if not isinstance(parent_id, Unset):
            changes["parentId"] = parent_id
        if changes:
            await self.update_raw(id=id, changes=changes)
        try:
            return await self.get_by_id(id=id)
        except AlbertException as error:
            error.not_applied &= not changes
            raise

    @validated
    async def delete(self, *, id: Id | None) -> None:
        """Delete the session with this id. The body of the answer is ignored.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        NotFoundError, GoneError
            There is no such session.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        await self.delete_raw(id=id)

    async def delete_raw(self, *, id: str | None) -> int:
        """Delete the session with this id; return the status of the answer, a 2xx.

        Raises
        ------
        InvalidIdError, NotFoundError, GoneError, AlbertException
            As :meth:`delete` says.
        """
        return (await self._session.ask("DELETE", self._path(id))).status

    async def update_raw(self, *, id: str | None, changes: Mapping[str, str | None]) -> None:
        """Change fields of a session, given by alias. The body of the answer is ignored.

        Parameters
        ----------
        changes : Mapping[str, str | None]
            `name` and `parentId`; None for `parentId` moves the session out of its folder.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        NotFoundError, GoneError
            There is no such session.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        data = [{"operation": "update", "attribute": name, "newValue": value} for name, value in changes.items()]
        await self._session.ask("PATCH", self._path(id), json={"data": data})

    async def get_raw_by_source_session_id(self, *, source_session_id: str) -> bytes:
        """Return the body of the session with this external identifier.

        Raises
        ------
        InvalidIdError
            The id cannot be sent.
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        return (await self._session.ask("GET", self._source_path(source_session_id))).content

    async def create_raw(self, *, body: Mapping[str, object]) -> bytes:
        """Create a session from its fields by alias; return the body of the answer.

        Raises
        ------
        AlbertException
            As :meth:`AsyncAlbertSession.ask` says.
        """
        return (await self._session.ask("POST", self.base_path, json=dict(body))).content

    def _source_path(self, source_session_id: str) -> str:
        return f"{self.base_path}/source/{segment(source_session_id)}"


def body_of(session: ChatSession) -> dict[str, object]:
    """Return the body of a create: the fields of the session that were set, by alias.

    Raises
    ------
    InvalidRequestError
        A field cannot be written as JSON.
    """
    try:
        return session.model_dump(by_alias=True, exclude_unset=True, mode="json")
    except ValueError as error:
        reason = type(error).__name__
    raise InvalidRequestError(f"the session cannot be sent as JSON ({reason})")
