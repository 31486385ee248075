-- Fails while the last complete pass is older than the variable syncd_max_age_seconds.
SELECT last_complete_pass_at, age_seconds
FROM {{ source('syncd', 'mirror_freshness') }}
WHERE age_seconds IS NULL OR age_seconds > {{ var('syncd_max_age_seconds', 3600) }}
