"""Runs one contender in this process: `python -m benchmarks.contenders NAME URL WHERE [OPTION=NUMBER...]`.

Prints one line of JSON. The imports of a contender are loaded before its timer starts.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.machine import CLIENT_CORE, pin
from benchmarks.timer import Timer

CONTENDERS = {
    "floor": ("benchmarks.floor", "floor"),
    "floor-pg": ("benchmarks.floor", "floor_postgres"),
    "floor-stages": ("benchmarks.floor", "floor_stages"),
    "same-rows": ("benchmarks.same_rows", "sqlite"),
    "same-rows-pg": ("benchmarks.same_rows", "postgres"),
    "fetch": ("benchmarks.bare", "fetch"),
    "bare-queue": ("benchmarks.bare", "queue"),
    "syncd": ("benchmarks.ours", "mirror"),
    "syncd-ahead": ("benchmarks.ours", "mirror_ahead"),
    "syncd-stages": ("benchmarks.ours", "mirror_stages"),
    "syncd-queue": ("benchmarks.ours", "queue"),
    "parse": ("benchmarks.ours", "parse"),
    "syncd-reconcile": ("benchmarks.ours", "reconcile"),
    "sdk-core": ("benchmarks.peers", "sdk_core"),
    "dlt": ("benchmarks.peers", "dlt_merge"),
    "singer": ("benchmarks.peers", "singer"),
}


def load(name: str) -> Callable[..., None]:
    """Import a contender."""
    module, function = CONTENDERS[name]
    contender: Callable[..., None] = getattr(importlib.import_module(module), function)
    return contender


def run(name: str, url: str, where: str, **options: int) -> dict[str, Any]:
    """Run a contender in this process."""
    timer = Timer()
    load(name)(timer, url, where, **options)
    return timer.result()


def main() -> None:
    """Run one contender and print its measurements."""
    name, url, where, *pairs = sys.argv[1:]
    pin(CLIENT_CORE)
    options = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    print(json.dumps(run(name, url, where, **options)))


if __name__ == "__main__":
    main()
