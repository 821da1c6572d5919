"""The closed form against its definition: all coalitions of small games, ties and all."""

import itertools
import pickle
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import beta as beta_function

from dcai_ray.valuation.knn_shapley import (
    game_values,
    knn_game,
    knn_shapley,
    merged,
    val_block_sums,
)
from dcai_ray.valuation.neighbours import far_points, neighbour_order, newcomer_places

SUM_OF_FEW = 1e-13  # a few hundred terms below 1
METRICS = ("euclidean", "cosine")


def small_game(seed, n, m=3, d=2):
    """Points on a grid of whole numbers, so that many distances tie; random labels of three
    classes, so that both signs occur."""
    rng = np.random.default_rng(seed)
    x, x_val = rng.integers(0, 4, (n, d)), rng.integers(0, 4, (m, d))
    return x, rng.integers(0, 3, n), x_val, rng.integers(0, 3, m)


def cloud(seed, n, m, d=5):
    rng = np.random.default_rng(seed)
    x, x_val = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    return x, rng.integers(0, 3, n), x_val, rng.integers(0, 3, m)


def exact_ranking(x_train, point, metric):
    """Indices nearest first, ties by index, in whole numbers and fractions: no rounding."""
    n, centre = len(x_train), x_train.sum(axis=0)
    whole, goal = n * x_train - centre, n * point - centre  # n times the centred points
    if metric == "euclidean":
        distance = ((whole - goal) ** 2).sum(axis=1).tolist()
    else:  # - sign(cos) cos^2, but for the length of `goal`
        pairs = zip((whole @ goal).tolist(), (whole**2).sum(axis=1).tolist(), strict=True)
        distance = [Fraction(-dot * abs(dot), length) if length else 0 for dot, length in pairs]
    return sorted(range(n), key=lambda i: (distance[i], i))


def utilities(x_train, y_train, x_val, y_val, k, metric, leave_one_out=False):
    """(2^n,) v(S) for every coalition S, a bit a player, as the module's docstring defines it."""
    n = len(x_train)
    members = (np.arange(2**n)[:, np.newaxis] >> np.arange(n) & 1).astype(bool)  # (2^n, n)
    v = np.zeros(2**n)
    for own, (point, label) in enumerate(zip(x_val, y_val, strict=True)):
        ranking = exact_ranking(x_train, point, metric)
        if leave_one_out:
            ranking.remove(own)
        there = members[:, ranking]  # nearest first
        votes = there & (there.cumsum(axis=1) <= k)
        v += (votes & (y_train[ranking] == label)).sum(axis=1) / k
    return v / len(x_val)


def semivalue(v, size_weights):
    """sum over S of p(|S|) / C(n-1, |S|) (v(S + i) - v(S)); `size_weights` p sums to 1."""
    n = len(size_weights)
    coalitions = np.arange(2**n)
    sizes = (coalitions[:, np.newaxis] >> np.arange(n) & 1).sum(axis=1)
    each = np.array([p / comb(n - 1, size) for size, p in enumerate(size_weights)])
    values = []
    for i in range(n):
        without = coalitions[(coalitions >> i & 1) == 0]
        values.append(each[sizes[without]] @ (v[without | 1 << i] - v[without]))
    return np.array(values)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", range(1, 10))
def test_equals_shapley_by_enumeration_for_every_k(n, metric):
    for k, seed in itertools.product(range(1, n + 3), range(4)):
        game = small_game(seed, n)
        expected = semivalue(utilities(*game, k, metric), np.full(n, 1 / n))
        assert_allclose(knn_shapley(*game, k=k, metric=metric), expected, atol=SUM_OF_FEW)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", range(2, 9))
def test_without_validation_set_each_point_is_left_out_of_its_own_ranking(n, metric):
    for k, seed in itertools.product(range(1, n + 2), range(2)):
        x, y, _, _ = small_game(seed, n)
        v = utilities(x, y, x, y, k, metric, leave_one_out=True)
        expected = semivalue(v, np.full(n, 1 / n))
        assert_allclose(knn_shapley(x, y, k=k, metric=metric), expected, atol=SUM_OF_FEW)


