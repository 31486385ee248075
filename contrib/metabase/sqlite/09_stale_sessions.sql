-- Which live sessions have no message since a moment?
-- For a session without a message, the time of its creation counts.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT id, name, created_by_name, coalesce(last_message_at, created_at) AS last_used_at
FROM chat_sessions
WHERE coalesce(last_message_at, created_at) < {{since}}
ORDER BY last_used_at, id;
