"""The utilities of neighbours against their definitions, scikit-learn and the closed form."""

import itertools
import pickle
from collections import Counter
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from dcai_ray.valuation import knn_shapley
from dcai_ray.valuation.plan import new_plan
from dcai_ray.valuation.sampling import new_aggregator, sample
from dcai_ray.valuation.semivalues import by_enumeration, size_weights
from dcai_ray.valuation.stopping import MaxRounds
from dcai_ray.valuation.utilities import Orders, neighbour_table
from dcai_ray.valuation.utilities.knn import Knn
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy
from tests.support import games

ROUNDING = 1e-15  # of a difference of two scores up to 1
WEIGHT_ROUNDING = 20 / 2**41  # of balanced weights: half a unit of 2^-40 for each of 20 points
LABELS = np.array([-5, 7, 1000])  # of three classes, to be numbered


def grid(seed, n, m, d=2, classes=LABELS):
    """Whole numbers, so that many distances tie, and labels at random."""
    rng = np.random.default_rng(seed)
    x, x_val = rng.integers(0, 4, (n, d)), rng.integers(0, 4, (m, d))
    return x * 1.0, rng.choice(classes, n), x_val * 1.0, rng.choice(classes, m)


def changed(game, **change):
    names = ("x_train", "y_train", "x_val", "y_val")
    return tuple(change.get(name, array) for name, array in zip(names, game, strict=True))


GAMES = {
    "three classes, ties": grid(0, n=40, m=17),
    "fewer players than neighbours": grid(1, n=3, m=6),
    "one player": grid(2, n=1, m=5),
    "one validation point": grid(3, n=25, m=1),
    "constant features": changed(grid(4, n=20, m=6), x_train=np.ones((20, 2))),
    "a class of one": changed(grid(5, n=20, m=9), y_train=np.array([-5] * 10 + [7] * 9 + [1000])),
    "a label no player has": changed(grid(6, n=20, m=9), y_train=np.repeat([-5, 1000], 10)),
    "more classes than neighbours": grid(7, n=60, m=20, classes=np.arange(30)),
    "unequal validation classes, one with a single point": changed(
        grid(14, n=30, m=14), y_val=np.repeat(LABELS, [10, 3, 1])
    ),
}
KINDS = {
    "soft": (Knn, {}),
    "vote": (KnnAccuracy, {}),
    "default": (KnnAccuracy, {"few": "default"}),
    "vote, given v(empty)": (KnnAccuracy, {"empty": 0.25}),
    "default, given v(empty)": (KnnAccuracy, {"few": "default", "empty": 0.0}),
    "soft, balanced": (Knn, {"class_weights": "balanced"}),
    "vote, balanced": (KnnAccuracy, {"class_weights": "balanced"}),
    "default, balanced, given v(empty)": (
        KnnAccuracy,
        {"class_weights": "balanced", "few": "default", "empty": 0.25},
    ),
}
BALANCED = [kind for kind in KINDS if "balanced" in kind]
NEIGHBOURS = (1, 2, 5)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=GAMES.values(), ids=GAMES.keys())
def game(request):
    return request.param


def utility(kind, game, **options):
    make, chosen = KINDS[kind]
    return make(*game, metric="euclidean", **chosen, **options)


def definition(kind, game, k, coalition):
    """v(S) in fractions, from squared distances in whole numbers."""
    x, y, x_val, y_val = game
    make, options = KINDS[kind]
    class_sizes = Counter(y_val.tolist())
    balanced = options.get("class_weights") == "balanced"
    total = Fraction(0)
    for point, own in zip(x_val, y_val.tolist(), strict=True):
        squared = ((x - point) ** 2).sum(axis=1)
        nearest = sorted(coalition, key=lambda i: (squared[i], i))[:k]
        votes = Counter(y[nearest].tolist())
        if make is Knn:
            right = Fraction(votes[own], k)
        elif len(coalition) < (k if options.get("few") == "default" else 1):
            common = max(class_sizes.values())  # the constant vote for it is right so often
            constant = Fraction(1, len(class_sizes)) if balanced else Fraction(common, len(y_val))
            right = Fraction(options["empty"]) if "empty" in options else constant
        else:
            right = Fraction(min(votes, key=lambda label: (-votes[label], label)) == own)
        total += right / (len(class_sizes) * class_sizes[own] if balanced else len(y_val))
    return float(total)


