"""A chat session as Albert serves it. Unknown fields and values are kept."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Status(StrEnum):
    """The known values of ``ChatSession.status``."""

    ACTIVE = "active"
    INACTIVE = "inactive"


class ChatSessionKind(StrEnum):
    """The known values of ``ChatSession.kind``."""

    CHAT = "chat"
    AUTOMATION = "automation"


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", populate_by_name=True, validate_assignment=True)


class AuditFields(_Open):
    """The author and the time of a change. A time that cannot be read remains text."""

    by: str | None = None
    by_name: str | None = Field(default=None, alias="byName")
    at: Annotated[datetime | str | None, Field(union_mode="left_to_right")] = None


class ChatSession(_Open):
    """One conversation of "Ask Albert", with the ``id`` of Albert and an external ``source_session_id``.

    Fields are populated by name or by the alias on the wire. ``status`` and ``kind`` are enum members for known values,
    and text for others. Unknown fields are in ``model_extra``.

    Raises
    ------
    pydantic.ValidationError
        A required field is missing, or a value has the wrong type.
    """

    # In the order of the official SDK, so that a create is the same byte for byte.
    status: Annotated[Status | str | None, Field(union_mode="left_to_right")] = None
    created: AuditFields | None = Field(default=None, alias="Created", frozen=True)
    updated: AuditFields | None = Field(default=None, alias="Updated", frozen=True)
    id: str | None = None
    name: str
    parent_id: str | None = Field(default=None, alias="parentId")
    source_session_id: str = Field(alias="sourceSessionId")
    last_message_at: str | None = Field(default=None, alias="lastMessageAt")
    kind: Annotated[ChatSessionKind | str | None, Field(union_mode="left_to_right")] = None
    automation_id: str | None = Field(default=None, alias="automationId")
    automation_run_id: str | None = Field(default=None, alias="automationRunId")
