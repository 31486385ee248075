"""What `syncd doctor` checks besides database and Albert: the disk, the folder, proxies, the base URL, the clock."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from datetime import datetime

    from syncd.settings import Settings

LITTLE_SPACE = 100_000_000
"""Free bytes below which a mirror in a file soon has to wait: a first pass of 100,000 sessions writes about as many."""
FEW_INODES = 100
"""Free files below which SQLite may not create its write-ahead log."""
CLOCK_DIFFERENCE = 60.0
"""Seconds by which clocks may differ without any effect."""
PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
API_PATH = "/api/v3"


@dataclass(frozen=True)
class Finding:
    """The result of one check: the verdict is `ok`, `warning` or `bad`; `fix` says how to fix it."""

    check: str
    verdict: str
    detail: str
    fix: str | None = None


def check_folder(file: Path) -> Iterator[Finding]:
    """Check that the folder of a database file can be written to, and has room."""
    from syncd.mirror.db.file_access import folder_refusal

    folder = file.absolute().parent
    if not folder.is_dir():
        return  # the check of the database reports it
    if not os.access(folder, os.W_OK | os.X_OK):  # SQLite creates its write-ahead log there
        yield Finding("folder", "bad", *folder_refusal(folder))
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < LITTLE_SPACE:
        detail = f"only {free // 1_000_000} MB are free in {folder}"
        yield Finding("disk", "warning", detail, "make room: writes wait while the disk is full; see: df -h")
    else:
        yield Finding("disk", "ok", f"{free // 1_000_000:,} MB are free in {folder}")
    if disk.f_files and disk.f_favail < FEW_INODES:
        detail = f"only {disk.f_favail} files can still be created in {folder}"
        yield Finding("inodes", "warning", detail, "remove files that are not needed; see: df -i")


def check_network(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the base URL, and name proxies that are set for other programs and ignored."""
    base = settings.albert_base_url
    if API_PATH in urlsplit(base).path:
        fix = f"set ALBERT_BASE_URL={base.partition(API_PATH)[0]}"
        yield Finding("base URL", "bad", f"ALBERT_BASE_URL contains {API_PATH}, which syncd adds by itself", fix)
    ignored = [name for name in PROXY_VARIABLES for spelling in (name, name.lower()) if environment.get(spelling)]
    if ignored and settings.syncd_proxy is None:
        detail = (
            f"{', '.join(dict.fromkeys(ignored))} is set and ignored: syncd uses a proxy only if SYNCD_PROXY names it"
        )
        yield Finding("proxy", "warning", detail, "set SYNCD_PROXY if Albert is reached through a proxy only")
    if settings.syncd_ca_file is not None:
        yield Finding("CA", "ok", f"SYNCD_CA_FILE={settings.syncd_ca_file} is trusted besides the system's CAs")


def check_clock(server_date: str | None, now: datetime) -> Iterator[Finding]:
    """Compare the clock with the `Date` of Albert's answer, which has whole seconds.

    syncd stays correct when clocks differ; logs and `age_seconds` are misleading.
    """
    from syncd.albert.answers import http_date

    answered = None if server_date is None else http_date(server_date)
    if answered is None:
        return
    difference = (now - answered).total_seconds()
    if abs(difference) > CLOCK_DIFFERENCE:
        direction = "ahead of" if difference > 0 else "behind"
        detail = f"the clock of this machine is {abs(difference):.0f} s {direction} Albert's"
        yield Finding("clock", "warning", detail, "set the clock, and run a time daemon (chrony, systemd-timesyncd)")
    else:
        yield Finding("clock", "ok", "it agrees with Albert's within a minute")
