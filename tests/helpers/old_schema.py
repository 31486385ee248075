"""A database at the schema of an earlier revision, for the tests of a migration."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from syncd.mirror.schema.revisions import scripts


def upgrade(connection: Connection, revision: str) -> None:
    """Bring the schema to a revision, in the transaction of the connection."""
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
