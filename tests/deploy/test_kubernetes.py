"""The Kubernetes manifest: its probes exist, and its processes end gracefully. No cluster is needed."""

from typing import Any

import pytest
import yaml
from django.conf import settings

from tests.server import ROOT, ServerProcess

ITEMS = yaml.safe_load((ROOT / "deploy/kubernetes/voicecare.yaml").read_text())["items"]
DEPLOYMENTS = {item["metadata"]["name"]: item["spec"] for item in ITEMS if item["kind"] == "Deployment"}
PODS = [item["spec"]["template"]["spec"] for item in ITEMS if item["kind"] in ("Deployment", "Job")]
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def container(name: str) -> dict[str, Any]:
    only: dict[str, Any] = DEPLOYMENTS[name]["template"]["spec"]["containers"][0]
    return only


@pytest.mark.parametrize("probe", PROBES)
def test_each_probe_asks_an_address_that_answers(server: ServerProcess, probe: str):
    assert server.get(container("voicecare-web")[probe]["httpGet"]["path"])[0] == 200


def test_only_readiness_depends_on_the_database():
    """Otherwise an outage of the database would restart all web processes, in the middle of cached speech."""
    paths = [container("voicecare-web")[probe]["httpGet"]["path"] for probe in PROBES]
    assert paths == ["/healthz", "/healthz", "/readyz"]


def test_web_has_two_replicas_and_beat_one():
    assert DEPLOYMENTS["voicecare-web"]["replicas"] == 2
    assert DEPLOYMENTS["voicecare-web"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert DEPLOYMENTS["voicecare-beat"]["replicas"] == 1
    assert DEPLOYMENTS["voicecare-beat"]["strategy"]["type"] == "Recreate"
    assert [container(f"voicecare-{name}")["args"] for name in ("web", "worker", "beat")] == [
        ["web"],
        ["worker"],
        ["beat"],
    ]


def test_playing_speech_may_end():
    pod = DEPLOYMENTS["voicecare-web"]["template"]["spec"]
    before_sigterm = int(container("voicecare-web")["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= before_sigterm + settings.DRAIN_TIMEOUT_S + 5


def test_pods_run_without_privileges_and_write_to_volumes_only():
    assert len(PODS) == 4
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"]
        [only] = pod["containers"]
        assert only["securityContext"]["readOnlyRootFilesystem"]
        assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["mountPath"] for mount in only["volumeMounts"]} == {"/data", "/tmp"}
        assert {mount["name"] for mount in only["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_selectors_match_the_pods():
    for deployment in DEPLOYMENTS.values():
        assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    web = DEPLOYMENTS["voicecare-web"]["selector"]["matchLabels"]
    [service] = [item for item in ITEMS if item["kind"] == "Service"]
    assert service["spec"]["selector"] == web