def test_each_of_many_points_is_left_out_of_its_own_ranking_alone():
    x, y, _, _ = cloud(8, n=150, m=1)  # three blocks
    expected = np.zeros(150)
    for j in range(150):
        others = np.arange(150) != j
        one = knn_shapley(x[others], y[others], x[[j]], y[[j]], k=5, metric="euclidean")
        expected[others] += one / 150
    assert_allclose(knn_shapley(x, y, k=5, metric="euclidean"), expected, atol=SUM_OF_FEW)


def beta_sizes(n, a, b):
    """P(|S|) of Beta(a, b) Shapley, Kwon & Zou 2022, eq. 5: C(n-1, s) B(s+b, n-1-s+a) / B(a, b)."""
    return [
        comb(n - 1, s) * beta_function(s + b, n - 1 - s + a) / beta_function(a, b) for s in range(n)
    ]


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7, 9])
@pytest.mark.parametrize(
    ("name", "beta", "sizes"),
    [
        ("banzhaf", (4, 1), [comb(6, size) / 2**6 for size in range(7)]),
        ("beta", (4, 1), beta_sizes(7, 4, 1)),
        ("beta", (1, 16), beta_sizes(7, 1, 16)),
        ("leave-one-out", (4, 1), [0, 0, 0, 0, 0, 0, 1]),
        ("shapley", (4, 1), [1 / 7] * 7),
    ],
)
def test_other_semivalues_equal_enumeration(name, beta, sizes, k):
    points = small_game(11, 7)
    expected = semivalue(utilities(*points, k, "cosine"), sizes)
    game = knn_game(*points, k=k, metric="cosine", semivalue=name, beta=beta)
    assert_allclose(
        game_values(game).value[0], expected, atol=1e-12
    )  # the table comes from SciPy's cdf


@pytest.mark.parametrize("k", [1, 10, 150, 500])
def test_values_sum_to_the_utility_of_the_whole_set(k):
    x, y, x_val, y_val = cloud(3, n=200, m=150)
    squared = ((x_val[:, np.newaxis] - x) ** 2).sum(axis=-1)  # (m, n)
    votes = y[squared.argsort(axis=1)[:, :k]] == y_val[:, np.newaxis]
    values = knn_shapley(x, y, x_val, y_val, k=k, metric="euclidean")
    assert_allclose(values.sum(), votes.sum() / k / 150, rtol=1e-12)  # 200 x 150 terms


