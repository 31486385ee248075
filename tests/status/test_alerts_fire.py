"""promtool runs the alert rules: each fires in its case after its time, and not when all is well."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from tests.status.helpers import served

RULES = Path(__file__).resolve().parents[2] / "config/prometheus-alerts.yaml"
PROMTOOL = shutil.which("promtool")
PROBLEM = 'syncd_problems{code="'
FAILED, TAKEN = (f'syncd_requests_total{{outcome="{outcome}"}}' for outcome in ("5xx", "2xx"))
CASES: list[tuple[str, int, dict[str, str], dict[str, str]]] = [
    ("SyncdDown", 25, {'syncd_mirror_info{origin="o"}': "1x10"}, {'syncd_mirror_info{origin="o"}': "1x90"}),
    ("SyncdAbsent", 16, {"another_metric": "1x90"}, {"syncd_mirror_info": "1x90"}),
    ("SyncdWorkFailing", 3, {f'{PROBLEM}work_failing"}}': "1x90"}, {f'{PROBLEM}work_failing"}}': "0x90"}),
    ("SyncdNeedsYou", 31, {f'{PROBLEM}deletions_held"}}': "1x90"}, {f'{PROBLEM}deletions_held"}}': "1x20 0x70"}),
    ("SyncdLoopStalled", 3, {"syncd_stalled_loops": "1x90"}, {"syncd_stalled_loops": "0x90"}),
    ("SyncdMirrorStale", 22, {"syncd_mirror_age_seconds": "0+60x90"}, {"syncd_mirror_age_seconds": "959x90"}),
    ("SyncdMirrorStale", 6, {"syncd_mirror_age_seconds": " ".join(["Inf"] * 90)}, {"syncd_mirror_age_seconds": "0x90"}),
    (
        "SyncdMirrorStale",
        22,
        {"syncd_mirror_age_seconds": "0+60x90", "syncd_pass_held": "0x90"},
        {"syncd_mirror_age_seconds": "0+60x90", "syncd_pass_held": "1x90"},
    ),
    ("SyncdCredentialsRefused", 3, {"syncd_credentials_refused": "1x90"}, {"syncd_credentials_refused": "0x90"}),
    ("SyncdPassHeld", 1, {"syncd_pass_held": "1x90"}, {"syncd_pass_held": "0x90"}),
    (
        "SyncdOperationsDead",
        1,
        {'syncd_operations{state="dead"}': "2x90"},
        {'syncd_operations{state="pending"}': "2x90"},
    ),
    (
        "SyncdOperationsUnknown",
        31,
        {'syncd_operations{state="unknown"}': "1x90"},
        {'syncd_operations{state="unknown"}': "1x20 0x70"},
    ),
    (
        "SyncdQueueStuck",
        22,
        {"syncd_oldest_due_operation_seconds": "0+60x90"},
        {"syncd_oldest_due_operation_seconds": "900x90"},
    ),
    ("SyncdQuarantine", 61, {"syncd_quarantined_items": "1x90"}, {"syncd_quarantined_items": "1x50 0x40"}),
    (
        "SyncdSourceConflicts",
        61,
        {'syncd_source_sessions{state="conflict"}': "1x90"},
        {'syncd_source_sessions{state="missing"}': "1x90"},
    ),
    ("SyncdDatabaseWaiting", 6, {"syncd_database_waiting": "1x90"}, {"syncd_database_waiting": "1x3 0x87"}),
    ("SyncdWalGrowing", 12, {"syncd_wal_growing_seconds": "0+60x90"}, {"syncd_wal_growing_seconds": "600x90"}),
    ("SyncdAlbertFailing", 40, {FAILED: "0+30x90", TAKEN: "0+70x90"}, {FAILED: "0+10x90", TAKEN: "0+90x90"}),
]
"""An alert, the minute at which it fires, the series that it is for, and series of a syncd that needs no person."""
TOLD_BY_ALL = {
    "SyncdDown", "SyncdWorkFailing", "SyncdNeedsYou", "SyncdMirrorStale", "SyncdPassHeld", "SyncdOperationsDead",
    "SyncdOperationsUnknown", "SyncdQueueStuck", "SyncdQuarantine", "SyncdSourceConflicts",
}  # fmt: skip
"""What each replica reads from the one database; of the rest each speaks for itself."""
pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="no promtool; on Debian it is in the package prometheus")


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROMTOOL), *arguments], input=given, capture_output=True, text=True, check=False)


def alert_test(alert: str, minute: int, series: dict[str, str], *, fires: int) -> dict[str, Any]:
    firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    expected = [{"labels": "{}", "value": fires}]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{minute}m", "exp_samples": expected}],
    }


def test_each_alert_fires_in_its_case_and_not_when_all_is_well(tmp_path: Path) -> None:
    named = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert {alert for alert, *_ in CASES} == named
    tests = [alert_test(alert, minute, bad, fires=1) for alert, minute, bad, _ in CASES]
    tests += [alert_test(alert, minute, well, fires=0) for alert, minute, _, well in CASES]
    play(tests, tmp_path)


def test_alert_about_the_mirror_fires_once_and_alert_about_a_replica_once_for_each(tmp_path: Path) -> None:
    tests = []
    for alert, minute, bad, _ in CASES:
        (name, values), *more = bad.items()
        if more or alert == "SyncdAbsent":
            continue  # these are about all of them
        name, _, labels = name.rstrip("}").partition("{")
        of = {
            f'{name}{{{labels}{"," * bool(labels)}tenant="{tenant}",instance="{tenant}{number}"}}': values
            for tenant in "ab"
            for number in "123"
        }
        tests.append(alert_test(alert, minute, of, fires=2 if alert in TOLD_BY_ALL else 6))
    play(tests, tmp_path)


def play(tests: list[dict[str, Any]], folder: Path) -> None:
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


async def test_metrics_are_named_as_prometheus_wants_them(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=3) as s:
        await s.harness.one_pass()
        s.metrics.observe_request("GET", 200, 0.1)
        text = (await s.ask("/metrics")).text
    done = await anyio.to_thread.run_sync(lambda: promtool("check", "metrics", given=text))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
