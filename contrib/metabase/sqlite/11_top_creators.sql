-- Who creates sessions?
-- By the ids of people, because two people can have one name, and a name can change.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT created_by, max(created_by_name) AS name, count(*) AS sessions, max(created_at) AS last_created_at
FROM chat_sessions
GROUP BY created_by
ORDER BY sessions DESC, created_by;