def test_any_spread_of_the_blocks_gives_the_same_bits_if_merged_in_order():
    points = cloud(4, n=300, m=400)
    game = knn_game(
        *points,
        k=5,
        metric="cosine",
        class_weights="balanced",
        further_k=(20,),
        x_newcomers=points[2][::9],
    )
    assert len(game.val_blocks) > 3
    expected = game_values(game)
    for workers in (2, 3):
        by_worker = [
            [val_block_sums(game, b) for b in game.val_blocks[w::workers]] for w in range(workers)
        ]
        in_order = [by_worker[i % workers][i // workers] for i in range(len(game.val_blocks))]
        found = merged(game, in_order)
        assert_array_equal(found.value, expected.value)
        assert_array_equal(found.stderr, expected.stderr)
        assert_array_equal(found.newcomers, expected.newcomers)
    assert_array_equal(knn_shapley(*points, k=5, tile_bytes=1), knn_shapley(*points, k=5))


def test_sums_are_taken_to_their_end_as_only_then_their_source_reports_it():
    game = knn_game(*cloud(4, n=30, m=20), k=5, metric="cosine")
    ended = []

    def source():
        yield from (val_block_sums(game, block) for block in game.val_blocks)
        ended.append(True)

    merged(game, source())
    assert ended


def test_order_breaks_ties_by_lowest_index():
    distance = np.array([[2.0, 1.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[1, 3, 0, 2], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert_array_equal(neighbour_order(distance), expected)
    rounding = 1e-15 * np.array([[0, 1, -1, 0], [1, 0, 0, -1], [1, 0, -1, 1]])
    assert_array_equal(neighbour_order(1 + distance + rounding), expected)


@pytest.mark.parametrize(
    ("x_train", "x_val", "metric"),
    [
        (np.full((6, 3), 0.1), [[1.0, 2.0, 3.0]], "euclidean"),
        (np.full((6, 3), 0.1), [[1.0, 2.0, 3.0]], "cosine"),
        (np.outer([-7, -3, -1, 2, 4, 5], [1, 2, 3]), [[1, 1, -1]], "cosine"),  # at right angles
    ],
)
def test_rounding_errors_rank_no_points_that_are_all_equally_far(x_train, x_val, metric):
    y = np.array([0, 1, 1, 0, 1, 0])
    found = knn_shapley(x_train, y, np.array(x_val), [1], k=2, metric=metric)
    in_a_row = np.arange(6.0)[:, np.newaxis]
    assert_array_equal(found, knn_shapley(in_a_row, y, in_a_row[:1], [1], k=2, metric="euclidean"))


def test_order_is_that_of_a_stable_sort():
    rng = np.random.default_rng(0)
    # Whole numbers of 17 bits: every digit of the sort is used, and many of 5,000 tie.
    distance = rng.integers(0, 2**17, (4, 5000)) * 1.0
    assert_array_equal(neighbour_order(distance), distance.argsort(axis=1, kind="stable"))


def test_order_leaves_out_the_point_named():
    distance = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    assert_array_equal(neighbour_order(distance, np.array([1, -1])), [[0, 2], [0, 1]])


@pytest.mark.parametrize("metric", METRICS)
def test_ranks_do_not_depend_on_scale_or_place(metric):
    x, y, x_val, y_val = cloud(6, n=200, m=20)
    expected = knn_shapley(x, y, x_val, y_val, metric=metric)
    for scale, shift in ((1e-9, 0.0), (1e9, 0.0), (1.0, 1e3)):
        moved = knn_shapley(x * scale + shift, y, x_val * scale + shift, y_val, metric=metric)
        assert_array_equal(moved, expected)


@pytest.mark.parametrize("far", [10**4, 10**6, 10**9, 10**15])
@pytest.mark.parametrize("places", [[3], [3, 11]])
@pytest.mark.parametrize("n", [12, 60])
def test_far_points_change_no_rank_of_the_others(far, places, n):
    """The truth is in whole numbers of any size."""
    x, y, x_val, y_val = small_game(1, n, m=8, d=3)
    x, x_val = x.astype(object), x_val.astype(object)
    for place in places[: n // 10]:
        x[place, 1] = far + place
    x_val[0, 1] = min(far, 10**6) - 1  # nearest to the far ones; farther, it would see ties itself
    rankings = [exact_ranking(x, point, "euclidean") for point in x_val]
    for k in (1, 4):
        found = knn_shapley(np.float64(x), y, np.float64(x_val), y_val, k=k, metric="euclidean")
        in_order = np.zeros(n)
        for ranking, label in zip(rankings, y_val, strict=True):
            line = np.empty((n, 1))
            line[ranking, 0] = np.arange(n)
            in_order += knn_shapley(line, y, [[-1.0]], [label], k=k, metric="euclidean") / 8
        assert_allclose(found, in_order, atol=SUM_OF_FEW)


@pytest.mark.parametrize("metric", METRICS)
def test_a_sentinel_in_one_row_leaves_the_values_of_the_others_almost_as_they_are(metric):
    x, y, x_val, y_val = cloud(2, n=400, m=60)
    expected = knn_shapley(x, y, x_val, y_val, metric=metric)
    spoilt = x.copy()
    spoilt[17, 2] = 1e6
    found = knn_shapley(spoilt, y, x_val, y_val, metric=metric)
    others = np.arange(400) != 17
    # Only the ranks beyond the one that has moved change, by one.
    assert np.abs(found - expected)[others].max() < 0.05 * np.abs(expected).max()
    assert np.corrcoef(found[others], expected[others])[0, 1] > 0.999
    by_self = knn_shapley(spoilt, y, metric=metric)  # one validation point of 400 has moved, too
    assert np.corrcoef(by_self[others], knn_shapley(x, y, metric=metric)[others])[0, 1] > 0.99


def test_newcomers_find_their_places_beside_far_points():
    x, y, x_val, y_val = small_game(5, 20, m=9)
    x, extra = np.float64(x), np.array([[1.0, 2.0], [1e7, 0.0], [3e6, 1.0], [1e300, 0.0]])
    x[4, 0] = 5e6
    options = {"k": 3, "metric": "euclidean", "class_weights": "balanced"}
    found = game_values(knn_game(x, y, x_val, y_val, **options, x_newcomers=extra)).newcomers[0]
    for newcomer, label in itertools.product(range(3), range(3)):
        joined = np.vstack([x, extra[[newcomer]]]), np.append(y, label)
        expected = knn_shapley(*joined, x_val, y_val, **options)[-1]
        assert_allclose(found[newcomer, label], expected, atol=SUM_OF_FEW)
    assert np.isfinite(found).all()


def test_what_is_spread_wide_has_no_far_points():
    rng = np.random.default_rng(0)
    for x in (
        rng.standard_normal((500, 6)),
        rng.standard_t(2, (500, 6)),
        np.repeat(np.eye(4), 20, axis=0) * [1, 1, 1, 1e6],  # a quarter of the points
        np.zeros((50, 3)),
        np.eye(3)[[0] * 48 + [1, 2]],  # nearly all are equal
    ):
        assert len(far_points(x)) == 0
    x[7] = 1e5
    assert far_points(rng.standard_normal((50, 3)) + x).tolist() == [7]


def one_by_one(x, y, x_val, y_val, k):
    """(m, n) values for each validation point alone."""
    points = [(x_val[[j]], y_val[[j]]) for j in range(len(y_val))]
    return np.array([knn_shapley(x, y, *point, k=k, metric="euclidean") for point in points])


def test_stderr_is_that_of_a_mean_over_validation_points():
    points = cloud(7, n=40, m=130)
    game = knn_game(*points, k=5, metric="euclidean")
    expected = np.std(one_by_one(*points, 5), axis=0, ddof=1) / np.sqrt(130)
    # A difference of sums of squares: half of the digits may go where the spread is small.
    assert_allclose(game_values(game).stderr[0], expected, rtol=1e-8)
    alone = knn_game(*points[:2], points[2][:1], points[3][:1], k=5, metric="euclidean")
    assert np.isnan(game_values(alone).stderr).all()


def test_balanced_stderr_is_that_of_a_mean_of_class_means():
    x, y, x_val, _ = cloud(7, n=40, m=131)
    y_val = np.repeat([0, 1, 2], [90, 40, 1])
    own = one_by_one(x, y, x_val, y_val, 5)
    spreads = [own[y_val == c].var(axis=0, ddof=1) for c in (0, 1)]
    spreads.append(np.mean(spreads, axis=0))  # a class with a single point: that of the others
    expected = np.sqrt(sum(s / m for s, m in zip(spreads, (90, 40, 1), strict=True))) / 3
    game = knn_game(x, y, x_val, y_val, k=5, metric="euclidean", class_weights="balanced")
    assert_allclose(game_values(game).stderr[0], expected, rtol=1e-8)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", range(2, 9))
def test_balanced_values_equal_enumeration_of_the_mean_over_classes(n, metric):
    for k, seed in itertools.product(range(1, n + 2), range(2)):
        x, y, x_val, y_val = small_game(seed, n, m=6)
        classes = [utilities(x, y, x_val[y_val == c], y_val[y_val == c], k, metric)
                   for c in np.unique(y_val)]  # fmt: skip
        expected = semivalue(np.mean(classes, axis=0), np.full(n, 1 / n))
        found = knn_shapley(x, y, x_val, y_val, k=k, metric=metric, class_weights="balanced")
        assert_allclose(found, expected, atol=SUM_OF_FEW)


@pytest.mark.parametrize("n", range(2, 8))
def test_balanced_values_without_validation_set_equal_enumeration(n):
    for k, seed in itertools.product(range(1, n + 1), range(3)):
        x, y, _, _ = small_game(seed, n)
        v = np.zeros(2**n)
        for c in np.unique(y):
            points = [point for point in range(n) if y[point] == c]
            v += np.mean([left_out_utilities(x, y, point, k) for point in points], axis=0)
        expected = semivalue(v / len(np.unique(y)), np.full(n, 1 / n))
        found = knn_shapley(x, y, k=k, metric="euclidean", class_weights="balanced")
        assert_allclose(found, expected, atol=SUM_OF_FEW)


def left_out_utilities(x, y, point, k, others=None):
    """(2^n,) v(S) for one training point as the only validation point, left out itself; of some
    `others` only."""
    n = len(x)
    ranking = [i for i in exact_ranking(x, x[point], "euclidean") if i != point]
    ranking = [i for i in ranking if others is None or i in others]
    members = (np.arange(2**n)[:, np.newaxis] >> np.arange(n) & 1).astype(bool)
    there = members[:, ranking]
    votes = there & (there.cumsum(axis=1) <= k)
    return (votes & (y[ranking] == y[point])).sum(axis=1) / k


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("semivalue_name", ["shapley", "banzhaf"])
@pytest.mark.parametrize("n", range(2, 8))
def test_values_without_near_copies_equal_enumeration_of_the_game_without_them(
    n, semivalue_name, class_weights
):
    weights = np.full(n, 1 / n) if semivalue_name == "shapley" else banzhaf_weights(n)
    for k, seed in itertools.product((1, 2, n), range(3)):
        x, y, _, _ = small_game(seed, n)
        rng = np.random.default_rng(seed)
        copies = rng.integers(0, n, (n, 2))
        copies = copies[copies[:, 0] != copies[:, 1]]
        apart = {frozenset(pair) for pair in copies.tolist()}
        own = []
        for point in range(n):
            without = [i for i in range(n) if frozenset((i, point)) not in apart and i != point]
            own.append(left_out_utilities(x, y, point, k, without))
        groups = [np.arange(n)]
        if class_weights == "balanced":
            groups = [np.flatnonzero(y == c) for c in np.unique(y)]
        v = np.mean([np.mean([own[i] for i in group], axis=0) for group in groups], axis=0)
        game = knn_game(
            x, y, None, None, k=k, metric="euclidean", semivalue=semivalue_name,
            class_weights=class_weights, copies=copies,
        )  # fmt: skip
        assert_allclose(game_values(game).value[0], semivalue(v, weights), atol=SUM_OF_FEW)


def banzhaf_weights(n):
    """Of a coalition of each size, as `semivalue` wants them: every coalition alike."""
    return np.array([comb(n - 1, size) for size in range(n)]) / 2 ** (n - 1)


def test_without_near_copies_no_bit_changes_and_clean_points_know_none():
    x, y, x_val, y_val = cloud(3, n=90, m=20)
    options = {"k": 5, "metric": "cosine", "class_weights": "balanced"}
    none, some = np.empty((0, 2), int), np.array([[0, 1], [5, 70]])
    by_self = game_values(knn_game(x, y, None, None, **options)).value
    again = game_values(knn_game(x, y, None, None, **options, copies=none)).value
    assert_array_equal(again, by_self)
    assert (game_values(knn_game(x, y, None, None, **options, copies=some)).value != by_self).any()
    by_clean = game_values(knn_game(x, y, x_val, y_val, **options)).value
    again = game_values(knn_game(x, y, x_val, y_val, **options, copies=some)).value
    assert_array_equal(again, by_clean)


def test_a_burst_under_a_wrong_label_does_not_vouch_for_itself():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 100)
    x = rng.standard_normal((200, 8)) + 3 * y[:, np.newaxis]
    burst = np.arange(12)
    x[burst] = 1 + 0.01 * rng.standard_normal((12, 8))  # nearer to class 0 than to class 1
    y[burst] = 1
    pairs = np.array(list(itertools.combinations(burst, 2)))
    options = {"k": 10, "metric": "euclidean"}
    with_copies = game_values(knn_game(x, y, None, None, **options)).value[0]
    without = game_values(knn_game(x, y, None, None, **options, copies=pairs)).value[0]
    assert (with_copies[burst] > 0).all()
    assert (without[burst] < 0).all()
    assert set(without.argsort()[:12]) == set(burst)


def test_balanced_and_plain_values_agree_where_classes_are_equally_frequent():
    x, y, x_val, _ = cloud(9, n=300, m=201)
    y_val = np.arange(201) % 3
    plain = knn_shapley(x, y, x_val, y_val)
    balanced = knn_shapley(x, y, x_val, y_val, class_weights="balanced")
    assert_allclose(balanced, plain, atol=1e-15)
    y = np.arange(300) % 3
    assert_allclose(knn_shapley(x, y, class_weights="balanced"), knn_shapley(x, y), atol=1e-15)


def test_further_numbers_of_neighbours_have_the_values_that_they_have_alone():
    points = cloud(5, n=200, m=90)
    game = knn_game(*points, k=3, metric="cosine", semivalue="banzhaf", further_k=(10, 50))
    found = game_values(game).value
    alone = knn_game(*points, k=3, metric="cosine", semivalue="banzhaf")
    assert_array_equal(found[0], game_values(alone).value[0])
    assert_array_equal(found[1], knn_shapley(*points, k=10))
    assert_array_equal(found[2], knn_shapley(*points, k=50))


@pytest.mark.parametrize("k", [1, 3, 8, 20])
def test_a_newcomer_has_the_value_of_a_player_added_last(k):
    x, y, x_val, y_val = small_game(2, 9, m=12)
    extra, _, _, _ = small_game(3, 5)
    options = {"k": k, "metric": "euclidean", "class_weights": "balanced"}
    game = knn_game(x, y, x_val, y_val, **options, x_newcomers=extra)
    found = game_values(game).newcomers[0]  # (5, 3)
    for newcomer, label in itertools.product(range(5), range(3)):
        joined = np.vstack([x, extra[[newcomer]]]), np.append(y, label)
        expected = knn_shapley(*joined, x_val, y_val, **options)[-1]
        assert_allclose(found[newcomer, label], expected, atol=SUM_OF_FEW)
    by_self = knn_game(x, y, None, None, **options, x_newcomers=extra)
    for newcomer, label in itertools.product(range(5), range(3)):
        expected = np.mean([
            np.mean([
                knn_shapley(
                    np.vstack([np.delete(x, i, 0), extra[[newcomer]]]),
                    np.append(np.delete(y, i), label),
                    x[[i]], y[[i]], k=k, metric="euclidean",
                )[-1]
                for i in np.flatnonzero(y == c)
            ])
            for c in np.unique(y)
        ])  # fmt: skip
        found = game_values(by_self).newcomers[0][newcomer, label]
        assert_allclose(found, expected, atol=SUM_OF_FEW)


def test_a_validation_point_does_not_value_itself_or_its_copies_as_newcomers():
    x, y, x_val, _ = cloud(6, n=30, m=8)
    y_val = np.array([0, 0, 0, 1, 1, 1, 1, 2])  # of the last there is no other
    options = {"k": 4, "metric": "cosine", "class_weights": "balanced"}
    own = np.array([-1, 0, -1, -1, 1, -1, -1, 2])
    itself = np.stack([np.flatnonzero(own >= 0), own[own >= 0]], axis=1)
    pairs = np.concatenate([itself, [(0, 1), (6, 1), (3, 0), (6, 2)]])  # in no order
    points = (x, y, x_val, y_val)
    game = knn_game(*points, **options, x_newcomers=x_val[own >= 0], unvalued=pairs)
    found = game_values(game).newcomers
    for newcomer, point in enumerate(np.flatnonzero(own >= 0)):
        others = ~np.isin(np.arange(8), pairs[pairs[:, 1] == newcomer, 0])
        left = (x, y, x_val[others], y_val[others])
        alone = knn_game(*left, **options, x_newcomers=x_val[[point]])
        expected = game_values(alone).newcomers[0, 0]
        seen = expected.shape[0]  # a class that is left out altogether has no column
        assert_allclose(found[0, newcomer, :seen], expected, atol=SUM_OF_FEW)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_a_relabelled_point_has_the_value_that_it_has_with_that_label(k):
    x, y, x_val, y_val = small_game(4, 9, m=12)
    options = {"k": k, "metric": "euclidean", "class_weights": "balanced"}
    game = knn_game(x, y, x_val, y_val, **options, further_k=(2,), relabelled=np.array([0, 3, 8]))
    found = game_values(game).relabelled
    for row, point in enumerate((0, 3, 8)):
        for label in range(3):
            changed = np.where(np.arange(9) == point, label, y)
            expected = knn_shapley(x, changed, x_val, y_val, **options)[point]
            assert_allclose(found[0, row, label], expected, atol=SUM_OF_FEW)
            expected = knn_shapley(x, changed, x_val, y_val, **options | {"k": 2})[point]
            assert_allclose(found[1, row, label], expected, atol=SUM_OF_FEW)


def test_a_newcomer_comes_after_those_that_tie_with_it():
    distance = np.array([[2.0, 1.0, 2.0, 1.0, 5.0]])
    order = neighbour_order(distance)
    further = np.array([[0.5, 1.0, 1.5, 2.0 + 1e-12, 5.0, 9.0]])
    assert_array_equal(newcomer_places(distance, order, further), [[0, 2, 2, 4, 5, 5]])
    order = neighbour_order(distance, np.array([3]))
    assert_array_equal(newcomer_places(distance, order, further), [[0, 1, 1, 3, 4, 4]])


def test_values_of_an_image_without_effect_are_its_share_of_guessing_whatever_its_class():
    """What the rule `chance` relies on: features that say nothing, and classes of unequal size."""
    rng = np.random.default_rng(1)
    y, y_val = np.repeat([0, 1, 2], [60, 25, 5]), np.repeat([0, 1, 2], [40, 30, 10])
    found = np.zeros((400, 90))
    for draw in range(400):
        x, x_val = rng.standard_normal((90, 3)), rng.standard_normal((80, 3))
        found[draw] = knn_shapley(x, y, x_val, y_val, k=5, class_weights="balanced")
    means = [found[:, y == c].mean(axis=1) for c in range(3)]
    for mean in means:
        assert abs(mean.mean() - 1 / (3 * 90)) < 4 * mean.std() / 20


def test_values_published_with_the_study(shared_data):
    """Liang et al. 2022: 1,500 training images valued by 238, K = 10."""

    def read(name):
        with (shared_data / "paper" / f"{name}.pkl").open("rb") as file:
            return pickle.load(file)

    train, clean = read("feature_dump_train"), read("feature_dump_shapley_val")
    points = (part[key] for part in (train, clean) for key in ("feature_all", "target_all"))
    values = knn_shapley(*points, k=10, metric="euclidean")
    published = read("shapley_value")["global_shapley_arr"]
    assert_allclose(values, published, atol=1e-6)  # theirs are from float32 distances
    assert np.count_nonzero(values < 0) == 245


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"semivalue": "owen"}, "beta or leave-one-out, got 'owen'"),
        ({"metric": "manhattan"}, "metric must be euclidean or cosine, got 'manhattan'"),
        ({"x_train": np.full((7, 2), np.nan)}, "x_train must be finite, got 14 NaN or infinite"),
        ({"x_val": np.array([[0, 1], [np.inf, 0], [0, 0]])}, "x_val must be finite, got 1 NaN"),
        ({"x_val": np.ones((3, 5))}, "same number of features, got 2 and 5"),
        ({"y_train": np.ones(6, int)}, "must have one row per point, got 7 and 6"),
        ({"x_val": np.ones((0, 2)), "y_val": np.ones(0, int)}, "x_val must be a non-empty"),
        ({"y_val": None}, "x_val and y_val must be given together"),
        ({"x_train": np.ones((1, 2)), "y_train": [0], "x_val": None, "y_val": None}, "at least 2"),
    ],
)
def test_bad_input_names_the_value(change, message):
    game = dict(zip(("x_train", "y_train", "x_val", "y_val"), small_game(0, 7), strict=True))
    with pytest.raises(ValueError, match=message):
        knn_game(**({"k": 1, "metric": "cosine"} | game | change))
