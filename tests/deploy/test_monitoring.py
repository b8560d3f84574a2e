"""The Prometheus rules and the Grafana board name only metrics and labels that a running server has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.server import ROOT, ServerProcess
from voicecare.core import metrics

PROMETHEUS = ROOT / "deploy/prometheus"
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
SERIES = re.compile(r"\b(?:voicecare|process|python)_\w+")
GROUPING = re.compile(r"\bby \(([^)]*)\)")
SELECTOR = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
OF_PROMETHEUS = {"job", "instance", "le"}  # labels that Prometheus adds, and that of buckets


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    board = json.loads((ROOT / "deploy/grafana/voicecare.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def label_names() -> set[str]:
    found = [metric for metric in vars(metrics).values() if hasattr(metric, "_labelnames")]
    return {name for metric in found for name in metric._labelnames}


@pytest.fixture
def series(server: ServerProcess) -> set[str]:
    """The names of all series of the running server. A counter with labels is there before it has a value."""
    families = text_string_to_metric_families(server.get("/metrics")[1].decode())
    names = {family.name + suffix for family in families for suffix in SUFFIXES.get(family.type, ("",))}
    return {name for name in names if not name.endswith("_created")}


def test_every_metric_exists(series: set[str]):
    named = {name for expression in expressions() for name in SERIES.findall(expression)}
    assert named
    assert named <= series, named - series


def test_the_board_shows_every_metric_of_voicecare(series: set[str]):
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    ours = {re.sub("_(bucket|count|sum)$", "", name) for name in series if name.startswith("voicecare_")}
    assert {name for name in ours if name not in shown} == set()


def test_every_label_exists():
    known = label_names() | OF_PROMETHEUS
    for expression in expressions():
        grouping = {name.strip() for names in GROUPING.findall(expression) for name in names.split(",")}
        assert grouping | set(SELECTOR.findall(expression)) <= known, expression


def test_every_rule_says_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["description"].endswith(".")


def test_panels_do_not_overlap():
    board = json.loads((ROOT / "deploy/grafana/voicecare.json").read_text())
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("arguments", [("rules", "rules.yml"), ("config", "--syntax-only", "prometheus.yml")])
def test_prometheus_accepts_the_files(arguments: tuple[str, ...]):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")
    checked = subprocess.run(
        ["promtool", "check", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
