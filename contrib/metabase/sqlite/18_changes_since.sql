-- What has changed since the last look?
-- seq is in the order of commits: a reader that continues after the highest seq that it has seen misses nothing. Most changes are new messages; changed_fields tells them from the others.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT seq, session_id, change, changed_fields, valid_from, name, status, updated_by_name
FROM chat_session_changes
WHERE seq > {{seq}}
ORDER BY seq;
