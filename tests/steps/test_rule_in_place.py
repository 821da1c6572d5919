"""Another rule in the same run: decided anew from what is known, and nothing else is computed."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from dcai_ray.storage import array_trees
from dcai_ray.storage.location import Location
from tests.support import in_process
from tests.support.feature_sets import write_features
from tests.support.small_runs import done, files

X, DIGIT = load_digits(return_X_y=True)


def refuse(function, jobs, step, _):
    raise AssertionError(f"{step.name} ran again")


@pytest.fixture
def features(tmp_path):
    """Digits 0 to 2; of the training images every sixth has the next label."""
    splits = {}
    for split, start, count in (("train", 0, 40), ("shapley_val", 60, 30), ("val", 100, 20)):
        rows = np.concatenate([np.flatnonzero(c == DIGIT)[start : start + count] for c in range(3)])
        wrong = (np.arange(len(rows)) % 6 == 0) & (split == "train")
        splits[split] = X[rows], (DIGIT[rows] + wrong) % 3
    return write_features(tmp_path / "features", splits)


@pytest.fixture
def value(features, tmp_path, monkeypatch):
    """A function that values them in a run with a rule; with `refuse`, it may compute nothing."""

    def value(rule, *flags, run="run", tasks=in_process.run_tasks):
        in_process.patch(monkeypatch, tasks)
        folder = tmp_path / run
        done("value", "--features", features, "--run", folder, "--rule", rule, *flags)
        return folder

    return value


@pytest.mark.slow
def test_another_rule_decides_without_computing_anything_and_as_in_a_run_of_its_own(value):
    before = files(value("wrong"))
    for rule, flags in (("zero", ()), ("share", ("--drop-share", "0.3"))):
        run = value(rule, *flags, tasks=refuse)
        alone = value(rule, *flags, run=f"alone-{rule}")
        for name in ("values/values.parquet", "kept.parquet", "suspects.csv"):
            assert (run / name).read_bytes() == (alone / name).read_bytes()
        planted = [
            json.loads((r / "run.json").read_text())["steps"]["values"] for r in (run, alone)
        ]
        assert planted[0]["planted"] == planted[1]["planted"]
        assert f"rule: {rule}" in (run / "config.yaml").read_text()
    after = files(run)
    assert after["values/_known.arrays"] == before["values/_known.arrays"]
    assert after["values/values.parquet"] != before["values/values.parquet"]


@pytest.mark.slow
def test_models_trained_on_what_another_rule_kept_are_out_of_date_until_they_are_trained_again(
    value, capsys, monkeypatch
):
    run = value("wrong")
    done("retrain", "--run", run, "--no-finetune")
    said = capsys.readouterr().out
    assert "logistic probe" in said
    assert "the rule has changed" not in said
    value("share", "--drop-share", "0.4", tasks=refuse)
    said = capsys.readouterr().out
    assert "logistic probe" not in said
    assert "warning: The rule has changed since models were trained" in " ".join(said.split())
    in_process.patch(monkeypatch)
    done("retrain", "--run", run, "--no-finetune")
    assert "logistic probe" in capsys.readouterr().out


@pytest.mark.slow
def test_a_damaged_file_of_what_is_known_is_computed_again(value):
    run = value("wrong")
    known = run / "values/_known.arrays"
    content = known.read_bytes()
    known.write_bytes(content[: len(content) // 2])
    value("zero")
    assert len(known.read_bytes()) == len(content)


@pytest.mark.slow
def test_suspects_are_listed_in_the_order_of_the_report_with_their_tiers(value):
    run = value("wrong")
    with (run / "suspects.csv").open() as stream:
        listed = list(csv.DictReader(stream))
    values = pd.read_parquet(run / "values/values.parquet")
    assert [row["rank"] for row in listed] == [str(i + 1) for i in range(len(listed))]
    assert {row["path"] for row in listed} == set(values.id[values.tier.notna()])
    wrong = [float(row["wrong_probability"]) for row in listed]
    assert wrong == sorted(wrong, reverse=True)
    is_wrong = dict(zip(values.id, np.arange(len(values)) % 6 == 0, strict=True))
    likely = [is_wrong[row["path"]] for row in listed if row["tier"] == "likely"]
    assert len(likely) > 10
    assert np.mean(likely) >= 0.9


def test_what_is_too_large_is_not_written(tmp_path):
    file = Location(str(tmp_path / "tree"))
    assert not array_trees.write_tree(file, {"x": np.zeros(100)}, "made", max_bytes=799)
    assert not file.exists()
    assert array_trees.write_tree(file, {"x": np.zeros(100)}, "made", max_bytes=800)
    assert array_trees.read_tree(file, (), ["other"]) is None
    assert array_trees.read_tree(file, (), ["made"])["x"].shape == (100,)
