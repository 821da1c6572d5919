"""What a run prints: few lines, none too long, the verdict first and what to do last."""

import csv
import json
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import yaml

from dcai_ray.cleaning.evaluation import Row
from dcai_ray.report import terminal
from dcai_ray.report.as_json import results
from dcai_ray.report.findings import Findings, read_findings
from dcai_ray.report.suspect_list import suspects, write_suspects
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location

N = 30
TIERS = ["likely"] * 6 + ["possible"] * 4 + ["look"] * 2 + [None] * (N - 12)
WRONG = [0.999] * 6 + [0.7] * 4 + [0.3] * 2 + [0.01] * (N - 12)


@pytest.fixture
def run(tmp_path):
    """Thirty images, twelve of them suspects; the first has a name that is no plain text."""
    run = RunDirectory(Location(str(tmp_path / "run")))
    settings = {"value": {"k": 2, "metric": "euclidean", "validation": "clean", "method": "exact"}}
    (run.location / "config.yaml").write_bytes(yaml.safe_dump(settings).encode())
    ids = ['cat/a "quoted", name\n.png', *(f"cat/{'long/' * 30}{i:02d}.png" for i in range(1, N))]
    columns = {
        "id": ids,
        "label": ["cat"] * N,
        "value": [-0.01] * 12 + [0.01] * (N - 12),
        "decision": ["drop"] * 10 + ["keep"] * (N - 10),
        "suggested_label": ["dog"] * 12 + ["cat"] * (N - 12),
        "stderr_validation": [0.004] * N,
        "suggested_probability": [0.9] * N,
        "wrong_probability": WRONG,
        "tier": TIERS,
        "reason": ["probability above 0.5"] * 10 + [""] * (N - 10),
    }
    numbers = {name: np.zeros(N) for name in ("stderr", "low", "high")}
    counts = {name: np.zeros(N, np.int64) for name in ("rounds", "evaluated")}
    every = {field.name: field for field in (*schemas.VALUES, *schemas.EVIDENCE)}
    table = {**columns, **numbers, **counts}
    schema = pa.schema([every[name] for name in table])
    choice = json.dumps({"rule": "wrong", "probability": 0.5})
    parquet.write_table(run.values, pa.table(table, schema), "made", choice=choice)
    return run


def row(model, arm, accuracy):
    return Row(model, arm, 20, accuracy, 0.001, 0.9, 0.0, 0.0, 1, 2)


def with_table(run, **accuracies) -> Findings:
    rows = [row(model, arm, a) for model in ("m", "n") for arm, a in accuracies.items()]
    return replace(read_findings(run), table=rows)


def test_the_list_has_every_suspect_and_survives_its_names(run):
    write_suspects(read_findings(run))
    with open(run.suspects.uri, newline="") as stream:
        listed = list(csv.DictReader(stream))
    assert [row["tier"] for row in listed] == TIERS[:12]
    assert [int(row["rank"]) for row in listed] == list(range(1, 13))
    assert listed[0]["path"] == 'cat/a "quoted", name\n.png'
    assert listed[0]["suggested_label"] == "dog"
    assert float(listed[0]["wrong_probability"]) == 0.999
    assert listed[0]["reason"] == "probability above 0.5; P(wrong) >0.99"


def test_without_probabilities_the_reason_is_the_value_over_its_error(run):
    values = parquet.read_table(run.values).drop_columns(["wrong_probability", "reason"])
    parquet.write_table(run.values, values, "made")
    assert suspects(read_findings(run))[0].reason == "value 2.5 errors below 0"  # .01 over .004


def test_a_list_that_is_there_is_not_written_again(run):
    write_suspects(read_findings(run))
    before = os.stat(run.suspects.uri).st_mtime_ns
    write_suspects(read_findings(run))
    assert os.stat(run.suspects.uri).st_mtime_ns == before


