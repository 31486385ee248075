"""The models of the public client: a chat session, its parts, and a chat folder. Unknown fields and values are kept."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field


class Status(StrEnum):
    """The known values of ``ChatSession.status``."""

    ACTIVE = "active"
    """The session can be continued."""
    INACTIVE = "inactive"
    """The session is closed."""


class ChatSessionKind(StrEnum):
    """The known values of ``ChatSession.kind``."""

    CHAT = "chat"
    """A person talks with the assistant."""
    AUTOMATION = "automation"
    """An automation made the session."""


class ChatFolderType(StrEnum):
    """The known values of ``ChatFolder.folder_type``."""

    ROOT = "root"
    """The folder is in no other folder."""
    CHILD = "child"
    """The folder is in another folder."""


def refuse_unknown(model: type[BaseModel], names: Iterable[object]) -> None:
    """Refuse names that are neither a field of a model nor its name on the wire.

    Raises
    ------
    TypeError
        A name is unknown. The message has the field that it resembles.
    """
    fields = model.model_fields
    known = {*fields, *(field.validation_alias for field in fields.values())}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name).lower(), fields, 1, cutoff=0.7)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{model.__name__}() got an unexpected keyword argument {name!r}{hint}")


class _Open(BaseModel):
    """A model that keeps fields of the server that it does not know, and refuses unknown keywords of a program."""

    model_config = ConfigDict(
        extra="allow",
        validate_by_name=True,
        validate_by_alias=True,
        validate_assignment=True,
        use_attribute_docstrings=True,
    )

    if not TYPE_CHECKING:  # type checkers read the signature from the fields

        def __init__(self, /, **data: object) -> None:
            refuse_unknown(type(self), data)
            super().__init__(**data)

        # pydantic then does not call it for what model_validate reads, so that the server's new fields are kept
        __init__.__pydantic_base_init__ = True


class AuditFields(_Open):
    """The author and the time of a change."""

    by: str | None = None
    """The id of the user."""
    by_name: str | None = Field(default=None, validation_alias="byName", serialization_alias="byName")
    """The name of the user."""
    at: Annotated[datetime | str | None, Field(union_mode="left_to_right")] = None
    """The time; the server's text if it is not a time."""


class ChatSession(_Open):
    """One "Ask Albert" conversation.

    Fields are given by name, or by their name on the wire (``sourceSessionId``). ``status`` and ``kind`` are enum
    members if the value is known, otherwise text. Fields of the server that this version does not know are in
    ``model_extra``. A program that has the server's data calls ``ChatSession.model_validate(data)``; the constructor
    refuses unknown keywords, and :meth:`ChatSessionCollection.create` unknown keys of a dict.

    Raises
    ------
    TypeError
        An unknown keyword, such as ``parentid``.
    pydantic.ValidationError
        A field is missing or has the wrong type.
    """

    # In the order of the official SDK, so that the body of a create has the same bytes.
    status: Annotated[Status | str | None, Field(union_mode="left_to_right")] = None
    """``active``, ``inactive``, or a value that Albert has added."""
    created: AuditFields | None = Field(
        default=None, validation_alias="Created", serialization_alias="Created", frozen=True
    )
    """The author and the time of the creation; set by Albert."""
    updated: AuditFields | None = Field(
        default=None, validation_alias="Updated", serialization_alias="Updated", frozen=True
    )
    """The author and the time of the last change; set by Albert."""
    id: str | None = None
    """Albert's id, such as ``SES123``; set by Albert."""
    name: str
    """The session's name."""
    parent_id: str | None = Field(default=None, validation_alias="parentId", serialization_alias="parentId")
    """The id of the folder; None if the session is in no folder."""
    source_session_id: str = Field(validation_alias="sourceSessionId", serialization_alias="sourceSessionId")
    """The external id, chosen by the program that creates the session."""
    last_message_at: str | None = Field(
        default=None, validation_alias="lastMessageAt", serialization_alias="lastMessageAt"
    )
    """The time of the last message, as Albert's text (ISO 8601)."""
    kind: Annotated[ChatSessionKind | str | None, Field(union_mode="left_to_right")] = None
    """``chat``, ``automation``, or a value that Albert has added."""
    automation_id: str | None = Field(default=None, validation_alias="automationId", serialization_alias="automationId")
    """The automation that owns the session."""
    automation_run_id: str | None = Field(
        default=None, validation_alias="automationRunId", serialization_alias="automationRunId"
    )
    """The run of the automation that made the session."""


class ChatFolder(_Open):
    """A folder of "Ask Albert" conversations.

    Fields are given by name, or by their name on the wire (``type``, ``parentId``). ``folder_type`` is an enum member
    if the value is known, otherwise text. Fields of the server that this version does not know are in ``model_extra``.

    Raises
    ------
    TypeError
        An unknown keyword.
    pydantic.ValidationError
        A field is missing or has the wrong type.
    """

    created: AuditFields | None = Field(
        default=None, validation_alias="Created", serialization_alias="Created", frozen=True
    )
    """The author and the time of the creation; set by Albert."""
    updated: AuditFields | None = Field(
        default=None, validation_alias="Updated", serialization_alias="Updated", frozen=True
    )
    """The author and the time of the last change; set by Albert."""
    id: str | None = None
    """Albert's id, such as ``FOL17``; set by Albert."""
    name: str
    """The folder's name."""
    folder_type: Annotated[
        ChatFolderType | str | None,
        Field(union_mode="left_to_right", validation_alias="type", serialization_alias="type"),
    ] = None
    """``root``, ``child``, or a value that Albert has added."""
    parent_id: str | None = Field(default=None, validation_alias="parentId", serialization_alias="parentId")
    """The id of the folder that this folder is in; None if it is in no other folder."""
