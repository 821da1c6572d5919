"""`dcai-ray value` by the closed form: what serves as the validation set, and with which weight."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from dcai_ray.cli import main
from dcai_ray.config import EXACT_ONLY, parse_config
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.exact_values import compute_values
from dcai_ray.storage.location import Location
from dcai_ray.valuation.count_values import knn_values
from dcai_ray.valuation.knn_shapley import knn_shapley
from tests.support import in_process
from tests.support.feature_sets import write_features
from tests.support.small_runs import done

N, M = 60, 25


def points(count, seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(3, count, p=[0.5, 0.3, 0.2])  # classes of unequal size
    return np.float32(rng.standard_normal((count, 4)) + y[:, np.newaxis]), y


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    splits = {"train": points(N, 0), "shapley_val": points(M, 1)}
    return write_features(tmp_path_factory.mktemp("features"), splits)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("flags", "weight", "class_weights"),
    [
        ((), 0.4, "balanced"),
        (("--self-weight", 1.5), 1.5, "balanced"),
        (("--class-weights", "none"), 0.4, "none"),
    ],
)
def test_both_is_the_weighted_mean_over_clean_and_training_images(
    features, tmp_path, ray_cluster, flags, weight, class_weights, capsys
):
    arguments = ("value", "--features", features, "--run", tmp_path / "run", "--k", 5)
    done(*arguments, "--validation", "both", *flags)
    values = pd.read_parquet(tmp_path / "run/values/values.parquet")
    by_clean = knn_shapley(*points(N, 0), *points(M, 1), k=5, class_weights=class_weights)
    by_self = knn_shapley(*points(N, 0), k=5, class_weights=class_weights)
    expected = (M * by_clean + weight * N * by_self) / (M + weight * N)
    assert_allclose(values.value, expected, atol=1e-15)  # values of about 1 / 60, summed otherwise
    assert_allclose(values.value_self, by_self, atol=1e-15)
    # Another weight gives other values, which this folder does not take.
    others = [*arguments, "--validation", "both", "--self-weight", 0.9]
    assert main([str(word) for word in others]) == 1
    assert "value.self_weight" in capsys.readouterr().err


def test_errors_of_both_add_up_as_those_of_independent_validation_sets(
    features, tmp_path, monkeypatch
):
    in_process.patch(monkeypatch)
    errors = {}
    for name in ("clean", "self", "both"):
        settings = {"k": 5, "validation": name, "rule": "zero"}
        run = RunDirectory(Location(str(tmp_path / name)), Location(str(features)))
        compute_values(run, parse_config({"value": settings}, "test"))
        table = pd.read_parquet(tmp_path / name / "values/values.parquet")
        errors[name] = table.stderr_validation.to_numpy()
    weight = 0.4 * N
    expected = np.hypot(M * errors["clean"], weight * errors["self"]) / (M + weight)
    assert_allclose(errors["both"], expected, rtol=1e-12)


@pytest.mark.parametrize("rule", ["validated", "zero"])
@pytest.mark.parametrize("class_weights", ["balanced", "none"])
@pytest.mark.parametrize("utility", ["knn-accuracy", *EXACT_ONLY])
def test_other_utilities_of_the_neighbours_are_exact_too(
    features, tmp_path, monkeypatch, utility, class_weights, rule
):
    in_process.patch(monkeypatch)
    chosen = {"k": 5, "utility": utility, "class_weights": class_weights, "semivalue": "beta"}
    run = RunDirectory(Location(str(tmp_path / "run")), Location(str(features)))
    compute_values(run, parse_config({"value": {**chosen, "rule": rule}}, "test"))
    table = pd.read_parquet(tmp_path / "run/values/values.parquet")
    expected = knn_values(*points(N, 0), *points(M, 1), **chosen)
    assert_allclose(table.value, expected, rtol=0, atol=1e-15)
    closed = {**chosen, "utility": lambda matches, others: matches / 5}
    assert_allclose(table.value_self, knn_values(*points(N, 0), **closed), rtol=0, atol=1e-15)
    assert table.stderr.eq(0).all()
    if rule == "zero":
        assert (table.value[table.decision == "drop"] <= 0).all()


def test_both_weighs_values_of_one_utility(features, tmp_path, monkeypatch):
    in_process.patch(monkeypatch)
    chosen = {"k": 5, "utility": "knn-accuracy", "class_weights": "balanced"}
    run = RunDirectory(Location(str(tmp_path / "run")), Location(str(features)))
    compute_values(run, parse_config({"value": {**chosen, "validation": "both"}}, "test"))
    table = pd.read_parquet(tmp_path / "run/values/values.parquet")
    by_self = knn_values(*points(N, 0), **chosen)
    by_clean = knn_values(*points(N, 0), *points(M, 1), **chosen)
    assert_allclose(table.value_self, by_self, rtol=0, atol=1e-15)
    expected = (M * by_clean + 0.4 * N * by_self) / (M + 0.4 * N)
    assert_allclose(table.value, expected, rtol=0, atol=1e-15)


def test_options_of_a_utility_are_those_of_its_exact_values(features, tmp_path, monkeypatch):
    in_process.patch(monkeypatch)
    chosen = {"k": 5, "utility": "knn-accuracy"}
    options = {"few": "default", "empty": 0.25}
    run = RunDirectory(Location(str(tmp_path / "run")), Location(str(features)))
    compute_values(run, parse_config({"value": {**chosen, "utility_options": options}}, "test"))
    table = pd.read_parquet(tmp_path / "run/values/values.parquet")
    expected = knn_values(
        *points(N, 0), *points(M, 1), class_weights="balanced", **chosen, **options
    )
    assert_allclose(table.value, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"utility": "logistic"}, "value.utility logistic has no exact values; use value.method s"),
        (
            {"utility": "knn-brier", "method": "sample"},
            "knn-brier is not sampled; use value",
        ),
        ({"utility_options": {"few": "vote"}}, "few: knn takes none for exact values"),
        (
            {"utility": "knn-accuracy", "utility_options": {"ridge": 1}},
            "ridge: knn-accuracy takes few and empty for exact values",
        ),
        ({"utility": "knn-brier", "utility_options": {"few": "all"}}, "must be vote or default"),
        ({"utility": "knn-brier", "utility_options": {"empty": "no"}}, "must be a number"),
    ],
)
def test_what_has_no_exact_values_is_refused_before_any_work(settings, message):
    with pytest.raises(UserError, match=message):
        parse_config({"value": settings}, "flags")


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match=r"value\.self_weight must be at least 0, got -0\.1"):
        parse_config({"value": {"self_weight": -0.1}}, "flags")
