"""docs/monitoring.md has every metric and every kind of incident, and no other."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics import MetricWrapperBase

from usage.models import Incident
from voicecare.core import metrics

PAGE = (Path(__file__).resolve().parents[3] / "docs/monitoring.md").read_text()


def exported_names() -> set[str]:
    """Return the names of our metrics as `/metrics` shows them: counters end with _total."""
    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    return {
        family.name + ("_total" if isinstance(metric, Counter) else "")
        for metric in found
        for family in metric.collect()
    }


def first_columns(heading: str) -> list[str]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_the_names_are_those_of_the_metrics_page():
    registry = CollectorRegistry()
    counter = Counter("voicecare_example", "An example.", registry=registry)
    names = [sample.name for family in counter.collect() for sample in family.samples]
    assert "voicecare_example_total" in names
    assert {"voicecare_speeches_total", "voicecare_tasks"} <= exported_names()


def test_every_metric_is_documented_once():
    documented = first_columns("Metrics")
    assert sorted(documented) == sorted(exported_names())


def test_every_kind_of_incident_is_documented_once():
    assert sorted(first_columns("Alerts")) == sorted(Incident.Kind.values)


@pytest.mark.parametrize("heading", ["Metrics", "Alerts"])
def test_every_row_says_what_to_do(heading: str):
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `\w+` \|.*$", section, re.MULTILINE)
    assert rows
    assert all(len(cell.strip()) > 2 for row in rows for cell in row.strip("|").split(" | "))
