-- Which sessions were deleted since a moment?
-- deleted_at is the time at which syncd had confirmed the deletion. A session that was restored later is live again and not in this list.
-- Written by make docs from syncd/mirror/read/questions.py.
SELECT id, name, source_session_id, created_by_name, deleted_at
FROM chat_sessions_all
WHERE deleted_at >= {{since}}
ORDER BY deleted_at DESC, id;
