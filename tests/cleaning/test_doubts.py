"""Doubts on clusters whose true labels are known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dcai_ray.cleaning.doubts import doubts
from dcai_ray.cleaning.evidence import (
    Evidence,
    Probe,
    gathered,
    neighbour_counts,
    references,
    run_probe,
)
from dcai_ray.valuation.knn_shapley import game_values, knn_game

CENTRES = 1.5 * np.random.default_rng(99).standard_normal((3, 6))


def clusters(count, seed, spread):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, count)
    return CENTRES[true] + spread * rng.standard_normal((count, 6)), true


def flipped(true, share, seed):
    rng = np.random.default_rng(1000 + seed)
    wrong = rng.random(len(true)) < share
    return np.where(wrong, (true + rng.integers(1, 3, len(true))) % 3, true), wrong


def asked(x, y):
    """The doubts, and how many images neighbours and probe alone would doubt."""
    n, rows, counts = len(y), references(y), neighbour_counts(len(y), 3)
    game = knn_game(
        x, y, None, None, k=counts[0], further_k=counts[1:], metric="cosine",
        class_weights="balanced", relabelled=rows,
    )  # fmt: skip
    values = game_values(game)
    probe = run_probe(x, y, x[:0], y[:0], rows, 3)
    pieces = [(f"self_k{k}", values.value[i], values.relabelled[i]) for i, k in enumerate(counts)]
    ten = counts.index(10)
    value = values.value[ten]
    found = doubts(gathered(pieces, probe, y, y[rows]), y, value, values.stderr[ten])
    return found, ((value <= 1 / (3 * n)) & (probe.suggested != y)).mean()


@pytest.mark.parametrize("spread", [1.0, 1.6])
@pytest.mark.parametrize("seed", range(3))
def test_right_labels_of_overlapping_clusters_are_hardly_ever_doubted(spread, seed):
    found, contradicted = asked(*clusters(600, seed, spread))
    assert contradicted > 0.02 * spread**3  # neighbours and probe alone would
    assert found.doubted.mean() <= 0.005


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_most_flips_are_doubted_and_few_right_labels(share):
    caught, false = [], []
    for seed in range(3):
        x, true = clusters(600, seed, 1.0)
        y, wrong = flipped(true, share, seed)
        found, _ = asked(x, y)
        caught.append(found.doubted[wrong].mean())
        false.append(found.doubted[~wrong].mean())
    assert np.mean(caught) > 0.8
    assert np.mean(false) < 0.05


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_suspicion_ranks_the_flips_before_the_others(spread):
    x, true = clusters(300, 0, spread)
    y, wrong = flipped(true, 0.1, 0)
    found, _ = asked(x, y)
    assert found.suspicion.min() >= 0
    assert found.suspicion.max() <= 1
    lowest = np.sort(found.suspicion[wrong])
    # The share of the others that the median flip is more suspicious than.
    assert (found.suspicion[~wrong] < lowest[len(lowest) // 2]).mean() > 0.95
    if spread < 1:  # far clusters
        assert lowest[0] > found.suspicion[~wrong].max()


def test_suspicion_is_the_mean_rank_of_value_over_error_and_margin():
    rng = np.random.default_rng(0)
    probe = Probe(
        margins=np.array([[9, 0.5], [9, 0.1], [9, 0.4], [9, -0.3], [9, 0.9]]),
        best=1,
        reference_margins=rng.random((5, 2, 2)),
        reference_predictions=rng.random((5, 2)),
        suggested=np.zeros(5, int),
        suggested_probability=np.ones(5),
        accuracy=1.0,
        separation=np.nan,
    )
    y = np.array([0, 0, 0, 1, 1])
    given, reference = rng.random((5, 1)), rng.random((5, 2, 1))
    evidence = Evidence(names=("x",), given=given, labels=y, reference=reference, probe=probe)
    value = np.array([0.2, -0.2, 0.1, 0.0, 0.3])
    stderr = np.array([0.1, 0.1, 0.0, 0.0, 0.1])  # of the third the sign alone counts
    found = doubts(evidence, y, value, stderr).suspicion
    by_value, by_margin = np.array([2, 0, 4, 1, 3]), np.array([3, 1, 2, 0, 4])  # from the lowest
    assert_allclose(found, 1 - (by_value + by_margin) / 8, rtol=1e-12)
