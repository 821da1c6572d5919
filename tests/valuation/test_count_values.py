"""Exact values of utilities of label counts: enumeration, the closed form, sampling, axioms."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import dcai_ray
from dcai_ray import KnnAccuracy, UserError
from dcai_ray.valuation.count_values import count_block_sums, count_game, knn_values, quadrature
from dcai_ray.valuation.knn_shapley import game_values, knn_game, merged
from dcai_ray.valuation.semivalues import by_enumeration, size_weights

ROUNDING = 1e-12  # the error of the quadrature, and of sums over 512 coalitions
SEMIVALUES = ("shapley", "beta", "banzhaf", "leave-one-out")
UTILITIES = ("knn-accuracy", "knn-probability", "knn-log-likelihood", "knn-brier")


def cloud(seed, n, m, num_classes, d=3):
    rng = np.random.default_rng(seed)
    x, x_val = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    # Every class is there, and the own one of a validation point need not be.
    y, y_val = np.arange(n) % num_classes, rng.integers(0, num_classes, m)
    return x, rng.permutation(y), x_val, y_val


class OfCounts:
    """A utility by its definition: V of the labels of the K nearest of each validation point."""

    def __init__(self, x, y, x_val, y_val, k, name, few, empty):
        self.num_players, self._k, self._few, self._empty = len(x), k, few, empty
        self._y, self._y_val, self._name = y, y_val, name
        centre = x.mean(axis=0)
        a, b = x - centre, x_val - centre
        cosine = b @ a.T / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)[:, np.newaxis]
        self._ranks = np.argsort(np.argsort(-cosine, axis=1, kind="stable"), axis=1)
        self._num_classes = max(y.max(), y_val.max()) + 1

    def score(self, coalition):
        scores = []
        for ranks, label in zip(self._ranks, self._y_val, strict=True):
            nearest = coalition[np.argsort(ranks[coalition])][: self._k]
            if len(nearest) < (1 if self._few == "vote" else self._k):
                scores.append(self._empty)
                continue
            votes = np.bincount(self._y[nearest], minlength=self._num_classes)
            share = votes[label] / len(nearest)
            scores.append(
                {
                    "knn-accuracy": float(votes.argmax() == label),
                    "knn-probability": share,
                    "knn-log-likelihood": np.log(
                        (votes[label] + 1) / (len(nearest) + self._num_classes)
                    ),
                    "knn-brier": 1 - (1 - share) ** 2,
                }[self._name]
            )
        return float(np.mean(scores))


@pytest.mark.parametrize("few", ["vote", "default"])
@pytest.mark.parametrize(
    ("n", "k", "num_classes"), [(9, 3, 2), (9, 4, 3), (9, 5, 4), (6, 9, 3), (8, 1, 3)]
)
@pytest.mark.parametrize("name", UTILITIES)
def test_values_are_those_of_all_coalitions(name, n, k, num_classes, few):
    points = cloud(n * k, n, 4, num_classes)
    game = OfCounts(*points, k, name, few, 0.2)
    for semivalue in SEMIVALUES:
        found = knn_values(*points, utility=name, k=k, semivalue=semivalue, few=few, empty=0.2)
        expected = by_enumeration(game, size_weights(semivalue, n))
        assert_allclose(found, expected, atol=ROUNDING, err_msg=semivalue)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("few", ["vote", "default"])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_accuracy_is_the_game_that_is_sampled(num_classes, few, class_weights):
    points = cloud(5, 8, 6, num_classes)
    game = KnnAccuracy(*points, k=3, class_weights=class_weights, few=few)
    found = knn_values(*points, k=3, class_weights=class_weights, few=few)
    assert_allclose(found, by_enumeration(game, size_weights("shapley", 8)), atol=ROUNDING)


@pytest.mark.parametrize("semivalue", SEMIVALUES)
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_share_of_k_is_the_published_closed_form(semivalue, class_weights):
    """Shares of K rather than of |S| are the utility that Jia et al. solve."""
    k, points = 7, cloud(1, 400, 30, 4, d=8)
    found = knn_values(
        *points, utility=lambda matches, others: matches / k, k=k, semivalue=semivalue,
        class_weights=class_weights,
    )  # fmt: skip
    game = knn_game(*points, k=k, metric="cosine", semivalue=semivalue, class_weights=class_weights)
    assert_allclose(found, game_values(game).value[0], rtol=0, atol=1e-14)


def test_training_points_value_each_other_without_themselves():
    x, y, *_ = cloud(2, 60, 1, 3)
    found = knn_values(x, y, utility=lambda matches, others: matches / 5, k=5)
    assert_allclose(found, dcai_ray.knn_shapley(x, y, k=5), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", UTILITIES)
@pytest.mark.parametrize("num_classes", [2, 5])
def test_values_sum_to_what_all_points_are_worth(name, num_classes):
    n, k = 3000, 10
    points = cloud(3, n, 5, num_classes, d=6)
    found = knn_values(*points, utility=name, k=k, empty=0.3)
    everyone = OfCounts(*points, k, name, "vote", 0.3).score(np.arange(n))
    assert_allclose(found.sum(), everyone - 0.3, atol=1e-12)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_who_is_of_no_use_has_no_value_and_equals_are_worth_the_same(num_classes):
    """The farthest of many points: no coalition of K nearer ones asks it. Copies are equals."""
    x, y, x_val, y_val = cloud(4, 50, 1, num_classes)
    x[1], y[1] = x[0], y[0]
    found = knn_values(x, y, x_val, y_val, k=3)
    assert found[0] == pytest.approx(found[1], abs=1e-15)
    single = knn_values(x, y, x_val, y_val, k=3, semivalue="leave-one-out")
    order = np.argsort(-np.abs(single))
    assert_array_equal(single[order[6:]], 0.0)


@pytest.mark.parametrize("semivalue", ["shapley", "beta"])
@pytest.mark.parametrize(("n", "k"), [(100, 90), (1500, 10), (1500, 200), (20_000, 10)])
def test_twice_the_nodes_change_nothing(n, k, semivalue):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    points = (rng.standard_normal((n, 2)), y, rng.standard_normal((1, 2)), y[:1])
    game = knn_game(*points, k=k, metric="cosine")
    counted = count_game(game, "knn-accuracy", k=k, semivalue=semivalue)
    # Of a game 64 times as large, for which there are twice as many nodes.
    nodes, weights = quadrature(semivalue, (4.0, 1.0), 64 * n, k)
    assert len(nodes) >= 1.9 * len(counted.nodes)
    finer = replace(counted, nodes=nodes, weights=weights)
    block = game.val_blocks[0]
    found, exact = (count_block_sums(one, block).total[0] for one in (counted, finer))
    assert np.abs(found - exact).max() <= 1e-12


@pytest.mark.parametrize("num_classes", [2, 3])
def test_tiles_and_the_order_of_blocks_change_no_bit(num_classes):
    points = cloud(6, 90, 150, num_classes)
    whole = knn_values(*points, k=4)
    assert_array_equal(knn_values(*points, k=4, tile_bytes=1), whole)
    game = knn_game(*points, k=4, metric="cosine")
    counted = count_game(game, "knn-accuracy", k=4)
    blocks = [count_block_sums(counted, block) for block in reversed(game.val_blocks)]
    assert len(blocks) == 3
    assert_array_equal(merged(game, reversed(blocks)).value[0], whole)


def test_standard_errors_are_those_of_the_mean_over_validation_points():
    x, y, x_val, y_val = cloud(7, 40, 12, 3)
    game = knn_game(x, y, x_val, y_val, k=3, metric="cosine")
    counted = count_game(game, "knn-brier", k=3)
    found = merged(game, (count_block_sums(counted, block) for block in game.val_blocks))
    by_point = np.array(
        [
            knn_values(x, y, x_val[i : i + 1], y_val[i : i + 1], utility="knn-brier", k=3)
            for i in range(12)
        ]
    )
    assert_allclose(found.value[0], by_point.mean(axis=0), atol=1e-15)
    assert_allclose(found.stderr[0], by_point.std(axis=0, ddof=1) / np.sqrt(12), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"utility": "knn-acuracy"}, "utility must be knn-accuracy, knn-probability"),
        ({"utility": lambda m, o: float("nan")}, "the utility must be finite"),
        ({"semivalue": "core"}, "semivalue must be shapley"),
        ({"semivalue": "beta", "beta": (0.5, 1.0)}, "beta must be at least 1"),
        ({"few": "none"}, "few must be vote or default"),
        ({"k": 2.5}, "k must be a whole number"),
        ({"class_weights": "Balanced"}, "class_weights must be balanced or none"),
        ({"x_val": None}, "x_val and y_val must be given together"),
        ({"empty": float("inf")}, "must be finite"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    x, y, x_val, y_val = cloud(8, 10, 3, 3)
    arguments = {"x_val": x_val, "y_val": y_val, **changes}
    with pytest.raises(UserError, match=message):
        knn_values(x, y, **arguments)


def test_a_vote_that_no_worker_can_hold_is_refused(monkeypatch):
    monkeypatch.setattr("dcai_ray.valuation.count_values._MAX_GAINS", 29)
    with pytest.raises(UserError, match="exact knn-accuracy of 10 points in 3 classes needs"):
        knn_values(*cloud(8, 10, 3, 3))
    knn_values(*cloud(8, 10, 3, 3), utility="knn-brier")


@pytest.mark.parametrize("few", ["vote", "default"])
def test_a_label_that_no_training_point_has_is_never_right(few):
    x, y, x_val, _ = cloud(10, 8, 3, 2)
    points = (x, y, x_val, np.array([2, 0, 2]))
    game = OfCounts(*points, 3, "knn-accuracy", few, 0.4)
    found = knn_values(*points, k=3, few=few, empty=0.4)
    assert_allclose(found, by_enumeration(game, size_weights("shapley", 8)), atol=ROUNDING)


def test_labels_may_be_text():
    x, y, x_val, y_val = cloud(9, 20, 5, 3)
    names = np.array(["ant", "bee", "cat"])
    assert_array_equal(knn_values(x, names[y], x_val, names[y_val]), knn_values(x, y, x_val, y_val))
