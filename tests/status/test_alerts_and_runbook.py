"""Dashboards, alerts and the runbook name only existing metrics and events, and all of them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from syncd.records.enums import HoldState, PassReason, PassState
from tests.status.helpers import served

ROOT = Path(__file__).resolve().parents[2]
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "config/prometheus-alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "config/grafana-dashboard.json").read_text())
RUNBOOK = (ROOT / "docs/operations.md").read_text()
HEADINGS = re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE)
LOUD = {"warning", "error", "exception", "critical"}


def expressions() -> list[str]:
    return [rule["expr"] for rule in ALERTS] + [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
    ]


async def test_every_metric_and_label_value_in_queries_exists(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=3) as s:
        await s.harness.one_pass()
        s.metrics.observe_request("GET", 200, 0.1)
        families = list(text_string_to_metric_families((await s.ask("/metrics")).text))
    samples = [sample for family in families for sample in family.samples]
    names = {sample.name for sample in samples}
    labels = {(sample.name, label, value) for sample in samples for label, value in sample.labels.items()}
    asked = {name for expression in expressions() for name in re.findall(r"\bsyncd_\w+", expression)}
    assert asked <= names
    for expression in expressions():
        for name, label, values in re.findall(r'(syncd_\w+)\{(state|change)=~?"([^"]*)"\}', expression):
            for value in values.split("|"):
                assert (name, label, value) in labels, expression


async def test_every_metric_is_on_the_dashboard_or_in_an_alert(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=3) as s:
        await s.harness.one_pass()
        families = list(text_string_to_metric_families((await s.ask("/metrics")).text))
    used = " ".join(expressions())
    own = [family.name for family in families if family.name.startswith("syncd_")]  # the others are the client's
    assert [name for name in own if name not in used] == []


def test_every_alert_has_its_entry_and_links_to_it() -> None:
    for rule in ALERTS:
        assert rule["alert"] in HEADINGS
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def loud_events() -> set[str]:
    """Return the names of the events that the code logs as a warning or worse."""
    names = set()
    for file in (ROOT / "syncd").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOUD:
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and re.fullmatch(r"[a-z_]+\.[a-z_]+", str(first.value)):
                    names.add(str(first.value))
    return names


@pytest.mark.parametrize("event", sorted(loud_events() | {"source.conflict"}))
def test_every_event_that_may_need_a_person_has_its_entry(event: str) -> None:
    assert any(f"`{event}`" in heading for heading in HEADINGS)


@pytest.mark.parametrize("state", [*PassState, *HoldState])
def test_every_state_of_a_pass_and_of_a_hold_has_a_row_with_its_exit(state: str) -> None:
    section = RUNBOOK.partition("## Holds and their exits")[2].partition("\n## ")[0]
    (row,) = re.findall(rf"^\| `{state}` \| ([^|]+) \| ([^|]+) \|$", section, flags=re.MULTILINE)
    assert all(row)


@pytest.mark.parametrize("reason", PassReason)
def test_every_reason_of_a_pass_has_a_row_with_a_remedy(reason: str) -> None:
    assert len(re.findall(rf"^\| `{reason}` \| [^|]+ \| [^|]+ \|$", RUNBOOK, flags=re.MULTILINE)) == 1


def test_every_entry_of_the_runbook_is_an_existing_alert_or_event() -> None:
    known = {rule["alert"] for rule in ALERTS} | loud_events() | {"source.conflict"}
    for heading in HEADINGS:
        assert heading.rpartition(" ")[2].strip("`") in known, heading


def test_commands_in_the_runbook_exist() -> None:
    from syncd.cli import COMMANDS, cli  # noqa: PLC0415

    for command_line in re.findall(r"`(syncd [^`]+)`", RUNBOOK) + re.findall(
        r"^    (syncd .+)$", RUNBOOK, re.MULTILINE
    ):
        parts = command_line.split()
        assert parts[1] in COMMANDS, command_line
        command = cli.get_command(None, parts[1])  # type: ignore[arg-type]
        groups = getattr(command, "commands", {})
        assert not groups or parts[2] in groups, command_line


def test_links_inside_the_runbook_have_a_target() -> None:
    headings = re.findall(r"^##+ (.+)$", RUNBOOK, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= anchors
