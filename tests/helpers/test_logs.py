"""The captured events do not depend on what ran in the process before."""

from __future__ import annotations

import logging

import structlog
from structlog.testing import LogCapture

from tests.helpers.logs import capturing_logger


def test_events_below_the_level_that_a_command_has_configured_are_kept() -> None:
    log, before = LogCapture(), structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        capturing_logger(log).debug("page.mirrored")
    finally:
        structlog.configure(**before)
    assert [entry["event"] for entry in log.entries] == ["page.mirrored"]