def test_the_worst_are_ten_and_no_line_is_too_long(run):
    title, head, *lines = terminal.worst(read_findings(run))
    assert title == "10 of 12 suspects (all in suspects.csv)"
    assert head.split() == ["tier", "P(wrong)", "label", "->", "looks", "like", "example"]
    assert max(map(len, lines)) <= 79
    assert lines[1].split()[:6] == ["2", "likely", ">.99", "cat", "->", "dog"]
    assert lines[1].endswith("/01.png")


@pytest.mark.parametrize(
    "accuracies", [{}, {"all": 0.7, "random": 0.71, "clean": 0.9, "kept": 0.8}]
)
def test_the_summary_has_twelve_lines_at_most_and_ends_with_three_commands(run, accuracies):
    lines = terminal.summary(with_table(run, **accuracies))
    assert len(lines) <= 12
    assert max(map(len, lines[:-5])) <= 79  # paths may be longer
    assert lines[-5].startswith("report: ") or lines[-4].startswith("report: ")
    heading = lines.index("next:")
    assert all(line.startswith("  dcai-ray ") for line in lines[heading + 1 :])


def test_the_verdict_is_first_and_bad_news_is_next(run):
    lines = terminal.summary(with_table(run, all=0.7, random=0.71, clean=0.9, kept=0.8))
    text = " ".join(" ".join(lines).split())
    assert text.startswith("cleaning does not clearly beat every baseline: accuracy 0.800 (m), ")
    assert "+0.100 over all, +0.090 over random, -0.100 over clean" in text
    warning = text.index("warning: Cleaning does not beat training on the clean validation set")
    assert warning < text.index("10 of 30 training examples dropped")


def test_warnings_that_do_not_fit_are_counted(run, monkeypatch):
    texts = [
        f"This is warning {i}, which takes all of a line and some words of another one. Why."
        for i in range(4)
    ]
    monkeypatch.setattr(terminal, "warnings", lambda _: texts)
    lines = terminal.summary(read_findings(run))
    assert len(lines) <= 12
    shown = sum(line.startswith("warning: ") for line in lines)
    assert 0 < shown < 4
    assert f"{4 - shown} more warnings in the report" in lines
    assert "Why" not in " ".join(lines)


def test_a_gain_over_every_baseline_is_the_verdict(run):
    found = with_table(run, all=0.7, random=0.71, clean=0.72, kept=0.8)
    assert terminal.verdict(found).startswith("cleaning helps: accuracy 0.800 (m), +0.100 over all")


def test_without_training_the_verdict_counts_suspects_by_tier(run):
    said = terminal.verdict(read_findings(run))
    assert said == "12 suspects among 30 training examples: 6 likely, 4 possible, 2 look"


def test_accuracies_that_do_not_fit_are_left_to_the_report(run):
    models = [f"a network with a long name {i}" for i in range(4)]
    rows = [row(model, arm, 0.5) for model in models for arm in ("all", "kept")]
    lines = terminal.accuracies(replace(read_findings(run), table=rows))
    assert max(map(len, lines)) <= 79
    assert lines[-1] == "2 models more in the report"
    assert [line.split()[0] for line in lines[1:-1]] == ["all", "kept"]


def test_the_models_of_the_demo_fit_beside_each_other(run):
    models = ("efficientnet_lite0 fine-tuned", "logistic probe", "10-nn probe")
    rows = [row(model, arm, 0.5) for model in models for arm in ("all", "kept+clean")]
    found = replace(read_findings(run), table=rows)
    run.images.write_bytes(b"")  # the column is headed images, which is shorter than examples
    lines = terminal.accuracies(found)
    assert all(model in lines[0] for model in models)
    assert len(lines[0]) <= 79


def test_results_for_scripts_are_json_that_every_parser_reads(run):
    text = json.dumps(results(with_table(run, all=0.7, kept=float("nan"))), allow_nan=False)
    found = json.loads(text)
    assert (found["images"], found["dropped"]) == (30, 10)
    assert found["tiers"] == {"likely": 6, "possible": 4, "look": 2}
    assert len(found["worst"]) == 10
    assert [row["accuracy"] for row in found["accuracies"]] == [0.7, None, 0.7, None]
