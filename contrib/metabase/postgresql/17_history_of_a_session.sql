-- What happened to one session?
-- Each version, the oldest first, with the columns that it changed.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT seq, change, changed_fields, valid_from, valid_to, name, parent_id, status, last_message_at, updated_by_name
FROM chat_session_changes
WHERE session_id = {{session_id}}
ORDER BY seq;
