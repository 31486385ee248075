"""A migration comes under a daemon of the release before: it goes on, and a new one joins it.

There is no release yet, so that the daemon of today stands for it, under a migration that is made up here: what a
migration may do to those who run. From the first tag `v*` on, that release's own code runs under today's migrations.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.schema import migrate
from syncd.mirror.schema.revisions import HEAD, REVISIONS, scripts
from syncd.sandbox import Habits, Sandbox, serve
from tests.helpers.postgres_server import PostgresServer, in_thread
from tests.helpers.replicas import ROOT, Replicas, running_replicas, until

MADE_UP = """
from alembic import op
import sqlalchemy as sa

revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None


def upgrade():
    for table in ("sessions", "session_versions", "passes", "operations", "source_sessions", "pages"):
        op.add_column(table, sa.Column("of_the_next_release", sa.Text(), nullable=True))
    op.create_table("of_the_next_release", sa.Column("id", sa.BigInteger(), primary_key=True))
    op.create_index("ix_of_the_next_release", "operations", ["of_the_next_release"])
    op.get_bind().exec_driver_sql(
        "CREATE OR REPLACE VIEW mirror_freshness AS SELECT was.*, 1 AS of_the_next_release FROM ({freshness}) AS was"
    )
"""


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=False, capture_output=True)
    return done.stdout if done.returncode == 0 else b""


def release_before(folder: Path) -> Path:
    """Unpack the newest release."""
    tags = git("tag", "--list", "v*", "--merged", "HEAD", "--sort=-v:refname").decode().split()
    if not tags:
        pytest.skip("there is no release yet (no tag v*)")
    with tarfile.open(fileobj=io.BytesIO(git("archive", tags[0]))) as archive:
        archive.extractall(folder, filter="data")
    return folder


async def goes_on(replicas: Replicas, url: str) -> None:
    """Work the queue and take a pass, after the migration as before it."""
    await replicas.queue_operations(40)
    await replicas.drained()
    await replicas.judge(40)
    passes = await replicas.database.read(lambda c: c.exec_driver_sql("SELECT max(id) FROM passes").scalar_one())
    complete = f"SELECT count(*) FROM passes WHERE state = 'complete' AND id > {passes}"
    async with Database(sa.make_url(url), busy_timeout=10) as other:
        while not await other.read(lambda c: c.exec_driver_sql(complete).scalar()):
            pass
    assert not any(replica.saw("loop.failed") or replica.saw("operation.failed") for replica in replicas.processes)


async def test_daemon_continues_after_the_migration_of_the_next_release(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Sandbox(40, habits=Habits(page_size=20))
    async with serve(server), running_replicas(tmp_path, server, postgres_url, SYNCD_PASS_INTERVAL="0.2") as replicas:
        await replicas.started(1)
        await until(lambda: replicas.processes[0].saw("pass.complete"), why="a pass")
        query = "SELECT pg_get_viewdef('mirror_freshness'::regclass)"
        freshness = await replicas.database.read(lambda c: c.exec_driver_sql(query).scalar_one())
        shutil.copytree(scripts(), tmp_path / "migrations")
        made_up = MADE_UP.format(head=HEAD, freshness=freshness.strip().rstrip(";").replace("\n", " "))
        (tmp_path / "migrations/versions/9999_made_up.py").write_text(made_up)
        monkeypatch.setattr(migrate, "scripts", lambda: tmp_path / "migrations")
        monkeypatch.setattr(migrate, "REVISIONS", (*REVISIONS, "9999"))
        monkeypatch.setattr(migrate, "HEAD", "9999")
        async with Database(sa.make_url(postgres_url), busy_timeout=30) as database:
            assert await database.write(migrate.migrate) == (HEAD, "9999")
        await goes_on(replicas, postgres_url)


async def test_previous_release_continues_after_the_migrations_of_this_release(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    before = release_before(tmp_path / "before")
    name = await in_thread(postgres.empty)
    url = postgres.url(name)
    server = Sandbox(40, habits=Habits(page_size=20))
    try:
        async with serve(server), running_replicas(tmp_path, server, url, SYNCD_PASS_INTERVAL="0.2") as replicas:
            old = replicas.start(PYTHONPATH=str(before))
            await until(lambda: old.saw("pass.complete"), why="a pass")
            await replicas.database.write(migrate.migrate)
            await replicas.started(1)
            await goes_on(replicas, url)
            assert old.process.poll() is None
    finally:
        await in_thread(lambda: postgres.drop(name))
