-- What has changed since the last look?
-- seq is in the order of commits. A reader that continues after the highest seq that it has read misses no change. Most changes are new messages; changed_fields distinguishes them from others.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT seq, session_id, change, changed_fields, valid_from, name, status, updated_by_name
FROM chat_session_changes
WHERE seq > CAST({{seq}} AS bigint)
ORDER BY seq;
