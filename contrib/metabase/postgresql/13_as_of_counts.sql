-- What did the mirror contain at a moment?
-- The versions that were current at that moment. A moment between two passes shows the state that the earlier pass had read.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT status, kind, count(*) AS sessions
FROM chat_session_history
WHERE change <> 'deleted' AND valid_from <= CAST({{since}} AS timestamptz) AND (valid_to IS NULL OR valid_to > CAST({{since}} AS timestamptz))
GROUP BY status, kind
ORDER BY sessions DESC, status, kind;
