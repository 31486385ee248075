-- How does adoption develop, week by week?
-- Sessions by the week of their creation, deleted ones included, and the people who created them. A week begins on Monday.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT to_char(date_trunc('week', CAST(created_date AS date)), 'YYYY-MM-DD') AS week, count(*) AS sessions, count(DISTINCT created_by) AS people
FROM chat_sessions_all
WHERE created_date IS NOT NULL
GROUP BY 1
ORDER BY 1;
