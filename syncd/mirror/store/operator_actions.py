"""The log of operators' decisions: the person, the time, the action and its subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.mirror.schema.tables import operator_actions

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


def record(
    connection: Connection, *, now: datetime, by: str, action: str, subject: str, detail: str | None = None
) -> None:
    """Record an action in the caller's transaction, so that it is stored exactly if its effect is.

    Parameters
    ----------
    by : str
        The person: the option ``--by``, or the user of the operating system.
    action : str
        A verb, such as ``approve``, ``retry`` or ``release``.
    subject : str
        What the action was applied to, such as ``operation 12`` or ``pass 7``.
    detail : str | None
        What changed, such as the state before.
    """
    values = {"at": now, "by": by, "action": action, "subject": subject, "detail": detail}
    connection.execute(sa.insert(operator_actions).values(values))
