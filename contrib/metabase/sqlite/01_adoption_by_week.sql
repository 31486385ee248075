-- How does adoption develop, week by week?
-- Sessions by the week of their creation, deleted ones included, and the people who created them. A week begins on Monday.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT date(created_date, 'weekday 0', '-6 days') AS week, count(*) AS sessions, count(DISTINCT created_by) AS people
FROM chat_sessions_all
WHERE created_date IS NOT NULL
GROUP BY 1
ORDER BY 1;
