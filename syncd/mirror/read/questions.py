"""Twenty questions of analysts: one source for `docs/queries.md`, `syncd browse` and `contrib/metabase`.

Tests run each of them on both databases and compare the answers with the stand-in server's data.
"""

from __future__ import annotations

from syncd.mirror.read.queries import Query

QUERIES = (
    Query(
        "adoption_by_week",
        "How does adoption develop, week by week?",
        "Sessions by the week of their creation, deleted ones included, and the people who created them. A week begins "
        "on Monday.",
        """
SELECT {week(created_date)} AS week, count(*) AS sessions, count(DISTINCT created_by) AS people
FROM chat_sessions_all
WHERE created_date IS NOT NULL
GROUP BY 1
ORDER BY 1
""",
        chart=("week", "sessions"),
    ),
    Query(
        "active_users",
        "How many people are active each month?",
        "By the last message of each session. A session counts only in the month of its newest message.",
        """
SELECT substr(last_message_date, 1, 7) AS month, count(DISTINCT created_by) AS people, count(*) AS sessions
FROM chat_sessions_all
WHERE last_message_date IS NOT NULL
GROUP BY 1
ORDER BY 1
""",
        chart=("month", "people"),
    ),
    Query(
        "retention",
        "Do people return after their first month?",
        "`cohort` is the month of a person's first session; `people` of that cohort created a session in `month`.",
        """
WITH activity AS (
    SELECT DISTINCT created_by, substr(created_date, 1, 7) AS month
    FROM chat_sessions_all
    WHERE created_by IS NOT NULL AND created_date IS NOT NULL
), cohorts AS (
    SELECT created_by, min(month) AS cohort FROM activity GROUP BY created_by
)
SELECT cohorts.cohort, activity.month, count(*) AS people
FROM activity JOIN cohorts ON cohorts.created_by = activity.created_by
GROUP BY cohorts.cohort, activity.month
ORDER BY cohorts.cohort, activity.month
""",
    ),
    Query(
        "sessions_per_folder",
        "How many sessions are in each folder?",
        "`folder` is null for sessions without a folder, and for a folder that Albert does not list.",
        """
SELECT folders.parent_id, chat_folders.path AS folder, folders.sessions, folders.last_message_at
FROM (
    SELECT parent_id, count(*) AS sessions, max(last_message_at) AS last_message_at
    FROM chat_sessions
    GROUP BY parent_id
) AS folders
LEFT JOIN chat_folders ON chat_folders.id = folders.parent_id
ORDER BY folders.sessions DESC, folders.parent_id
""",
        chart=("folder", "sessions"),
    ),
    Query(
        "automation_and_chat",
        "How much is automation, and how much is chat?",
        "By the month of creation, deleted sessions included.",
        """
SELECT substr(created_date, 1, 7) AS month, kind, count(*) AS sessions, count(DISTINCT created_by) AS people
FROM chat_sessions_all
WHERE created_date IS NOT NULL
GROUP BY 1, 2
ORDER BY 1, 2
""",
    ),
    Query(
        "duration",
        "How long do sessions last?",
        "The minutes from the creation of a session to its last message.",
        """
SELECT kind, count(*) AS sessions, round(avg(minutes)) AS average_minutes,
       sum(CASE WHEN minutes < 5 THEN 1 ELSE 0 END) AS under_5_minutes,
       sum(CASE WHEN minutes >= 5 AND minutes < 60 THEN 1 ELSE 0 END) AS under_an_hour,
       sum(CASE WHEN minutes >= 60 AND minutes < 1440 THEN 1 ELSE 0 END) AS under_a_day,
       sum(CASE WHEN minutes >= 1440 THEN 1 ELSE 0 END) AS a_day_or_more
FROM (
    SELECT kind, {minutes(created_at, last_message_at)} AS minutes
    FROM chat_sessions
    WHERE last_message_at >= created_at
) AS spans
GROUP BY kind
ORDER BY kind
""",
        chart=("kind", "average_minutes"),
    ),
    Query(
        "renamed_sessions",
        "Which sessions were renamed, from what to what?",
        "`renamed_at` is the time of the pass that found the new name, at most one pass after the change. `|| ''` "
        "prevents SQLite from reading the rows of a large mirror in the order of their ids.",
        """
SELECT session_id, old_name, name AS new_name, updated_by_name, valid_from AS renamed_at
FROM (
    SELECT session_id, seq, name, updated_by_name, valid_from,
           lag(name) OVER (PARTITION BY session_id || '' ORDER BY seq) AS old_name
    FROM chat_session_changes
) AS versions
WHERE old_name <> name
ORDER BY seq DESC
""",
    ),
    Query(
        "deleted_sessions",
        "Which sessions were deleted since a moment?",
        "`deleted_at` is the time at which syncd had confirmed the deletion. A session that was restored later is "
        "live again and not in this list.",
        """
SELECT id, name, source_session_id, created_by_name, deleted_at
FROM chat_sessions_all
WHERE deleted_at >= {since}
ORDER BY deleted_at DESC, id
""",
    ),
    Query(
        "stale_sessions",
        "Which live sessions have no message since a moment?",
        "For a session without a message, the time of its creation counts.",
        """
SELECT id, name, created_by_name, coalesce(last_message_at, created_at) AS last_used_at
FROM chat_sessions
WHERE coalesce(last_message_at, created_at) < {since}
ORDER BY last_used_at, id
""",
    ),
    Query(
        "growth",
        "How does the number of sessions grow?",
        "Sessions that are live now, by the date of their creation. The view `chat_sessions_daily` also has "
        "deleted sessions.",
        """
SELECT created_date, count(*) AS created, sum(count(*)) OVER (ORDER BY created_date) AS sessions
FROM chat_sessions
WHERE created_date IS NOT NULL
GROUP BY created_date
ORDER BY created_date
""",
        chart=("created_date", "created"),
    ),
    Query(
        "top_creators",
        "Who creates sessions?",
        "By the ids of people, because two people can have one name, and a name can change.",
        """
SELECT created_by, max(created_by_name) AS name, count(*) AS sessions, max(created_at) AS last_created_at
FROM chat_sessions
GROUP BY created_by
ORDER BY sessions DESC, created_by
""",
        chart=("name", "sessions"),
    ),
    Query(
        "alive_on_a_date",
        "How many sessions existed at a given time?",
        "Uses Albert's times, so it also answers for moments before the first pass. Sessions that were deleted "
        "before the first pass are unknown.",
        """
SELECT kind, count(*) AS sessions
FROM chat_sessions_all
WHERE created_at <= {since} AND (deleted_at IS NULL OR deleted_at > {since})
GROUP BY kind
ORDER BY kind
""",
        chart=("kind", "sessions"),
    ),
    Query(
        "as_of_counts",
        "What did the mirror contain at a moment?",
        "The versions that were current at that moment. A moment between two passes shows the state that the "
        "earlier pass had read.",
        """
SELECT status, kind, count(*) AS sessions
FROM chat_session_history
WHERE change <> 'deleted' AND valid_from <= {since} AND (valid_to IS NULL OR valid_to > {since})
GROUP BY status, kind
ORDER BY sessions DESC, status, kind
""",
    ),
    Query(
        "duplicate_sources",
        "Which source ids do several live sessions carry?",
        "One row for each of those sessions. In `source_sessions` these source ids have the state `conflict`; "
        "syncd deletes none of the sessions.",
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
        "funnel",
        "How many people go on after their first session?",
        "People who created at least the given number of sessions, deleted sessions included.",
        """
SELECT count(*) AS people,
       sum(CASE WHEN sessions >= 2 THEN 1 ELSE 0 END) AS at_least_2,
       sum(CASE WHEN sessions >= 10 THEN 1 ELSE 0 END) AS at_least_10,
       sum(CASE WHEN sessions >= 100 THEN 1 ELSE 0 END) AS at_least_100
FROM (
    SELECT created_by, count(*) AS sessions
    FROM chat_sessions_all
    WHERE created_by IS NOT NULL
    GROUP BY created_by
) AS creators
""",
    ),
    Query(
        "heat_map",
        "At which hours of the week are sessions used?",
        "By the last message of each session, in UTC. Weekday 0 is Sunday.",
        """
SELECT {weekday(last_message_at)} AS weekday, {hour(last_message_at)} AS hour, count(*) AS sessions
FROM chat_sessions
WHERE last_message_at IS NOT NULL
GROUP BY 1, 2
ORDER BY 1, 2
""",
    ),
    Query(
        "history_of_a_session",
        "What happened to one session?",
        "Each version, the oldest first, with the columns that it changed.",
        """
SELECT seq, change, changed_fields, valid_from, valid_to, name, parent_id, status, last_message_at, updated_by_name
FROM chat_session_changes
WHERE session_id = {session_id}
ORDER BY seq
""",
    ),
    Query(
        "changes_since",
        "What has changed since the last look?",
        "`seq` is in the order of commits. A reader that continues after the highest `seq` that it has read misses "
        "no change. Most changes are new messages; `changed_fields` distinguishes them from others.",
        """
SELECT seq, session_id, change, changed_fields, valid_from, name, status, updated_by_name
FROM chat_session_changes
WHERE seq > {seq}
ORDER BY seq
""",
    ),
    Query(
        "name_search",
        "Which sessions have a text in their name?",
        "Live sessions whose name contains a text, in upper or lower case. SQLite ignores the case of ASCII "
        "letters only.",
        """
SELECT id, name, created_by_name, last_message_at
FROM chat_sessions
WHERE lower(name) LIKE '%' || lower({text}) || '%'
ORDER BY last_message_at DESC NULLS LAST, id
""",
    ),
    Query(
        "search_in_extra",
        "Which sessions have an unknown field?",
        "`extra` contains the fields that Albert sends and that this release of syncd does not know.",
        """
SELECT id, name, extra, last_message_at
FROM chat_sessions
WHERE CAST(extra AS text) LIKE '%' || {text} || '%'
ORDER BY last_message_at DESC NULLS LAST, id
""",
    ),
)
