-- At which hours of the week are sessions used?
-- By the last message of each session, in UTC. Weekday 0 is Sunday.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT CAST(extract(dow FROM last_message_at AT TIME ZONE 'UTC') AS integer) AS weekday, CAST(extract(hour FROM last_message_at AT TIME ZONE 'UTC') AS integer) AS hour, count(*) AS sessions
FROM chat_sessions
WHERE last_message_at IS NOT NULL
GROUP BY 1, 2
ORDER BY 1, 2;
