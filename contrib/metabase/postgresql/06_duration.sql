-- How long do sessions last?
-- The minutes from the creation of a session to its last message.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT kind, count(*) AS sessions, round(avg(minutes)) AS average_minutes,
       sum(CASE WHEN minutes < 5 THEN 1 ELSE 0 END) AS under_5_minutes,
       sum(CASE WHEN minutes >= 5 AND minutes < 60 THEN 1 ELSE 0 END) AS under_an_hour,
       sum(CASE WHEN minutes >= 60 AND minutes < 1440 THEN 1 ELSE 0 END) AS under_a_day,
       sum(CASE WHEN minutes >= 1440 THEN 1 ELSE 0 END) AS a_day_or_more
FROM (
    SELECT kind, CAST(extract(epoch FROM last_message_at - created_at) / 60 AS double precision) AS minutes
    FROM chat_sessions
    WHERE last_message_at >= created_at
) AS spans
GROUP BY kind
ORDER BY kind;
