-- The live sessions are those whose current version is not a deletion, and mirror_freshness counts them.
SELECT live.sessions, present.sessions AS current_versions, freshness.live_sessions
FROM (SELECT count(*) AS sessions FROM {{ source('syncd', 'chat_sessions') }}) AS live
CROSS JOIN (
    SELECT count(*) AS sessions FROM {{ source('syncd', 'chat_session_history') }}
    WHERE valid_to IS NULL AND change <> 'deleted'
) AS present
CROSS JOIN {{ source('syncd', 'mirror_freshness') }} AS freshness
WHERE live.sessions <> present.sessions OR live.sessions <> freshness.live_sessions
