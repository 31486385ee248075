-- How many people go on after their first session?
-- People who created at least the given number of sessions, deleted sessions included.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT count(*) AS people,
       sum(CASE WHEN sessions >= 2 THEN 1 ELSE 0 END) AS at_least_2,
       sum(CASE WHEN sessions >= 10 THEN 1 ELSE 0 END) AS at_least_10,
       sum(CASE WHEN sessions >= 100 THEN 1 ELSE 0 END) AS at_least_100
FROM (
    SELECT created_by, count(*) AS sessions
    FROM chat_sessions_all
    WHERE created_by IS NOT NULL
    GROUP BY created_by
) AS creators;
