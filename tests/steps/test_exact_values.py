"""`dcai-ray value` by the closed form: what serves as the validation set, and with which weight."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from dcai_ray.cli import main
from dcai_ray.config import parse_config
from dcai_ray.errors import UserError
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location
from dcai_ray.valuation.knn_shapley import knn_shapley
from tests.support.small_runs import done

N, M = 60, 25


def points(count, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    return np.float32(rng.standard_normal((count, 4)) + y[:, np.newaxis]), y


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    for split, count, seed in (("train", N, 0), ("shapley_val", M, 1)):
        x, y = points(count, seed)
        labels = [f"class{c}" for c in y]
        ids = [f"{label}/{i:03d}" for i, label in enumerate(labels)]
        part = Location(str(folder)) / split
        write_split(part, ids, labels, x, {"backbone": "made up"}, f"made {split}")
    return folder


@pytest.mark.ray
@pytest.mark.parametrize(("flags", "weight"), [((), 0.4), (("--self-weight", 1.5), 1.5)])
def test_both_is_the_weighted_mean_over_clean_and_training_images(
    features, tmp_path, ray_cluster, flags, weight, capsys
):
    arguments = ("value", "--features", features, "--run", tmp_path / "run", "--k", 5)
    done(*arguments, "--validation", "both", *flags)
    values = pd.read_parquet(tmp_path / "run/values/values.parquet")
    by_clean = knn_shapley(*points(N, 0), *points(M, 1), k=5)
    by_self = knn_shapley(*points(N, 0), k=5)
    expected = (M * by_clean + weight * N * by_self) / (M + weight * N)
    assert_allclose(values.value, expected, atol=1e-15)  # values of about 1 / 60, summed otherwise
    assert_allclose(values.value_self, by_self, atol=1e-15)
    # Another weight gives other values, which this folder does not take.
    others = [*arguments, "--validation", "both", "--self-weight", 0.9]
    assert main([str(word) for word in others]) == 1
    assert "value.self_weight" in capsys.readouterr().err


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match=r"value\.self_weight must be at least 0, got -0\.1"):
        parse_config({"value": {"self_weight": -0.1}}, "flags")
