"""Types of ids, so that a type checker finds an id that is passed in the place of another."""

from __future__ import annotations

from typing import NewType

SessionId = NewType("SessionId", str)
"""The id that Albert gave to a session."""

SourceId = NewType("SourceId", str)
"""The external id that a session was created with."""

OperationId = NewType("OperationId", int)
"""The `id` of a row of `operations`."""

PassId = NewType("PassId", int)
"""The `id` of a row of `passes`."""
