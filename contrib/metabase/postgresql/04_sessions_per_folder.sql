-- How many sessions are in each folder?
-- folder is null for sessions without a folder, and for a folder that Albert does not list.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT folders.parent_id, chat_folders.path AS folder, folders.sessions, folders.last_message_at
FROM (
    SELECT parent_id, count(*) AS sessions, max(last_message_at) AS last_message_at
    FROM chat_sessions
    GROUP BY parent_id
) AS folders
LEFT JOIN chat_folders ON chat_folders.id = folders.parent_id
ORDER BY folders.sessions DESC, folders.parent_id;
