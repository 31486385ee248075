-- Which sessions are about something?
-- Live sessions whose name contains a text, in any case. SQLite changes the case of ASCII letters only.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT id, name, created_by_name, last_message_at
FROM chat_sessions
WHERE lower(name) LIKE '%' || lower({{text}}) || '%'
ORDER BY last_message_at DESC NULLS LAST, id;
