-- Which live sessions have no message since a moment?
-- A session without a message counts from its creation.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT id, name, created_by_name, coalesce(last_message_at, created_at) AS last_used_at
FROM chat_sessions
WHERE coalesce(last_message_at, created_at) < {{since}}
ORDER BY last_used_at, id;