def tolerance(kind):
    return WEIGHT_ROUNDING if kind in BALANCED else ROUNDING


def orders_of(*players):
    lengths = [len(order) for order in players]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    together = np.concatenate([*players, []]).astype(np.int32)
    return Orders(together, offsets, np.ones(len(together)))


def differences(utility, order):
    return np.diff([utility.score(order[:size]) for size in range(len(order) + 1)])


@pytest.mark.parametrize("k", NEIGHBOURS)
def test_score_is_the_definition(kind, game, k):
    rng = np.random.default_rng(k)
    n = len(game[0])
    found = utility(kind, game, k=k)
    for size in {0, 1, n // 3, n // 2, n}:
        coalition = rng.permutation(n)[:size]
        expected = definition(kind, game, k, coalition)
        assert_allclose(found.score(coalition), expected, rtol=0, atol=tolerance(kind))


@pytest.mark.parametrize("k", NEIGHBOURS)
def test_sweep_is_the_difference_of_scores_at_every_prefix(kind, game, k):
    rng = np.random.default_rng(k)
    n = len(game[0])
    whole = utility(kind, game, k=k, num_components=4)
    for component in [whole, *whole.components]:
        chosen = [rng.permutation(n), rng.permutation(n), rng.permutation(n)[: n // 2]]
        expected = [differences(component, order) for order in chosen]
        assert_allclose(
            component.marginals(orders_of(*chosen)), np.concatenate(expected), atol=ROUNDING
        )


def test_orders_of_a_multilevel_round_are_swept_as_each_alone(kind):
    n = 120
    found = utility(kind, grid(8, n=n, m=12), k=5)
    rng = np.random.default_rng(0)
    short = [np.array_split(rng.permutation(n), 4**level) for level in range(4)]  # most below K
    chosen = [order for level in short for order in level]
    alone = [found.marginals(orders_of(order)) for order in chosen]
    assert_array_equal(found.marginals(orders_of(*chosen)), np.concatenate(alone))
    empty_ones = [np.array([], dtype=int), chosen[0], np.array([], dtype=int)]
    assert_array_equal(found.marginals(orders_of(*empty_ones)), alone[0])
    assert len(found.marginals(orders_of())) == 0


@pytest.mark.filterwarnings(
    "ignore:The number of unique classes", "ignore:y_pred contains classes", "ignore:A single label"
)
@pytest.mark.parametrize("k", NEIGHBOURS)
def test_accuracy_is_that_of_scikit_learn_on_the_ranks(game, k):
    """Its own choice among points equally far depends on their order: ranks have no ties."""
    x, y, x_val, y_val = game
    squared = ((x_val[:, np.newaxis] - x) ** 2).sum(axis=-1)
    ranks = squared.argsort(axis=1, kind="stable").argsort(axis=1)
    found, balanced = utility("vote", game, k=k), utility("vote, balanced", game, k=k)
    rng = np.random.default_rng(k)
    for size in rng.integers(1, len(x) + 1, 6):
        chosen = np.sort(rng.permutation(len(x))[:size])
        peer = KNeighborsClassifier(min(k, size), metric="precomputed", algorithm="brute")
        peer.fit(np.zeros((size, size)), y[chosen])
        assert found.score(chosen) == peer.score(ranks[:, chosen], y_val)
        expected = balanced_accuracy_score(y_val, peer.predict(ranks[:, chosen]))
        assert_allclose(balanced.score(chosen), expected, rtol=0, atol=WEIGHT_ROUNDING)


def test_accuracy_is_that_of_scikit_learn_on_the_features_of_the_study(shared_data):
    def read(name):
        with (shared_data / "paper" / f"feature_dump_{name}.pkl").open("rb") as file:
            component = pickle.load(file)
        return component["feature_all"], np.asarray(component["target_all"])

    game = (*read("train"), *read("shapley_val"))
    found = utility("vote", game)
    peer = KNeighborsClassifier(10, algorithm="brute").fit(*game[:2])
    everyone = np.arange(1500)
    assert found.score(everyone) == peer.score(*game[2:])
    marginals = found.marginals(orders_of(everyone))
    gained = found.score(everyone) - found.score(everyone[:0])
    assert_allclose(marginals.sum(), gained, atol=1e-12)  # 1,500 terms below 1


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("n", "k"), [*itertools.product((1, 4, 7), (1, 3, 9))])
def test_shapley_value_of_the_soft_game_is_the_closed_form(n, k, metric):
    game = grid(n, n, m=5)
    found = Knn(*game, k=k, metric=metric)
    values = np.zeros(n)
    for size in range(n):
        for coalition in itertools.combinations(range(n), size):
            before = found.score(np.array(coalition, dtype=int))
            for i in set(range(n)) - set(coalition):
                gain = found.score(np.array([*coalition, i])) - before
                values[i] += gain / (n * comb(n - 1, size))
    assert_allclose(values, knn_shapley(*game, k=k, metric=metric), atol=1e-13)  # 2^7 terms


UNEQUAL = changed(grid(15, n=6, m=9), y_val=LABELS[[1, 0, 0, 1, 0, 2, 0, 0, 0]])  # 6, 2 and 1


@pytest.mark.parametrize("kind", BALANCED)
def test_values_of_a_balanced_game_are_those_of_its_enumerated_definition(kind):
    found = utility(kind, UNEQUAL, k=2)
    truth = games.Game(6, lambda s: definition(kind, UNEQUAL, 2, s))
    for number in range(2**6):
        coalition = np.array([i for i in range(6) if number >> i & 1], dtype=int)
        assert_allclose(
            found.score(coalition), truth.score(coalition), rtol=0, atol=WEIGHT_ROUNDING
        )
    players = np.array([*itertools.permutations(range(6))])
    marginals = found.marginals(orders_of(*players))
    shapley = np.bincount(players.ravel(), marginals) / len(players)
    expected = by_enumeration(truth, size_weights("shapley", 6))
    # Each is a mean of differences of two scores.
    assert_allclose(shapley, expected, rtol=0, atol=2 * WEIGHT_ROUNDING)


@pytest.mark.parametrize("sampler", ["multilevel", "permutation", "antithetic"])
@pytest.mark.parametrize("kind", BALANCED)
def test_sampled_values_of_a_balanced_game_are_met_within_four_standard_errors(kind, sampler):
    names = ("shapley", "banzhaf")
    found = utility(kind, UNEQUAL, k=2, num_components=3)
    truth = games.Game(6, lambda s: definition(kind, UNEQUAL, 2, s))
    plan = new_plan(found, sampler=sampler, semivalues=names)
    aggregator = new_aggregator(plan, num_chains=4, stop=MaxRounds(rounds=1500))
    for _ in sample(plan, found, aggregator):
        pass
    for row, name in enumerate(names):
        errors = aggregator.value[row] - by_enumeration(truth, size_weights(name, 6))
        assert (abs(errors) <= 4 * aggregator.stderr[row] + 2 * WEIGHT_ROUNDING).all()
    assert 0 < aggregator.stderr.max() < 0.01


@pytest.mark.parametrize(("make", "options"), [(Knn, {}), (KnnAccuracy, {"empty": 0.0})])
def test_balanced_marginals_are_the_differences_of_scores_bit_for_bit(make, options):
    """K is a power of two, as the denominator is with 4 components: every quotient is exact."""
    game = GAMES["unequal validation classes, one with a single point"]
    whole = make(*game, k=4, class_weights="balanced", num_components=4, **options)
    order = np.random.default_rng(0).permutation(30)
    for component in [whole, *whole.components]:
        assert_array_equal(component.marginals(orders_of(order)), differences(component, order))


def test_a_class_with_a_single_validation_point_weighs_as_much_as_the_others():
    x = np.array([[0.0], [1.0]])
    game = (x, np.array([0, 1]), x[[0] * 9 + [1]], np.array([0] * 9 + [1]))
    for kind, scores in {"vote": [0.9, 0.1], "vote, balanced": [0.5, 0.5]}.items():
        found = utility(kind, game, k=1)
        alone = [found.score(np.array([player])) for player in range(2)]
        assert_allclose(alone, scores, rtol=0, atol=WEIGHT_ROUNDING)
        assert_allclose(found.score(np.arange(2)), 1, rtol=0, atol=WEIGHT_ROUNDING)


@pytest.mark.parametrize("make", [Knn, KnnAccuracy])
def test_balanced_is_none_where_all_classes_have_as_many_validation_points(make):
    game = changed(grid(16, n=40, m=18), y_val=np.tile(LABELS, 6))
    none, balanced = (make(*game, k=5, class_weights=weights) for weights in ("none", "balanced"))
    rng = np.random.default_rng(0)
    orders = orders_of(*(rng.permutation(40) for _ in range(5)))
    assert_allclose(
        balanced.marginals(orders), none.marginals(orders), rtol=0, atol=2 * WEIGHT_ROUNDING
    )


@pytest.mark.parametrize("num_components", [1, 3, 5])
@pytest.mark.parametrize("kind", ["soft", "vote"])
def test_unweighted_points_are_counted_and_divided_once(kind, num_components):
    n, m, k = 30, 17, 5
    x, y, x_val, y_val = game = grid(9, n=n, m=m)
    unit = k if kind == "soft" else 1
    order = np.random.default_rng(0).permutation(n)
    right = np.zeros((m, n + 1), dtype=int)  # votes or points, none for nobody
    for row, size in itertools.product(range(m), range(1, n + 1)):
        alone = (x, y, x_val[[row]], y_val[[row]])
        right[row, size] = round(unit * definition(kind, alone, k, order[:size]))
    empty = 0 if kind == "soft" else max(Counter(y_val.tolist()).values()) / m
    whole = utility(kind, game, k=k, num_components=num_components)
    dealt = np.concatenate([np.arange(turn, m, num_components) for turn in range(num_components)])
    cuts = [m * component // num_components for component in range(num_components + 1)]
    parts = [(whole, range(m), 1)]
    for component, (start, stop) in zip(whole.components, itertools.pairwise(cuts), strict=True):
        parts.append((component, dealt[start:stop], num_components))
    for part, rows, share in parts:
        counts = share * right[rows].sum(axis=0)
        marginals = np.diff(counts) / (m * unit)
        marginals[0] -= len(rows) * share / m * empty
        assert_array_equal(part.marginals(orders_of(order)), marginals)
        scores = [part.score(order[:size]) for size in range(1, n + 1)]
        assert_array_equal(scores, counts[1:] / (m * unit))


@pytest.mark.parametrize("num_components", [1, 2, 4, 7, 30, 51])
def test_balanced_parts_share_every_class_as_evenly_as_can_be(num_components):
    sizes = [31, 12, 7, 1]
    y_val = np.random.default_rng(0).permutation(np.repeat(np.arange(4), sizes))
    game = changed(grid(17, n=10, m=51), y_train=np.arange(10) % 4, y_val=y_val)
    components = Knn(*game, class_weights="balanced", num_components=num_components).components
    held = np.array(
        [np.bincount(component._table.y_val, minlength=4) for component in components]
    )  # (components, classes)
    assert_array_equal(held.sum(axis=0), sizes)
    assert (held.max(axis=0) - held.min(axis=0) <= 1).all()


@pytest.mark.parametrize("num_components", [1, 3, 16, 17, 99])
def test_the_mean_of_the_parts_is_the_whole(kind, num_components):
    found = utility(kind, grid(9, n=30, m=17), k=5, num_components=num_components)
    components = found.components
    assert len(components) == min(num_components, 17)
    rng = np.random.default_rng(0)
    for size in (0, 3, 5, 30):
        coalition = rng.permutation(30)[:size]
        mean = np.mean([component.score(coalition) for component in components])
        assert_allclose(mean, found.score(coalition), atol=ROUNDING)
    orders = orders_of(rng.permutation(30), rng.permutation(30)[:8])
    mean = np.mean([component.marginals(orders) for component in components], axis=0)
    assert_allclose(mean, found.marginals(orders), atol=ROUNDING)


def test_a_part_does_not_split_further(kind):
    component = utility(kind, grid(9, n=30, m=17), num_components=3).components[0]
    (same,) = component.components
    orders = orders_of(np.arange(30))
    assert_array_equal(same.marginals(orders), component.marginals(orders))


def buffers_of(thing):
    """What pickle leaves out of band, as Ray's object store does, and the rest."""
    buffers = []
    rest = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return rest, [buffer.raw() for buffer in buffers]


@pytest.mark.parametrize("walked_by_rank", [True, False])
def test_parts_are_views_and_as_many_as_the_bound_on_their_bytes_asks_for(
    kind, monkeypatch, walked_by_rank
):
    monkeypatch.setattr(neighbour_table, "SKYBAND_FROM", 1 if walked_by_rank else 1000)
    found = utility(kind, grid(10, n=300, m=17), k=5, max_component_bytes=5000, num_components=2)
    row_bytes = 300 * 2 * (2 if walked_by_rank else 1)  # 16 bits hold 300 players
    components = found.components
    rows = [component._table.ranks.shape[0] for component in components]
    assert sum(rows) == 17
    assert max(rows) * row_bytes <= 5000
    assert max(rows) - min(rows) <= 1
    tables = ("ranks", "y_train", "y_val", "val_weights", *(["by_rank"] if walked_by_rank else []))
    for component, name in itertools.product(components, tables):
        assert np.shares_memory(getattr(component._table, name), getattr(found._table, name))
    rest, buffers = buffers_of(components[0])
    labels_and_weights_bytes = 8 * (300 + 2 * rows[0])
    assert sum(len(buffer) for buffer in buffers) == rows[0] * row_bytes + labels_and_weights_bytes
    assert len(rest) < 2000


def test_a_row_larger_than_the_bound_is_a_part_of_its_own():
    assert (
        len(Knn(*grid(10, n=300, m=17), max_component_bytes=1, num_components=2).components) == 17
    )


@pytest.mark.parametrize("walked_by_rank", [True, False])
def test_works_from_read_only_buffers(kind, monkeypatch, walked_by_rank):
    monkeypatch.setattr(neighbour_table, "SKYBAND_FROM", 1 if walked_by_rank else 1000)
    found = utility(kind, grid(11, n=300, m=8), k=5).components[3]
    rest, buffers = buffers_of(found)
    back = pickle.loads(rest, buffers=[bytes(buffer) for buffer in buffers])
    assert not back._table.ranks.flags.writeable
    orders = orders_of(np.random.default_rng(0).permutation(300), np.arange(20))
    assert_array_equal(back.marginals(orders), found.marginals(orders))
    assert back.score(np.arange(20)) == found.score(np.arange(20))


@pytest.mark.parametrize("k", [1, 10, 60])
def test_skyband_has_the_bits_of_insertion(kind, monkeypatch, k):
    n = 3000
    rng = np.random.default_rng(k)
    game = (rng.standard_normal((n, 3)), rng.choice(LABELS, n))
    game += (rng.standard_normal((9, 3)), rng.choice(LABELS, 9))
    walks = []
    skyband = neighbour_table.skyband
    monkeypatch.setattr(
        neighbour_table, "skyband", lambda *args: (walks.append(args[11]), skyband(*args))
    )
    monkeypatch.setattr(neighbour_table, "SKYBAND_FROM", 10)
    found = utility(kind, game, k=k)
    by_distance = (game[0] @ game[2][0]).argsort()
    lengths = (n, n, n // 2, 2 * n // 3, n // 4, 5)
    chosen = [rng.permutation(n)[:length] for length in lengths]
    chosen += [by_distance, by_distance[::-1]]  # nobody, and everybody, gets a vote in the end
    orders = orders_of(*chosen)
    by_skyband = found.marginals(orders)
    assert_array_equal(walks, [[0, 1, 2, 3, 6, 7]])  # neither the quarter nor the five
    monkeypatch.setattr(neighbour_table, "SKYBAND_FROM", n + 1)
    assert_array_equal(by_skyband, found.marginals(orders))
    assert len(walks) == 1


def test_long_orders_are_walked_by_rank_from_the_size_where_it_pays():
    for n, walked in ((1999, False), (2000, True)):
        assert (Knn(*grid(12, n=n, m=2), k=10)._table.by_rank is not None) == walked


@pytest.mark.parametrize(("n", "bits"), [(255, 8), (256, 16), (65_535, 16), (65_536, 32)])
def test_ranks_are_kept_in_the_smallest_type(n, bits):
    found = Knn(
        np.arange(n)[:, np.newaxis] * 1.0, np.zeros(n, int), np.zeros((1, 1)), np.array([0])
    )
    assert found._table.ranks.dtype == np.dtype(f"u{bits // 8}")
    assert found._table.ranks.max() == n - 1


@pytest.mark.parametrize("k", NEIGHBOURS)
def test_no_marginal_leaves_its_range(kind, game, k):
    rng = np.random.default_rng(k)
    for component in utility(kind, game, k=k, num_components=3).components:
        orders = orders_of(*(rng.permutation(len(game[0])) for _ in range(5)))
        assert np.abs(component.marginals(orders)).max() <= component.marginal_range * (
            1 + ROUNDING
        )


def test_the_range_is_reached():
    game = (np.array([[1.0], [0.0]]), np.array([0, 1]), np.array([[0.0]]), np.array([1]))
    orders = orders_of(np.array([0, 1]))  # the nearer one is right and turns the vote
    for kind in ("soft", "vote"):
        found = utility(kind, game, k=1)
        assert found.marginals(orders)[1] == found.marginal_range == 1


def test_the_range_of_a_balanced_part_is_its_share_of_the_weight_and_reached():
    game = (np.array([[1.0], [0.0]]), np.array([0, 2]), np.zeros((3, 1)), np.array([1, 2, 1]))
    orders = orders_of(np.array([0, 1]))
    for kind in ("soft, balanced", "vote, balanced"):
        components = utility(kind, game, k=1, num_components=3).components
        ranges = [component.marginal_range for component in components]
        assert_allclose(ranges, [3 / 4, 3 / 4, 3 / 2], rtol=0, atol=3 * WEIGHT_ROUNDING)
        assert components[2].marginals(orders)[1] == ranges[2]


def test_costs_fall_with_position_and_are_shared_among_parts(kind):
    found = utility(kind, grid(13, n=100, m=17), k=5)
    costs = found.position_costs
    assert costs.shape == (100,)
    assert (costs > 0).all()
    assert (np.diff(costs) <= 0).all()
    assert (costs[:5] == costs[0]).all()  # each of the first K is admitted
    assert_allclose(
        np.sum([component.position_costs for component in found.components], axis=0), costs
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"num_components": 0}, "num_components must be at least 1, got 0"),
        ({"metric": "manhattan"}, "metric must be euclidean or cosine, got 'manhattan'"),
        ({"class_weights": "all"}, "class_weights must be balanced or none, got 'all'"),
        ({"x_train": np.full((7, 2), np.nan)}, "x_train must be finite, got 14 NaN"),
        ({"x_val": np.ones((3, 5))}, "same number of features, got 2 and 5"),
        ({"x_val": np.ones((0, 2)), "y_val": np.ones(0, int)}, "x_val must be a non-empty"),
        ({"y_train": np.ones(6, int)}, "must have one row per point, got 7 and 6"),
        ({"y_val": np.full(3, 0.5)}, "y_val must be class labels .* got 0.5"),
    ],
)
def test_bad_input_names_the_value(kind, change, message):
    make, options = KINDS[kind]
    game = dict(zip(("x_train", "y_train", "x_val", "y_val"), grid(0, 7, 3), strict=True))
    with pytest.raises(ValueError, match=message):
        make(**(game | options | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"few": "none"}, "few must be vote or default, got 'none'"),
        ({"empty": 1.5}, "empty must be an accuracy between 0 and 1, got 1.5"),
        ({"empty": np.nan}, "empty must be an accuracy between 0 and 1, got nan"),
    ],
)
def test_bad_modes_of_accuracy_name_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        KnnAccuracy(*grid(0, 7, 3), **change)
