"""The times that commands write to PostgreSQL: those of its server, whatever the clock of the operator's host shows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from syncd.clock import SystemClock
from tests.cli.conftest import Call

TWO_HOURS = timedelta(hours=2)
QUEUED = """
INSERT INTO passes (state, started_at, finished_at) VALUES ('held', now(), now()), ('complete', now(), now());
INSERT INTO holds (pass_id, last_pass_id, reason, detail, opened_at, updated_at)
    VALUES (1, 1, 'too_many_gone', 'text', now(), now());
UPDATE passes SET hold_id = (SELECT id FROM holds) WHERE state = 'held';
INSERT INTO quarantine (reason, payload, seen_at, fingerprint) VALUES ('text', '{}', now(), 'f');
INSERT INTO quarantine (reason, payload, seen_at, resolved_at, fingerprint)
    VALUES ('text', '{}', now() - interval '90 days', now() - interval '90 days', 'old');
"""


def sql(url: str, statement: str) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return (
                [] if statement == QUEUED and await connection.execute(statement) else await connection.fetch(statement)
            )
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    "command",
    [
        ("prune", "--older-than", "30d"),
        ("tenant", "accept"),
        ("restore", "--in-place"),
        ("quarantine", "accept", "1"),
        ("deletions", "reject", "1"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("wrong_by", [TWO_HOURS, -TWO_HOURS], ids=["ahead", "behind"])
def test_decision_has_the_time_of_the_server(
    syncd: Call, postgres_url: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], wrong_by: timedelta
) -> None:
    sql(postgres_url, QUEUED)
    monkeypatch.setenv("SYNCD_DATABASE_URL", postgres_url)
    monkeypatch.setenv("ALBERT_BASE_URL", "https://b.example")
    monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + wrong_by)
    done = syncd(*command)
    assert (done.code, done.err) == (0, ""), done
    ((at, now),) = sql(postgres_url, "SELECT at, now() FROM operator_actions")
    assert abs(now - at) < TWO_HOURS / 2


def test_prune_keeps_rows_by_the_age_that_they_have_on_the_server(
    syncd: Call, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(postgres_url, QUEUED)
    monkeypatch.setenv("SYNCD_DATABASE_URL", postgres_url)
    monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + timedelta(days=100))
    assert sum(syncd("prune", "--older-than", "120d", "--dry-run", "--json").data["deleted"].values()) == 0
