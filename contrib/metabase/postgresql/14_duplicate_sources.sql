-- Which source ids do several live sessions carry?
-- One row for each of those sessions. In source_sessions these source ids have the state conflict; syncd deletes none of the sessions.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT s.source_session_id, s.id, s.name, s.created_by_name, s.created_at
FROM chat_sessions AS s
JOIN (
    SELECT source_session_id FROM chat_sessions GROUP BY source_session_id HAVING count(*) > 1
) AS twice ON twice.source_session_id = s.source_session_id
ORDER BY s.source_session_id, s.created_at, s.id;
