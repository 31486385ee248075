"""The types of the queue that more than one of its modules needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from syncd.records.enums import OperationKind, OperationState
from syncd.records.ids import OperationId, SessionId, SourceId


class LeaseLostError(Exception):
    """The claim of an operation is not valid any more: its former holder must not finish it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A claimed operation.

    `state` is `running`, or `unknown` when the claim is for a look-up only. `target_session_id` is the session that an
    operation by source id was found to mean. `fence` distinguishes this claim from every other one.

    The settle time of an unknown operation began at `settle_us` of the monotonic clock of `settle_machine`, if
    `settle_for` is its `unknown_since`. A process of an older release writes `unknown_since` alone.
    """

    id: OperationId
    kind: OperationKind
    source_session_id: SourceId | None
    session_id: SessionId | None
    name: str | None
    parent_id: str | None
    state: OperationState
    attempts: int
    fence: int
    target_session_id: SessionId | None
    unknown_since: datetime | None
    lookups: int
    last_error: str | None
    settle_machine: str | None = None
    settle_us: int | None = None
    settle_for: datetime | None = None

    @property
    def source_id(self) -> SourceId:
        """The source id of an operation that names one."""
        return SourceId(self.source_session_id or "")


FIELDS = tuple(Operation.__dataclass_fields__)
"""The columns of `operations` that a claim reads."""


@dataclass(frozen=True, slots=True)
class DueOperation:
    """An operation that is due.

    `blocked_by` is an earlier operation on the same key that is not over. `free` means that no other replica claims an
    operation on this key at the same time.
    """

    operation: Operation
    blocked_by: OperationId | None
    free: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """The result of a claim.

    `more` means that the claim ended at its limit of blocked operations: there may be others that are due.
    """

    operations: list[Operation]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait that syncd decided: `since` is the shared clock at that moment."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Success:
    """The values to write for a claimed operation that succeeded; `at` as `clock.utc_text` writes it."""

    operation: Operation
    session_id: SessionId | None
    at: str
    note: str | None
    status: int | None


@dataclass(frozen=True, slots=True)
class Abandoned:
    """An operation whose holder is gone, which became `unknown`."""

    id: OperationId
    source_session_id: SourceId | None


@dataclass(frozen=True, slots=True)
class Blocked:
    """An operation that has a blocker: `before` is the blocker in its row, `current` is its present blocker."""

    id: OperationId
    before: OperationId
    current: OperationId | None
