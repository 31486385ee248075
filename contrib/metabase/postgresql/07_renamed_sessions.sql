-- Which sessions were renamed, from what to what?
-- renamed_at is the time of the pass that found the new name, at most one pass after the change. || '' prevents SQLite from reading the rows of a large mirror in the order of their ids.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT session_id, old_name, name AS new_name, updated_by_name, valid_from AS renamed_at
FROM (
    SELECT session_id, seq, name, updated_by_name, valid_from,
           lag(name) OVER (PARTITION BY session_id || '' ORDER BY seq) AS old_name
    FROM chat_session_changes
) AS versions
WHERE old_name <> name
ORDER BY seq DESC;
