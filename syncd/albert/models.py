"""A chat session as Albert serves it; unknown fields and values are kept."""

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
    """Who did something and when. A time that cannot be read stays the text it was."""

    by: str | None = None
    by_name: str | None = Field(default=None, alias="byName")
    at: Annotated[datetime | str | None, Field(union_mode="left_to_right")] = None


class ChatSession(_Open):
    """One "Ask Albert" conversation, with Albert's ``id`` and the outside world's ``source_session_id``.

    Fields are populated by name or by the alias on the wire. ``status`` and ``kind`` are enum members where
    the value is a known one, else the text itself. Fields that this version does not know are in
    ``model_extra``.
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
