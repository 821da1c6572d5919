"""Doubts about labels where the truth is known: hard classes are not doubted, flips are."""

import numpy as np
import pytest

from dcai_ray.cleaning.doubts import MAX_SHARE, doubts
from dcai_ray.cleaning.evidence import gathered, neighbour_counts, references, run_probe
from dcai_ray.valuation.knn_shapley import game_values, knn_game


def doubted(x, y):
    """Doubts as step 2b makes them, in this process."""
    num_classes = int(y.max()) + 1
    counts, rows = neighbour_counts(len(y), num_classes), references(y)
    found = game_values(
        knn_game(
            x, y, None, None, k=10, metric="cosine", class_weights="balanced",
            further_k=counts, relabelled=rows,
        )
    )  # fmt: skip
    pieces = [
        (f"self_k{k}", found.value[i + 1], found.relabelled[i + 1]) for i, k in enumerate(counts)
    ]
    probe = run_probe(x, y, x[:0], y[:0], rows, num_classes)
    evidence = gathered(pieces, probe, y, y[rows])
    return doubts(evidence, rows, y, found.value[0], found.stderr[0])


def clusters(seed, sizes, apart):
    """Gaussian clusters of the given sizes in 8 dimensions; `apart` is their distance."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    centres = apart / np.sqrt(2) * np.eye(len(sizes), 8)
    return centres[y] + rng.standard_normal((len(y), 8)), y


@pytest.mark.parametrize("apart", [2.0, 3.0, 4.0])  # probes are right on 74, 87 and 95 %
def test_right_labels_are_hardly_ever_doubted_though_the_classes_overlap(apart):
    found = [doubted(*clusters(seed, (150, 150, 150), apart)).doubted.mean() for seed in range(4)]
    assert np.mean(found) < 0.03


@pytest.mark.parametrize("sizes", [(150, 30), (300, 15, 300)])
def test_right_labels_of_a_rare_class_are_not_doubted(sizes):
    for seed in range(3):
        x, y = clusters(seed, sizes, 4.0)
        found = doubted(x, y).doubted
        assert max(found[y == c].mean() for c in range(len(sizes))) <= 0.05  # none, or one in 20


@pytest.mark.parametrize("sizes", [(200, 200, 200), (300, 60, 300), (100,) * 8])
def test_flips_are_doubted_and_right_labels_hardly_ever(sizes):
    x, true = clusters(5, sizes, 5.0)
    rng, num_classes = np.random.default_rng(6), len(sizes)
    wrong = rng.random(len(true)) < 0.15
    y = np.where(wrong, (true + rng.integers(1, num_classes, len(true))) % num_classes, true)
    found = doubted(x, y)
    assert found.doubted[wrong].mean() > 0.9
    assert found.doubted[~wrong].mean() < 0.02
    assert 0 <= found.suspicion.min() < found.suspicion.max() <= 1
    # A wrong label is more suspicious than a right one nearly always.
    assert np.mean(found.suspicion[wrong][:, None] > found.suspicion[~wrong]) > 0.98


@pytest.mark.parametrize("apart", [1.0, 1.5, 3.0])
def test_no_more_are_doubted_than_look_wrong(apart):
    for seed in range(3):
        found = doubted(*clusters(seed, (150, 150, 150), apart))
        deviation = np.sqrt(450 * found.share * (1 - found.share))
        assert found.doubted.sum() <= 450 * found.share + 2 * deviation


@pytest.mark.parametrize("shifts", [(1,), (1, 2, 3, 4)])
def test_labels_mistaken_for_one_class_or_for_any_are_found_and_counted(shifts):
    x, true = clusters(5, (120,) * 5, 5.0)
    rng = np.random.default_rng(6)
    wrong = rng.random(600) < 0.25
    found = doubted(x, np.where(wrong, (true + rng.choice(shifts, 600)) % 5, true))
    assert found.doubted[wrong].mean() > 0.8
    assert found.doubted[~wrong].mean() < 0.02
    assert abs(found.share - wrong.mean()) < 0.06


def test_nothing_is_doubted_where_features_say_nothing():
    rng = np.random.default_rng(3)
    found = doubted(rng.standard_normal((600, 8)), np.repeat(np.arange(6), 100))
    assert found.share > MAX_SHARE
    assert not found.doubted.any()
    assert 0 <= found.suspicion.min() < found.suspicion.max() <= 1
