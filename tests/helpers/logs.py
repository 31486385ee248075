"""The events that a test captures."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.testing import LogCapture


def capturing_logger(log: LogCapture) -> Any:
    """Return a logger that keeps every event.

    The settings of structlog are those of the process. A command that an earlier test called may have raised the level.
    """
    every = structlog.make_filtering_bound_logger(logging.DEBUG)
    return structlog.wrap_logger(None, processors=[log], wrapper_class=every)
