-- How does the number of sessions grow?
-- Sessions that are live now, by the date of their creation. The view chat_sessions_daily also has deleted sessions.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT created_date, count(*) AS created, sum(count(*)) OVER (ORDER BY created_date) AS sessions
FROM chat_sessions
WHERE created_date IS NOT NULL
GROUP BY created_date
ORDER BY created_date;
