"""`--value-splits`: wrong labels among the validation images themselves."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from dcai_ray.config import parse_config
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.trusted_labels import value_trusted
from dcai_ray.storage.location import Location
from dcai_ray.valuation.knn_shapley import knn_shapley
from tests.support import in_process
from tests.support.feature_sets import write_features

COUNTS = {"train": 150, "shapley_val": 60, "val": 60}
WRONG = {"train": 45, "shapley_val": 3, "val": 0}


def made(seed=0):
    """Three clear classes; the first images of each split have wrong labels."""
    rng = np.random.default_rng(seed)
    splits = {}
    for split, count in COUNTS.items():
        y = np.arange(count) % 3
        x = rng.standard_normal((count, 6)) * 0.5
        x[np.arange(count), y] += 3
        y[: WRONG[split]] = (y[: WRONG[split]] + 1) % 3
        splits[split] = (np.float32(x), y)
    return splits


@pytest.fixture
def run(tmp_path, monkeypatch):
    in_process.patch(monkeypatch)
    write_features(tmp_path / "run/features", made())
    return RunDirectory(Location(str(tmp_path / "run")))


CONFIG = parse_config({"value": {"k": 5}}, "test")


def read(run):
    return pd.read_parquet(run.validation_values.uri)


def test_wrong_labels_of_a_split_are_doubted_and_right_ones_of_another_are_not(run):
    value_trusted(run, CONFIG, ("shapley_val", "val"))
    found = read(run)
    doubted = found[found.doubted]
    assert set(doubted.split) == {"shapley_val"}  # though a third of train is wrong
    assert sorted(name.split("/")[1] for name in doubted.id) == ["000", "001", "002"]
    assert list(doubted.suggested_label) == [f"class{int(i.split('/')[1]) % 3}" for i in doubted.id]
    assert list(found.id[:3]) == list(doubted.id)  # the most suspicious first


def test_values_are_those_by_all_other_labelled_images(run):
    value_trusted(run, CONFIG, ("val",))
    splits = made()
    x = np.concatenate([x for x, _ in splits.values()])
    y = np.concatenate([y for _, y in splits.values()])
    expected = knn_shapley(x, y, k=5, class_weights="balanced")[-COUNTS["val"] :]
    found = read(run)
    assert set(found.split) == {"val"}
    order = found.id.str.split("/").str[1].astype(int)
    assert_allclose(found.value, expected[order], atol=1e-15)  # summed otherwise


def test_a_rerun_writes_nothing_and_tells_the_same(run, capsys):
    value_trusted(run, CONFIG, ("shapley_val",))
    before = run.location.changed_at(["values/validation_values.parquet", "run.json"])
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("shapley_val: 3 of 60 labels look wrong; see ")
    assert "  shapley_val/class1/000: class1, or class0?" in told
    value_trusted(run, CONFIG, ("shapley_val",))
    assert run.location.changed_at(["values/validation_values.parquet", "run.json"]) == before
    assert capsys.readouterr().err.splitlines() == told


def test_a_split_without_features_is_refused(run):
    Location(f"{run.features}/_val.json").delete()
    with pytest.raises(UserError, match=r"--value-splits val: no features in .*features/val"):
        value_trusted(run, CONFIG, ("val",))
