-- Which sessions have an unknown field?
-- extra contains the fields that Albert sends and that this release of syncd does not know.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT id, name, extra, last_message_at
FROM chat_sessions
WHERE CAST(extra AS text) LIKE '%' || {{text}} || '%'
ORDER BY last_message_at DESC NULLS LAST, id;
