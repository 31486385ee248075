-- A role that reads the mirror and nothing else, for analysts and dashboards.
--
--   psql "$ADMIN_URL" -v readers=syncd_readers -v schema=public -f config/postgresql-readers.sql
--
-- Run it as a role that owns syncd's tables and may create roles. It may be run again. Then create a login for each
-- person, with limits, because PostgreSQL does not inherit settings from a group. A query that runs for hours prevents
-- PostgreSQL from removing the old rows that passes leave.
--
--   CREATE ROLE ada LOGIN PASSWORD '...' IN ROLE syncd_readers;
--   ALTER ROLE ada SET statement_timeout = '10min';
--   ALTER ROLE ada SET idle_in_transaction_session_timeout = '1min';
\set ON_ERROR_STOP on
BEGIN;
SELECT format('CREATE ROLE %I NOLOGIN', :'readers')
WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :'readers') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"readers";
GRANT SELECT ON
    :"schema".chat_sessions,
    :"schema".chat_sessions_all,
    :"schema".chat_session_history,
    :"schema".chat_session_changes,
    :"schema".chat_sessions_daily,
    :"schema".chat_folders,
    :"schema".mirror_freshness,
    :"schema".passes,
    :"schema".operations,
    :"schema".source_sessions,
    :"schema".quarantine
TO :"readers";
COMMIT;
