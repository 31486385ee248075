-- How many people are active each month?
-- By the last message of each session. A session counts only in the month of its newest message.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT substr(last_message_date, 1, 7) AS month, count(DISTINCT created_by) AS people, count(*) AS sessions
FROM chat_sessions_all
WHERE last_message_date IS NOT NULL
GROUP BY 1
ORDER BY 1;
