"""The states and kinds that rows of the mirror have. Each value is the text in the database."""

from __future__ import annotations

from enum import StrEnum


class OperationKind(StrEnum):
    """What an operation asks for."""

    CREATE = "create"
    DELETE = "delete"
    UPDATE = "update"


class OperationState(StrEnum):
    """The states of an operation; see docs/operations.md for the exits of each."""

    PENDING = "pending"
    RUNNING = "running"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


class PassState(StrEnum):
    """The states of a pass."""

    RUNNING = "running"
    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"
    HELD = "held"


class LinkState(StrEnum):
    """The states of a source id."""

    UNRESOLVED = "unresolved"
    LINKED = "linked"
    MISSING = "missing"
    CONFLICT = "conflict"


class VersionChange(StrEnum):
    """What made a version of a session."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    RESTORED = "restored"


class FolderListingState(StrEnum):
    """How the last listing of the folders ended."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
