-- Do people return after their first month?
-- cohort is the month of a person's first session; people of that cohort created a session in month.
-- Written by make docs from syncd/mirror/read/questions.py.
WITH activity AS (
    SELECT DISTINCT created_by, substr(created_date, 1, 7) AS month
    FROM chat_sessions_all
    WHERE created_by IS NOT NULL AND created_date IS NOT NULL
), cohorts AS (
    SELECT created_by, min(month) AS cohort FROM activity GROUP BY created_by
)
SELECT cohorts.cohort, activity.month, count(*) AS people
FROM activity JOIN cohorts ON cohorts.created_by = activity.created_by
GROUP BY cohorts.cohort, activity.month
ORDER BY cohorts.cohort, activity.month;
