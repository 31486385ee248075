-- Each version ends when the next one begins, and the last one has no end.
SELECT session_id, seq, valid_from, valid_to, next_from
FROM (
    SELECT session_id, seq, valid_from, valid_to,
           lead(valid_from) OVER (PARTITION BY session_id ORDER BY seq) AS next_from
    FROM {{ source('syncd', 'chat_session_changes') }}
) AS versions
WHERE valid_to IS DISTINCT FROM next_from OR valid_to < valid_from
