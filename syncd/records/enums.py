"""The states and kinds that rows of the mirror have. Each value is the text in the database."""

from __future__ import annotations

from enum import StrEnum


class OperationKind(StrEnum):
    """The change that an operation requests."""

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


OPEN_STATES = (OperationState.PENDING, OperationState.RUNNING, OperationState.UNKNOWN)
"""The operations that syncd continues by itself."""
ACTIVE_STATES = (*OPEN_STATES, OperationState.DEAD)
"""The operations that are not over: each of them blocks the later ones on its key."""


class PassState(StrEnum):
    """The states of a pass."""

    RUNNING = "running"
    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"
    HELD = "held"


class PassReason(StrEnum):
    """Why a pass is not complete. Code acts on the value; people read `text` and the sentence in `passes.error`."""

    CREDENTIALS_REFUSED = "credentials_refused"
    OTHER_TENANT = "other_tenant"
    LISTING_REFUSED = "listing_refused"
    PAGE_FAILED = "page_failed"
    ALBERT_UNREACHABLE = "albert_unreachable"
    ALBERT_FAILING = "albert_failing"
    ANSWER_UNREADABLE = "answer_unreadable"
    PAGE_KEY_REFUSED = "page_key_refused"
    PAGE_KEY_REPEATED = "page_key_repeated"
    ITEM_WITHOUT_ID = "item_without_id"
    CEILING = "ceiling"
    CHECKPOINT_EXPIRED = "checkpoint_expired"
    KNOWN_SESSIONS_GONE = "known_sessions_gone"
    LISTING_EMPTY = "listing_empty"
    TOO_MANY_GONE = "too_many_gone"

    @property
    def text(self) -> str:
        """A phrase without any words of Albert's, for the status page."""
        return _PASS_REASONS[self]


_PASS_REASONS = {
    PassReason.CREDENTIALS_REFUSED: "Albert refuses the credentials",
    PassReason.OTHER_TENANT: "the credentials belong to another tenant",
    PassReason.LISTING_REFUSED: "Albert refuses the listing",
    PassReason.PAGE_FAILED: "a page could not be read",
    PassReason.ALBERT_UNREACHABLE: "Albert was not reached, or did not answer",
    PassReason.ALBERT_FAILING: "Albert answered with errors",
    PassReason.ANSWER_UNREADABLE: "an answer does not have the form of Albert's",
    PassReason.PAGE_KEY_REFUSED: "Albert refuses its own page key",
    PassReason.PAGE_KEY_REPEATED: "a page key was repeated",
    PassReason.ITEM_WITHOUT_ID: "an item had no readable id",
    PassReason.CEILING: "it reached its ceiling of pages or time",
    PassReason.CHECKPOINT_EXPIRED: "its checkpoint was too old",
    PassReason.KNOWN_SESSIONS_GONE: "Albert knows none of the sessions that were requested first",
    PassReason.LISTING_EMPTY: "the listing was empty",
    PassReason.TOO_MANY_GONE: "too many sessions are gone",
}


class HoldState(StrEnum):
    """The states of a hold. An operator can approve or reject it until it is closed."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    CLOSED = "closed"


HOLDS_IN_FORCE = (HoldState.OPEN, HoldState.APPROVED, HoldState.REJECTED)
"""The holds that later passes obey."""


class LinkState(StrEnum):
    """The states of a source id."""

    UNRESOLVED = "unresolved"
    LINKED = "linked"
    MISSING = "missing"
    CONFLICT = "conflict"


class FolderListingState(StrEnum):
    """How the last listing of the folders ended."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
