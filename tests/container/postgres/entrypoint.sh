#!/bin/sh
# A cluster for POSTGRES_USER with the password of POSTGRES_PASSWORD_FILE and the database POSTGRES_DB, as the official
# image makes it.
set -eu
PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data password=/tmp/password
install -m 0400 -o postgres "$POSTGRES_PASSWORD_FILE" "$password"
install -d -m 0700 -o postgres "$data"
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if [ ! -e "$data/PG_VERSION" ]; then
    as_postgres initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile "$password" --auth scram-sha-256 --encoding UTF8
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | as_postgres postgres --single -D "$data" postgres
fi
exec setpriv --reuid postgres --regid postgres --clear-groups \
    "$(command -v postgres)" -D "$data" -c listen_addresses='*'
