-- How many sessions existed at a given time?
-- Uses Albert's times, so it also answers for moments before the first pass. Sessions that were deleted before the first pass are unknown.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT kind, count(*) AS sessions
FROM chat_sessions_all
WHERE created_at <= CAST({{since}} AS timestamptz) AND (deleted_at IS NULL OR deleted_at > CAST({{since}} AS timestamptz))
GROUP BY kind
ORDER BY kind;
