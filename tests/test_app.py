"""The composition root: what one flow learns reaches the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import LogCapture

from syncd.albert_session import CurrentSettings, open_session
from syncd.app import logged_retries, open_flows
from syncd.clock import SystemClock
from syncd.errors import SettingsError
from syncd.push.outage import DISTINCT
from syncd.records.ids import OperationId
from syncd.sandbox import Sandbox, serve
from syncd.settings import load
from tests.helpers.certificates import make_certificate
from tests.helpers.logs import capturing_logger
from tests.settings.helpers import SECRET, env_file, pipe


async def test_mirrored_page_shows_the_queue_that_albert_answers(tmp_path: Path) -> None:
    sandbox = Sandbox(3)
    async with serve(sandbox):
        given = {
            "ALBERT_BASE_URL": sandbox.url, "ALBERT_TOKEN": sandbox.token,
            "SYNCD_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'syncd.db'}",
        }  # fmt: skip
        log = capturing_logger(LogCapture())
        counts: list[int] = []
        async with open_flows(
            load(given).settings,
            command="test",
            log=log,
            retries=logged_retries(5, log),
            on_page=lambda now: counts.append(now["seen"]),
        ) as flows:
            outage = flows.push._brake._outage
            moment = flows.clock.monotonic()
            verdicts = [outage.note_failure(OperationId(operation), moment) for operation in range(DISTINCT)]
            assert verdicts[-1].is_outage, "nothing has got an answer from Albert yet"
            assert (await flows.pull.run()).state == "complete"
            assert not outage.note_failure(OperationId(DISTINCT), flows.clock.monotonic()).is_outage
        assert counts[-1] == 3


def test_secret_of_a_pipe_is_kept_and_one_of_a_file_is_read_again(tmp_path: Path) -> None:
    with pipe(SECRET) as token:
        current = CurrentSettings(load({"ALBERT_TOKEN_FILE": str(token)}).settings)
        assert current.secret("albert_token")() == SECRET
    file = env_file(tmp_path, "old", "token")
    current = CurrentSettings(load({"ALBERT_TOKEN_FILE": str(file)}).settings)
    file.write_text("new")
    assert current.secret("albert_token")() == "new"


def test_ca_file_that_lost_its_certificate_after_the_check_is_a_problem_of_the_settings(tmp_path: Path) -> None:
    ca = make_certificate(tmp_path).ca
    settings = load({"ALBERT_TOKEN": "t", "SYNCD_CA_FILE": str(ca)}).settings
    ca.write_text("")
    with pytest.raises(SettingsError, match=f"SYNCD_CA_FILE='{ca}': the CA file .*; check with: syncd config"):
        open_session(CurrentSettings(settings), SystemClock())
