"""What a run tells Ray's metrics, as the node's Prometheus endpoint shows it; the dashboard."""

import json
import os
import re
import subprocess
import sys

import pytest

from dcai_ray.cluster import metrics
from tests.conftest import REPOSITORY

GRAFANA = json.loads((REPOSITORY / "docs/grafana.json").read_text())
QUERIES = [target["expr"] for panel in GRAFANA["panels"] for target in panel["targets"]]
NAME = re.compile(r"\bray_dcai_ray_\w+")
ROUNDS = 1500


def named(text):
    return set(NAME.findall(text))


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """(run's folder, the last sample of each series) of a sampling in a process of its own."""
    folder = tmp_path_factory.mktemp("metrics")
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(REPOSITORY), "RAY_metrics_report_interval_ms": "1000"}
    run = folder / "geprüft"
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.scraped_run", folder / "features", run, str(ROUNDS)],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return run, {
        (name, frozenset(labels.items())): value
        for name, labels, value in json.loads(done.stdout.splitlines()[-1])
    }


def of(scraped, name, **labels):
    """The value of the one series with that name and those labels."""
    wanted = labels.items()
    (value,) = [v for (n, found), v in scraped[1].items() if n == name and wanted <= found]
    return value


@pytest.mark.ray
def test_the_endpoint_shows_what_the_record_says(scraped):
    run, _ = scraped
    record = json.loads((run / "run.json").read_text())["sampling"]
    labels = {"run": "gepr%C3%BCft", "utility": "knn"}
    start = "ray_dcai_ray_sampling_"
    assert of(scraped, f"{start}rounds", **labels) == record["rounds"] >= ROUNDS
    assert of(scraped, f"{start}settled_ratio", **labels) == record["settled"]
    assert of(scraped, f"{start}max_stderr", **labels) == record["max_stderr"]
    assert of(scraped, f"{start}workers_lost", **labels) == record["workers_lost"] == 1
    assert of(scraped, f"{start}workers_up", **labels) == 0  # all have gone home
    # mean, m2 (float64) and evaluated (int64) of 24 points, a block of 4 rounds each
    merged = of(scraped, f"{start}merged_bytes_total", **labels)
    assert merged == record["rounds"] / 4 * 3 * 8 * 24
    assert of(scraped, f"{start}received_bytes_total", **labels) >= merged


@pytest.mark.ray
def test_the_endpoint_shows_how_many_units_a_step_has_done(scraped):
    labels = {
        "step": "valuing by the training set (leave-one-out)",
        "unit": "validation examples",
        "run": "gepr%C3%BCft",
    }
    assert of(scraped, "ray_dcai_ray_step_units_done", **labels) == 24
    assert of(scraped, "ray_dcai_ray_step_units", **labels) == 24
    tasks = of(scraped, "ray_dcai_ray_step_tasks", **labels)
    assert of(scraped, "ray_dcai_ray_step_tasks_done", **labels) == tasks > 0


@pytest.mark.ray
def test_every_metric_and_label_of_the_dashboard_is_at_the_endpoint_and_no_metric_is_missing(
    scraped,
):
    there = {name for name, _ in scraped[1]}
    assert named(" ".join(QUERIES)) == there
    for query in QUERIES:
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \((.*?)\)", query)))) | {"run"}
        for (name, labels), _ in scraped[1].items():
            assert name not in named(query) or grouped <= {key for key, _ in labels}, query


def test_the_document_names_the_metrics_there_are():
    text = (REPOSITORY / "docs/observability.md").read_text()
    for name in metrics.GAUGES:
        assert f"`ray_dcai_ray_{name}`" in text or f"`..._{name.split('_', 1)[1]}`" in text, name
    for name in metrics.COUNTERS:
        assert f"{name.split('_', 1)[1]}_total`" in text, name
