"""Chat sessions: the collection of the seed page, and the same calls without models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from syncd.albert.answers import one_line
from syncd.albert.errors import AlbertResponseError, InvalidRequestError
from syncd.albert.models import ChatSession
from syncd.albert.pagination import AsyncAlbertPaginator
from syncd.albert.paths import segment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syncd.albert.models import ChatSessionKind
    from syncd.albert.session import AsyncAlbertSession
    from syncd.albert.urls import Params


class Unset:
    """The type of :data:`UNSET`: an argument that was left out, where None means something."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


class ChatSessionCollection:
    """The chat sessions of a tenant.

    The class of the seed page (``albert.collections.chat_sessions``), with the filters and the ``update`` of
    newer SDKs. The ``*_raw`` methods answer with the bytes of a success's body, unparsed.

    Parameters
    ----------
    session : AsyncAlbertSession
        The session used to make API requests.

    Raises
    ------
    InvalidIdError
        From any method with an id that cannot be sent; nothing was.
    AlbertResponseError
        A success whose body is not what was asked for; a create may have been applied.
    AlbertException
        Whatever the session raises.
    """

    _api_version = "v3"

    def __init__(self, *, session: AsyncAlbertSession) -> None:
        self._session = session
        self.base_path: str = f"/api/{self._api_version}/chats/sessions"

    async def create(self, *, session: ChatSession) -> ChatSession:
        """Create a session from the fields that were set; returns what the server stored, with its ``id``."""
        return _session_of(await self.create_raw(body=body_of(session)), "POST", self.base_path)

    async def get_by_id(self, *, id: str) -> ChatSession:
        """Return the session with this id."""
        return _session_of(await self.get_raw(id=id), "GET", self._path(id))

    async def get_by_source_session_id(self, *, source_session_id: str) -> ChatSession:
        """Return the session with this external identifier."""
        body = await self.get_raw_by_source_session_id(source_session_id=source_session_id)
        return _session_of(body, "GET", self._source_path(source_session_id))

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
        max_items: int | None = None,
    ) -> AsyncAlbertPaginator[ChatSession]:
        """Iterate over the sessions that match all filters given.

        Parameters
        ----------
        name : list[str] | None
            Any of these names; an empty list filters nothing.
        created_by, updated_by : str | None
            A user's id; filters of the seed page that newer SDKs lack.
        exact_match : bool
            Whether names match exactly. Sent with a name or without, as on the seed page; newer SDKs send it
            with a name only, and have it True unless told otherwise.
        parent_id, automation_id : str | None
            A folder's and an automation's id; filters of newer SDKs.
        kind : ChatSessionKind | str | None
            A filter of newer SDKs.
        max_items : int | None
            Stop after as many; ``has_more`` of what is returned then tells whether there are more.

        Returns
        -------
        AsyncAlbertPaginator[ChatSession]
            An async iterator; its docstring says where a listing ends.
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
        return AsyncAlbertPaginator(
            session=self._session,
            path=self.base_path,
            deserialize=self._listed,
            params=params,
            max_items=max_items,
        )

    async def update(self, *, id: str, name: str | None = None, parent_id: str | Unset | None = UNSET) -> ChatSession:
        """Rename a session, move it (``parent_id=None``: out of its folder), or both; fetches it again.

        Two requests (one when there is nothing to change): when the second fails, the change has been made.
        """
        changes: list[dict[str, object]] = []
        if name is not None:
            changes.append({"operation": "update", "attribute": "name", "newValue": name})
        if not isinstance(parent_id, Unset):
            changes.append({"operation": "update", "attribute": "parentId", "newValue": parent_id})
        if changes:
            await self._session.ask("PATCH", self._path(id), json={"data": changes})
        return await self.get_by_id(id=id)

    async def delete(self, *, id: str) -> None:
        """Delete the session with this id; the body of the answer is ignored."""
        await self._session.ask("DELETE", self._path(id))

    async def list_raw(self, *, start_key: str | None) -> bytes:
        """Return the body of one page of the unfiltered listing."""
        params = None if start_key is None else {"startKey": start_key}
        return (await self._session.ask("GET", self.base_path, params=params)).content

    async def get_raw(self, *, id: str) -> bytes:
        """Return the body of the session with this id."""
        return (await self._session.ask("GET", self._path(id))).content

    async def get_raw_by_source_session_id(self, *, source_session_id: str) -> bytes:
        """Return the body of the session with this external identifier."""
        return (await self._session.ask("GET", self._source_path(source_session_id))).content

    async def create_raw(self, *, body: Mapping[str, object]) -> bytes:
        """Create a session from its fields by alias; returns the body of the answer."""
        return (await self._session.ask("POST", self.base_path, json=dict(body))).content

    def _path(self, id: str) -> str:
        return f"{self.base_path}/{segment(id)}"

    def _source_path(self, source_session_id: str) -> str:
        return f"{self.base_path}/source/{segment(source_session_id)}"

    def _listed(self, item: object) -> ChatSession:
        try:
            return ChatSession.model_validate(item)
        except ValidationError as error:
            reason = _summary(error)
        raise AlbertResponseError(f"an item is no chat session: {reason}", method="GET", path=self.base_path)


def body_of(session: ChatSession) -> dict[str, object]:
    """Return what a create sends for ``session``: the fields that were set, by alias."""
    try:
        return session.model_dump(by_alias=True, exclude_unset=True, mode="json")
    except ValueError as error:
        reason = type(error).__name__
    raise InvalidRequestError(f"the session cannot be sent as JSON ({reason})")


def _session_of(body: bytes, method: str, path: str) -> ChatSession:
    try:
        return ChatSession.model_validate_json(body)
    except ValidationError as error:
        reason = _summary(error)
    raise AlbertResponseError(f"the answer is no chat session: {reason}", method=method, path=path)


def _summary(error: ValidationError) -> str:
    """Return what is wrong without quoting the input, which is others' data and may be large."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return one_line("; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found[:3]))
