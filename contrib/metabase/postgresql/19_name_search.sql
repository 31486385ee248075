-- Which sessions have a text in their name?
-- Live sessions whose name contains a text, in upper or lower case. SQLite ignores the case of ASCII letters only.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT id, name, created_by_name, last_message_at
FROM chat_sessions
WHERE lower(name) LIKE '%' || lower({{text}}) || '%'
ORDER BY last_message_at DESC NULLS LAST, id;
