"""All steps in one call, against the commands on the same features."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

import dcai_ray
from dcai_ray.cli import main
from dcai_ray.errors import UserError

pytestmark = pytest.mark.ray
NAMES = np.array(["<b>red</b>", "white", "rosé"])


@pytest.fixture(scope="module")
def wine():
    """Training features and labels of which a fifth is wrong, clean ones, and which are wrong."""
    x, y = load_wine(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    train, clean = order[:118], order[118:]
    wrong = rng.random(118) < 0.2
    given = np.where(wrong, (y[train] + rng.integers(1, 3, 118)) % 3, y[train])
    return x[train], NAMES[given], (x[clean], NAMES[y[clean]]), wrong


@pytest.fixture(scope="module")
def found(wine, ray_cluster):
    x, labels, clean, _ = wine
    return dcai_ray.clean(x, labels, clean=clean, rule="wrong", k=5)


def test_wrong_labels_are_found_in_the_order_that_was_given(found, wine):
    _, labels, _, wrong = wine
    assert found.table["label"].to_pylist() == labels.tolist()
    assert (~found.kept[wrong]).mean() > 0.9
    assert found.kept[~wrong].mean() > 0.95
    assert found.wrong_probability[wrong].min() > np.quantile(found.wrong_probability[~wrong], 0.5)
    dropped = ~found.kept
    assert_array_equal(found.decision[dropped], "drop")
    assert set(found.suggested_label) == set(NAMES)


def test_it_is_what_the_commands_give(found, wine, tmp_path, ray_cluster):
    x, labels, clean, _ = wine
    for split, rows, y in (("train", x, labels), ("shapley_val", *clean)):
        columns = {"id": [str(i) for i in range(len(y))], "label": y, "features": rows}
        dcai_ray.write_features(columns, str(tmp_path / "features"), split=split)
    flags = ("--features", tmp_path / "features", "--run", tmp_path / "run")
    assert main(["value", *map(str, flags), "--rule", "wrong", "--k", "5"]) == 0
    there = pd.read_parquet(tmp_path / "run/values/values.parquet")
    assert_array_equal(there.value, found.value)
    assert_array_equal(there.decision, found.decision)


def test_frames_have_the_most_suspicious_first(found):
    table = found.to_pandas()
    assert table.wrong_probability.is_monotonic_decreasing
    assert found.to_arrow()["id"].to_pylist() == table.id.tolist()
    assert found.to_polars()["id"].to_list() == table.id.tolist()


def test_a_notebook_shows_names_as_they_are(found):
    shown = found._repr_html_()
    assert f"{(~found.kept).sum()} of 118 examples dropped" in shown
    assert "&lt;b&gt;red&lt;/b&gt;" in shown
    assert "<b>" not in shown


def test_there_is_a_report_and_a_summary(found):
    with open(found.report()) as file:
        assert "the value of the training examples" in file.read()
    assert "planted errors: catches " in found.summary()


def test_without_a_clean_set_the_examples_judge_each_other(wine, tmp_path, ray_cluster):
    x, labels, _, wrong = wine
    run = str(tmp_path / "run")
    found = dcai_ray.clean(pd.DataFrame(x), labels.tolist(), run=run, ids=range(118))
    assert found.wrong_probability is None
    assert (~found.kept[wrong]).mean() > 0.7
    with pytest.raises(UserError, match="holds the values of another run"):
        dcai_ray.clean(x, labels, run=run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a"]}, "x has 3 rows, but there are 1 labels"),
        ({"x": [[1.0], [np.inf], [2]]}, "x must be finite"),
        ({"labels": [0.5, 1, 0]}, "labels"),
        ({"clean": [1, 2, 3]}, "clean must be a pair"),
        ({"rule": "guess"}, "guess"),
        ({"kay": 3}, "kay"),
    ],
)
def test_what_makes_no_sense_is_one_line(change, message):
    arguments = {"x": [[1.0], [2], [3]], "labels": ["a", "b", "a"]} | change
    with pytest.raises(UserError, match=message):
        dcai_ray.clean(**arguments)
