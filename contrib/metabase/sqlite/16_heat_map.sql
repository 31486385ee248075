-- At which hours of the week are sessions used?
-- By the last message of each session, in UTC. Weekday 0 is Sunday.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT CAST(strftime('%w', last_message_at) AS INTEGER) AS weekday, CAST(strftime('%H', last_message_at) AS INTEGER) AS hour, count(*) AS sessions
FROM chat_sessions
WHERE last_message_at IS NOT NULL
GROUP BY 1, 2
ORDER BY 1, 2;
