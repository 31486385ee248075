"""The first ten questions that analysts ask, as SQL: one source for `docs/queries.md` and `syncd browse`.

Most are the same text on both databases. Where SQL itself differs (what is now, how long is a span of time) a query
holds `{days_ago(7)}` or `{days(a, b)}`, and becomes two texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["sqlite", "postgresql"]

_DAYS_AGO = {
    "sqlite": r"strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-\1 days')",
    "postgresql": r"now() - interval '\1 days'",
}
_NOW = {"sqlite": "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')", "postgresql": "now()"}
_DAYS = {
    "sqlite": r"julianday(\2) - julianday(\1)",
    "postgresql": r"cast(extract(epoch FROM \2 - \1) / 86400.0 AS double precision)",
}
SINCE = "'2026-11-16T00:00:00.000000Z'"
"""What stands for the moment in `docs/queries.md`; `syncd browse` asks for it."""


@dataclass(frozen=True)
class Query:
    """A question and the SQL that answers it.

    Parameters
    ----------
    chart : tuple[str, str] | None
        The columns that label and measure the bars of its chart.
    """

    name: str
    question: str
    about: str
    template: str
    chart: tuple[str, str] | None = None

    @property
    def portable(self) -> bool:
        """Whether both databases take the same text."""
        return self.sql("sqlite") == self.sql("postgresql")

    def sql(self, dialect: Dialect, *, since: str = SINCE) -> str:
        """Return the text for a database, with `since` (SQL: a literal or a parameter) as the moment that it names."""
        text = re.sub(r"\{days_ago\((\d+)\)\}", lambda found: found.expand(_DAYS_AGO[dialect]), self.template)
        text = re.sub(r"\{days\(([\w.]+), ([\w.]+)\)\}", lambda found: found.expand(_DAYS[dialect]), text)
        return text.replace("{now}", _NOW[dialect]).replace("{since}", since).strip()


QUERIES = (
    Query(
        "freshness",
        "How fresh is the mirror?",
        "One row. Nothing in the mirror is newer than `last_complete_pass_at`, but for what the queue itself created "
        "or deleted.",
        """
SELECT last_complete_pass_at, age_seconds, live_sessions, missing_sessions, deleted_sessions, quarantined_items
FROM mirror_freshness
""",
    ),
    Query(
        "sessions_per_day",
        "How many sessions were created each day?",
        "Of the sessions that are still live. Days are UTC on SQLite; on PostgreSQL they are days of the connection's "
        "time zone, so `SET TIME ZONE 'UTC'` first, or a zone of your own.",
        """
SELECT date(created_at) AS day, count(*) AS sessions
FROM chat_sessions
WHERE created_at IS NOT NULL
GROUP BY 1
ORDER BY 1 DESC
""",
        chart=("day", "sessions"),
    ),
    Query(
        "sessions_per_creator",
        "Who creates sessions?",
        "By id: two people may share a name, and a name may change.",
        """
SELECT created_by, max(created_by_name) AS name, count(*) AS sessions, max(created_at) AS last_created_at
FROM chat_sessions
GROUP BY created_by
ORDER BY sessions DESC, created_by
""",
        chart=("name", "sessions"),
    ),
    Query(
        "sessions_per_folder",
        "How many sessions are in each folder?",
        "`parent_id` is null for sessions that are in no folder.",
        """
SELECT parent_id, count(*) AS sessions, max(last_message_at) AS last_message_at
FROM chat_sessions
GROUP BY parent_id
ORDER BY sessions DESC, parent_id
""",
        chart=("parent_id", "sessions"),
    ),
    Query(
        "renamed_sessions",
        "Which sessions were renamed, from what to what?",
        "`renamed_at` is when syncd saw it: at most one pass after it happened.",
        """
SELECT session_id, old_name, name AS new_name, updated_by_name, renamed_at
FROM (
    SELECT session_id, name, updated_by_name, valid_from AS renamed_at,
           lag(name) OVER (PARTITION BY session_id ORDER BY valid_from) AS old_name
    FROM chat_session_history
) AS versions
WHERE old_name <> name
ORDER BY renamed_at DESC, session_id
""",
    ),
    Query(
        "deleted_last_week",
        "Which sessions were deleted in the last seven days?",
        "`deleted_at` is when syncd was sure of it. A session that was restored since is live again and not here.",
        """
SELECT id, name, source_session_id, created_by_name, deleted_at
FROM chat_sessions_all
WHERE deleted_at >= {days_ago(7)}
ORDER BY deleted_at DESC, id
""",
    ),
    Query(
        "stale_sessions",
        "Which live sessions has nobody written in for 90 days?",
        "A session without a message counts from its creation.",
        """
SELECT id, name, created_by_name, coalesce(last_message_at, created_at) AS last_used_at
FROM chat_sessions
WHERE coalesce(last_message_at, created_at) < {days_ago(90)}
ORDER BY last_used_at, id
""",
    ),
    Query(
        "duplicate_sources",
        "Which source ids do several live sessions carry?",
        "One row for each of those sessions. syncd names them in `source_sessions` as `conflict` and deletes none.",
        """
SELECT s.source_session_id, s.id, s.name, s.created_by_name, s.created_at
FROM chat_sessions AS s
JOIN (
    SELECT source_session_id FROM chat_sessions GROUP BY source_session_id HAVING count(*) > 1
) AS twice ON twice.source_session_id = s.source_session_id
ORDER BY s.source_session_id, s.created_at, s.id
""",
    ),
    Query(
        "changed_since",
        "What has changed since a moment?",
        "Put your moment in place of this one, in UTC and with the fraction. A job that runs again and again takes the "
        "largest `valid_from` that it has seen.",
        """
SELECT session_id, change, valid_from, name, status, updated_by_name
FROM chat_session_history
WHERE valid_from >= {since}
ORDER BY valid_from, session_id
""",
    ),
    Query(
        "time_in_state",
        "How long have sessions been in each state?",
        "The state is Albert's `status`, or `deleted`. It counts from when syncd first saw the session, so it knows of "
        "no time before the first pass.",
        """
SELECT state, count(*) AS sessions,
       round(avg(days) * 100) / 100 AS average_days, round(max(days) * 100) / 100 AS longest_days
FROM (
    SELECT session_id, state, sum({days(valid_from, until)}) AS days
    FROM (
        SELECT session_id, valid_from, coalesce(valid_to, {now}) AS until,
               CASE WHEN change = 'deleted' THEN 'deleted' ELSE coalesce(status, 'none') END AS state
        FROM chat_session_history
    ) AS versions
    GROUP BY session_id, state
) AS spans
GROUP BY state
ORDER BY sessions DESC, state
""",
        chart=("state", "sessions"),
    ),
)
