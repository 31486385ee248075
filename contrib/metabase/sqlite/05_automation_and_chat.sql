-- How much is automation, and how much is chat?
-- By the month of creation, deleted sessions included.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT substr(created_date, 1, 7) AS month, kind, count(*) AS sessions, count(DISTINCT created_by) AS people
FROM chat_sessions_all
WHERE created_date IS NOT NULL
GROUP BY 1, 2
ORDER BY 1, 2;
