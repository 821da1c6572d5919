"""`dcai-ray value` on features with few, partial, bad or no clean images, and with probabilities
by the user's own network: what it says, writes and exits with."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from dcai_ray.cli import main
from dcai_ray.valuation.knn_shapley import knn_shapley
from tests.support.feature_sets import write_features
from tests.support.small_runs import done, files

X, DIGIT = load_digits(return_X_y=True)
pytestmark = pytest.mark.ray


def digits(counts, start=0, flipped=0.0):
    """Handwritten digits 0, 1, ..., as many as `counts` says, after the first `start` of each; a
    share has a wrong label.

    Returns:
        Features and class numbers as given, and (k,) whether those are wrong.
    """
    rng = np.random.default_rng(start)
    rows = [np.flatnonzero(c == DIGIT)[start : start + count] for c, count in enumerate(counts)]
    rows = rng.permutation(np.concatenate(rows))
    y, wrong = DIGIT[rows], rng.random(len(rows)) < flipped
    given = np.where(wrong, (y + rng.integers(1, len(counts), len(y))) % len(counts), y)
    return (X[rows], given), wrong


TRAIN, IS_WRONG = digits([60, 50, 50], flipped=0.15)


@dataclass
class Run:
    """What the command said and wrote."""

    said: str
    table: pd.DataFrame
    note: dict

    @property
    def dropped(self):
        return (self.table.decision == "drop").to_numpy()

    @property
    def warnings(self):
        return [line for line in self.said.splitlines() if line.startswith("warning: ")]


@pytest.fixture
def valued(tmp_path, capsys, ray_cluster):
    """A function that values features, which has to succeed."""

    def value(train, clean, *flags):
        splits = {"train": train} | ({} if clean is None else {"shapley_val": clean})
        features, run = write_features(tmp_path / "features", splits), tmp_path / "run"
        done("value", "--features", features, "--run", run, *flags)
        table = pd.read_parquet(run / "values/values.parquet")
        assert np.isfinite(table.value).all()
        assert len(table) == len(train[1])
        note = json.loads((run / "run.json").read_text())["steps"]["values"]
        return Run(capsys.readouterr().err, table, note)

    return value


def test_a_class_without_clean_images_is_told_of_once_and_left_undecided(valued):
    clean, _ = digits([25, 25], start=60)
    run = valued(TRAIN, clean)
    lacking = run.table.label == "class2"
    assert set(run.table.decision[lacking]) == {"undecided"}
    assert set(run.table.reason[lacking]) == {"shapley_val has no image of class class2"}
    assert run.table.wrong_probability.isna().tolist() == lacking.tolist()
    # The others are judged as ever.
    assert run.dropped[~lacking & IS_WRONG].mean() > 0.5
    assert run.dropped[~lacking & ~IS_WRONG].mean() < 0.05
    (line,) = run.warnings
    assert "shapley_val has no image of class class2" in line


@pytest.mark.parametrize(
    ("counts", "few"),
    [
        ([4, 4, 4], "12 images of 3 classes"),
        ([1, 0, 0], "1 image of 1 class"),
        ([0, 40, 0], "40 images of 1 class"),
    ],
)
def test_with_too_few_clean_images_the_training_images_are_doubted(valued, counts, few):
    clean, _ = digits(counts, start=60)
    run = valued(TRAIN, clean)
    assert run.note["choice"]["rule"] == "doubted"
    assert f"warning: shapley_val has {few}, too few to tell" in run.said
    assert "wrong_probability" not in run.table
    assert set(run.table.decision) == {"keep", "drop"}
    assert run.dropped[IS_WRONG].mean() > 0.5
    assert run.dropped[~IS_WRONG].mean() < 0.05


def test_a_clean_set_that_is_not_clean_is_told_and_not_learnt_from(valued):
    clean, is_wrong = digits([25, 25, 25], start=60, flipped=0.3)
    run = valued(TRAIN, clean)
    assert run.note["choice"]["rule"] == "doubted"
    assert run.warnings[0].endswith("check them, or use --validation self")
    # Of 75 images a share of a third has a standard error of .055; planted errors may be easier or
    # harder to see than these.
    assert run.note["clean_errors"] == pytest.approx(is_wrong.mean(), abs=0.15)
    assert run.dropped[IS_WRONG].mean() > 0.5
    assert run.dropped[~IS_WRONG].mean() < 0.05


def test_without_a_clean_set_flips_are_found_and_a_tiny_class_is_undecided(valued):
    train, wrong = digits([60, 30, 3], flipped=0.15)
    tiny = train[1] == 2
    more = np.flatnonzero(tiny)[3:]  # of the wrong labels, too, none is left over
    train = tuple(np.delete(array, more, axis=0) for array in train)
    tiny, wrong = np.delete(tiny, more), np.delete(wrong, more)
    run = valued(train, None, "--validation", "self")
    assert set(run.table.decision[tiny]) == {"undecided"}
    assert set(run.table.reason[tiny]) == {"too few images of class class2"}
    assert run.dropped[wrong & ~tiny].mean() > 0.5
    assert run.dropped[~wrong].mean() < 0.05


def test_without_a_clean_set_right_labels_of_unequal_classes_are_not_doubted(valued):
    train, _ = digits([120, 25, 25])
    assert not valued(train, None, "--validation", "self").dropped.any()


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ((), {"metric": "cosine", "class_weights": "balanced"}),
        (("--class-weights", "none"), {"metric": "cosine", "class_weights": "none"}),
        (("--preset", "study"), {"metric": "euclidean", "class_weights": "none"}),
    ],
)
def test_values_are_those_of_the_closed_form_with_the_settings(valued, flags, options):
    train, clean = digits([60, 20, 20], flipped=0.15)[0], digits([10, 5, 5], start=60)[0]
    run = valued(train, clean, *flags)
    value = partial(knn_shapley, *train, k=10)
    # Values are of about 1 / 100; features went through a file of single precision, and digits
    # survive that.
    assert_allclose(run.table.value, value(*clean, **options), atol=1e-14)
    assert_allclose(run.table.value_self, value(**options), atol=1e-14)


def write_probabilities(file: Path, table, columns=("id", "split", "class0", "class1", "class2")):
    """One row per training and clean image."""
    table.to_csv(file, index=False, columns=list(columns))


def test_probabilities_are_evidence_and_bad_files_lose_nothing(tmp_path, capsys, ray_cluster):
    splits = {"train": TRAIN, "shapley_val": digits([12, 12, 12], start=60)[0]}
    features, run = write_features(tmp_path / "features", splits), tmp_path / "run"
    file = tmp_path / "mine.csv"
    arguments = (
        *("value", "--features", features, "--run", run, "--rule", "wrong"),
        *("--probabilities", file),
    )
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"class{c}/{i:03d}", "split": split}
        | dict(zip(("class0", "class1", "class2"), rng.dirichlet([1, 1, 1]), strict=True))
        for split, (_, y) in splits.items()
        for i, c in enumerate(y)
    ]
    mine = pd.DataFrame(rows).sample(frac=1, random_state=0)
    write_probabilities(file, mine)
    done(*arguments)

    def network(of):
        """By hand: log odds of the given label less the largest of the others, of each image."""
        p = of[of.split == "train"].set_index("id")[["class0", "class1", "class2"]]
        p = p.loc[pd.read_parquet(run / "values/values.parquet").id].to_numpy()
        odds = np.log(p / (1 - p))
        own = np.eye(3, dtype=bool)[TRAIN[1]]
        return odds[own] - np.where(own, -np.inf, odds).max(axis=1)

    def evidence():
        return pd.read_parquet(run / "values/evidence.parquet").network

    assert_allclose(evidence(), network(mine), rtol=1e-9)
    before = files(run)
    done(*arguments)
    assert files(run) == before
    # Files that do not fit.
    capsys.readouterr()
    missing, logits = mine[mine.id != mine.id.iloc[0]], mine.assign(class1=mine.class1 + 2)
    for bad, message in (
        (missing, "no row for 1 of"),
        (logits, f"{len(mine)} rows are not probabilities that sum to 1"),
        (mine.drop(columns="class2"), "no column 'class2'"),
    ):
        write_probabilities(file, bad, bad.columns)
        assert main([str(word) for word in arguments]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if str(file) in line]
        assert line.startswith(f"dcai-ray: {file}: {message}")
        after = files(run)
        assert all(after[name] == before[name] for name in before if name.endswith(".parquet"))
    # Other probabilities: the values are out of date.
    other = mine.assign(class0=mine.class1, class1=mine.class0)
    write_probabilities(file, other)
    done(*arguments)
    assert_allclose(evidence(), network(other), rtol=1e-9)
    assert files(run)["values/values.parquet"] != before["values/values.parquet"]


def test_probabilities_that_are_not_there_are_refused_in_one_line(tmp_path, capsys):
    features = write_features(tmp_path / "features", {"train": TRAIN})
    words = ["value", "--features", features, "--run", tmp_path / "run", "--validation", "self"]
    assert main([str(word) for word in [*words, "--probabilities", tmp_path / "no.csv"]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dcai-ray: ")
    assert "no.csv" in line
