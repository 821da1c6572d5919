"""Sweeps of model utilities against refits of every prefix, by scikit-learn where it has the model.

`GAMES` are small sets with what goes wrong: absent classes, ties, features without information.
"""

import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from dcai_ray.errors import ModelError
from dcai_ray.valuation.utilities import Orders, logistic
from dcai_ray.valuation.utilities.inputs import labelled_points, projected
from dcai_ray.valuation.utilities.least_squares import LeastSquares
from dcai_ray.valuation.utilities.logistic import Logistic
from dcai_ray.valuation.utilities.refit import Refit, classifier

SUM_OF_FEW = 1e-12  # sums and differences of a few hundred terms of order 1
RECURSION = 1e-10  # rank-one updates at a ridge of a thousandth of the squared features or more
FITS_END = 1e-8  # |grad| <= 1e-10 on either side, times c |x| of a few tens at most


def cloud(seed, n, m, d, num_classes):
    """Overlapping classes: the mean moves by class, so there is something to learn."""
    rng = np.random.default_rng(seed)
    y, y_val = rng.integers(0, num_classes, n), rng.integers(0, num_classes, m)
    x = rng.standard_normal((n, d)) + 0.7 * y[:, np.newaxis]
    return x, y, rng.standard_normal((m, d)) + 0.7 * y_val[:, np.newaxis], y_val


def games():
    x, y, x_val, y_val = cloud(1, 40, 12, 4, 3)
    twice = np.concatenate([x[:15], x[:15]]), np.concatenate([y[:15], (y[:15] + 1) % 3])
    one_odd = np.where(np.arange(40) == 7, 9, y % 2)
    return {
        "two classes": cloud(0, 40, 12, 4, 2),
        "three classes": (x, y, x_val, y_val),
        "labels of any number": (x, y * 7 - 3, x_val, y_val * 7 - 3),
        "one validation point": cloud(2, 30, 1, 4, 2),
        "one player": cloud(3, 1, 6, 4, 2),
        "duplicates with other labels": (*twice, x_val, y_val),
        "constant features": (np.c_[x[:, :2], np.full((40, 2), 3.0)], y, x_val, y_val),
        "nothing but constants": (np.ones((20, 3)), y[:20], np.ones((5, 3)), y_val[:5]),
        "a class of one": (x, one_odd, x_val, y_val % 2),
        "one class": (x, np.zeros(40, dtype=int), x_val, y_val),
        "a class that is validated only": (x, y % 2, x_val, y_val),
        "more features than players": cloud(4, 12, 8, 20, 3),
        "single precision": (x.astype(np.float32), y.astype(np.int8), x_val, y_val),
    }


GAMES = games()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """On a busy machine the threads of a BLAS wait for each other, tens of seconds in all."""
    with threadpool_limits(1):
        yield


def order_of(players):
    players = np.asarray(players, dtype=np.int32)
    return Orders(players, np.array([0, len(players)]), np.ones(len(players)))


def shuffled(n, seed=0):
    return np.random.default_rng(seed).permutation(n)


def numbered(y_train, y_val):
    labels, numbers = np.unique(np.concatenate([y_train, y_val]), return_inverse=True)
    return numbers[: len(y_train)], numbers[len(y_train) :], len(labels)


def prefix_scores(value, order, empty):
    return np.array([empty, *(value(order[:size]) for size in range(1, len(order) + 1))])


def first_of_largest(scores):
    """Scores that are equal but for rounding errors go to the smaller class."""
    return np.argmax(scores.round(7) == scores.round(7).max(axis=1, keepdims=True), axis=1)


def ridge_values(x, y, x_val, y_val, ridge, score):
    """v(S) by scikit-learn's ridge regression on one-hot targets and a column of ones."""
    y, y_val, num_classes = numbered(y, y_val)
    centre = x.mean(axis=0, dtype=np.float64)
    rows = np.c_[x - centre, np.ones(len(x))]
    val_rows = np.c_[x_val - centre, np.ones(len(x_val))]

    def value(members):
        model = Ridge(alpha=ridge, fit_intercept=False, solver="svd")
        model.fit(rows[members], np.eye(num_classes)[y[members]])
        scores = model.predict(val_rows).reshape(len(val_rows), num_classes)
        if score == "margin":
            return -((np.eye(num_classes)[y_val] - scores) ** 2).sum(axis=1).mean()
        return np.mean(first_of_largest(scores) == y_val)

    return value


def logistic_probabilities(x, y, x_val, y_val, c):
    """(m, C) of a coalition by scikit-learn's solver, converged."""
    y, y_val, num_classes = numbered(y, y_val)
    x, x_val = x.astype(np.float64), x_val.astype(np.float64)

    def probabilities(members):
        found = np.zeros((len(x_val), num_classes))
        present = np.unique(y[members])
        if len(present) == 1:
            found[:, present] = 1.0
        else:
            model = LogisticRegression(C=c, solver="newton-cg", tol=1e-12, max_iter=10_000)
            with warnings.catch_warnings():
                # Its line search reports that nothing is left to gain at this tolerance.
                warnings.simplefilter("ignore")
                model.fit(x[members], y[members])
            found[:, present] = model.predict_proba(x_val)
        return found

    return probabilities, y_val


def utilities(x, y, x_val, y_val):
    return {
        "least squares": LeastSquares(x, y, x_val, y_val),
        "margin": LeastSquares(x, y, x_val, y_val, score="margin", num_features=2),
        "logistic": Logistic(x, y, x_val, y_val),
        "refit": Refit(GaussianNB(), x, y, x_val, y_val),
    }


KINDS = tuple(utilities(*GAMES["two classes"]))


@pytest.mark.parametrize("kind", KINDS)
def test_marginals_of_a_full_order_sum_to_what_all_players_add(kind):
    utility = utilities(*GAMES["three classes"])[kind]
    gain = utility.score(np.arange(utility.num_players)) - utility.score(np.empty(0, dtype=int))
    for seed in range(3):
        marginals = utility.marginals(order_of(shuffled(utility.num_players, seed)))
        assert_allclose(marginals.sum(), gain, atol=RECURSION)


@pytest.mark.parametrize("kind", KINDS)
def test_orders_of_any_length_are_swept_each_from_the_empty_coalition(kind):
    utility = utilities(*GAMES["three classes"])[kind]
    parts = [shuffled(40, 1)[:7], shuffled(40, 2)[:0], shuffled(40, 3), shuffled(40, 4)[:1]]
    offsets = np.cumsum([0, *map(len, parts)])
    together = utility.marginals(
        Orders(np.concatenate(parts).astype(np.int32), offsets, np.ones(offsets[-1]))
    )
    apart = [utility.marginals(order_of(part)) for part in parts]
    assert_array_equal(together, np.concatenate(apart))


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_a_set_function_to_the_bit(kind):
    utility = utilities(*GAMES["three classes"])[kind]
    coalition = shuffled(40)[:17]
    assert utility.score(coalition) == utility.score(coalition[::-1])


@pytest.mark.parametrize("kind", KINDS)
def test_pickles_and_read_only_arrays_give_the_same_bits(kind):
    game = [np.array(array) for array in GAMES["three classes"]]
    expected = utilities(*game)[kind].marginals(order_of(shuffled(40)))
    for array in game:
        array.setflags(write=False)
    order = order_of(shuffled(40))
    order.players.setflags(write=False)
    order.offsets.setflags(write=False)
    utility = pickle.loads(pickle.dumps(utilities(*game)[kind]))
    for value in vars(utility).values():  # as Ray's object store hands arrays out
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    assert_array_equal(utility.marginals(order), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_its_own_only_component_and_knows_its_costs(kind):
    utility = utilities(*GAMES["two classes"])[kind]
    assert utility.components == (utility,)
    assert utility.num_players == 40
    assert utility.position_costs.shape == (40,)
    assert (utility.position_costs > 0).all()
    assert (np.diff(utility.position_costs) >= 0).all()
    assert utility.marginal_range == (np.inf if kind == "margin" else 1.0)


@pytest.mark.parametrize("make", [LeastSquares, Logistic, lambda *g, **k: Refit(GaussianNB(), *g)])
def test_inputs_that_do_not_fit_are_named(make):
    x, y, x_val, y_val = GAMES["two classes"]
    holes = x.copy()
    holes[3, 1], holes[4, 2] = np.nan, np.inf
    for game, message in [
        ((x[:0], y[:0], x_val, y_val), "x_train must be a non-empty .* got shape \\(0, 4\\)"),
        ((x[0], y, x_val, y_val), "x_train must be a non-empty"),
        ((x, y[1:], x_val, y_val), "must have one row per point, got 40 and 39"),
        ((x, y, x_val, y_val[:, np.newaxis]), "y_val must hold one label"),
        ((x, y / 2, x_val, y_val), "y_train must be class labels .* got 0.5"),
        ((holes, y, x_val, y_val), "x_train must be finite, got 2 NaN or infinite entries"),
        ((x, y, x_val[:, :3], y_val), "same number of features, got 4 and 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(*game)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda *g: LeastSquares(*g, ridge=0), "ridge must be finite and at least"),
        (lambda *g: LeastSquares(*g, ridge=np.nan), "ridge must be finite and at least"),
        (lambda *g: LeastSquares(*g, score="auroc"), "score must be accuracy or margin"),
        (lambda *g: LeastSquares(*g, num_features=0), "num_features must be at least 1, got 0"),
        (lambda *g: LeastSquares(*g, empty=2), "empty must be a value of accuracy"),
        (lambda *g: LeastSquares(*g, score="margin", empty=0.5), "empty must be a value of margin"),
        (lambda *g: Logistic(*g, c=0), "c must be positive"),
        (lambda *g: Logistic(*g, score="f1"), "score must be accuracy, balanced"),
        (lambda *g: Refit(GaussianNB(), *g, every=0), "every must be at least 1"),
        (lambda *g: Refit(GaussianNB(), *g, truncation=-1), "truncation must be None or at least"),
        (lambda *g: Refit(GaussianNB, *g), "model must be a scikit-learn classifier instance"),
        (lambda *g: Refit(Ridge(), *g), "model must be a scikit-learn classifier instance"),
        (lambda *g: Refit(NearestCentroid(), *g, empty=2), "empty must be a value of accuracy"),
        (lambda *g: Refit(LinearOnly(), *g, score="auroc"), "LinearOnly has no predict_proba"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(*GAMES["two classes"])


def test_the_projection_is_that_of_a_full_svd_with_a_fixed_sign():
    x, y, x_val, y_val = cloud(5, 50, 9, 8, 2)
    points = projected(labelled_points(x, y, x_val, y_val), 3)
    reference = PCA(3, svd_solver="full").fit(x)
    assert_allclose(np.abs(points.x_train), np.abs(reference.transform(x)), atol=SUM_OF_FEW)
    assert_allclose(np.abs(points.x_val), np.abs(reference.transform(x_val)), atol=SUM_OF_FEW)
    axes = np.linalg.lstsq(x - x.mean(axis=0), points.x_train, rcond=None)[0].T
    assert (axes[np.arange(3), np.abs(axes).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("num_features", [None, 8, 32])
def test_without_fewer_axes_features_are_centred_and_no_more(num_features):
    x, y, x_val, y_val = cloud(5, 50, 9, 8, 2)
    points = projected(labelled_points(x, y, x_val, y_val), num_features)
    assert_array_equal(points.x_train, x - x.mean(axis=0))
    assert_array_equal(points.x_val, x_val - x.mean(axis=0))


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("score", ["accuracy", "margin"])
def test_least_squares_equals_ridge_refits_on_every_prefix(name, score):
    x, y, x_val, y_val = GAMES[name]
    for ridge in (0.5, 10.0):
        utility = LeastSquares(x, y, x_val, y_val, ridge=ridge, num_features=None, score=score)
        value = ridge_values(x, y, x_val, y_val, ridge, score)
        order = shuffled(len(x))
        expected = prefix_scores(value, order, utility.score(order[:0]))
        assert_allclose(utility.marginals(order_of(order)), np.diff(expected), atol=RECURSION)
        own = prefix_scores(utility.score, order, utility.score(order[:0]))
        assert_allclose(own, expected, atol=RECURSION)


def test_least_squares_of_two_classes_is_the_sign_of_plus_minus_one_targets():
    x, y, x_val, y_val = GAMES["two classes"]
    utility = LeastSquares(x, y, x_val, y_val, ridge=2.0)
    rows, val_rows = np.c_[x - x.mean(axis=0), np.ones(40)], np.c_[x_val - x.mean(axis=0), [1] * 12]
    for size in (1, 5, 23):
        members = shuffled(40)[:size]
        model = Ridge(alpha=2.0, fit_intercept=False).fit(rows[members], 2 * y[members] - 1)
        assert utility.score(members) == np.mean((model.predict(val_rows) > 0) == y_val)


def test_the_projected_least_squares_is_that_of_the_principal_components():
    x, y, x_val, y_val = cloud(6, 60, 10, 12, 3)
    pca = PCA(5, svd_solver="full").fit(x)
    utility = LeastSquares(x, y, x_val, y_val, num_features=5, score="margin")
    value = ridge_values(pca.transform(x), y, pca.transform(x_val), y_val, 10.0, "margin")
    order = shuffled(60)
    expected = prefix_scores(value, order, -1.0)
    assert_allclose(utility.marginals(order_of(order)), np.diff(expected), atol=RECURSION)


def test_least_squares_does_not_drift_over_1500_players():
    x, y, x_val, y_val = cloud(7, 1500, 60, 32, 3)
    utility = LeastSquares(x * 5, y, x_val * 5, y_val, score="margin", ridge=1.0)
    order = shuffled(1500)
    values = -1.0 + np.cumsum(utility.marginals(order_of(order)))
    for size in (1, 33, 700, 1500):
        assert_allclose(values[size - 1], utility.score(order[:size]), atol=RECURSION)


def test_the_least_ridge_that_is_accepted_still_gives_a_hundredth_of_a_tie():
    x, y, x_val, y_val = cloud(8, 300, 20, 16, 2)
    rows = np.c_[x - x.mean(axis=0), np.ones(300)]
    ridge = 1.001e-6 * (rows**2).sum(axis=1).max()
    utility = LeastSquares(x, y, x_val, y_val, score="margin", num_features=None, ridge=ridge)
    order = shuffled(300)
    values = -1.0 + np.cumsum(utility.marginals(order_of(order)))
    expected = prefix_scores(utility.score, order, -1.0)[1:]
    # Below 16 points the predictions themselves are large, so the error counts relative to them.
    assert_allclose(values, expected, rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match="ridge must be finite and at least"):
        LeastSquares(x, y, x_val, y_val, num_features=None, ridge=ridge / 1.01)


def test_the_empty_coalition_scores_as_the_largest_class_or_zero_predictions():
    x, y, x_val, _ = GAMES["two classes"]
    y_val = np.array([0] * 4 + [1] * 8)
    assert LeastSquares(x, y, x_val, y_val).score(np.empty(0, dtype=int)) == 8 / 12
    assert LeastSquares(x, y, x_val, y_val, empty=0.1).score(np.empty(0, dtype=int)) == 0.1
    margin = LeastSquares(x, y, x_val, y_val, score="margin")
    assert margin.score(np.empty(0, dtype=int)) == -1.0


@pytest.mark.parametrize("name", GAMES)
def test_logistic_equals_converged_refits_on_every_prefix(name):
    game = GAMES[name]
    order = shuffled(len(game[0]))
    probabilities, y_val = logistic_probabilities(*game, c=1.0)
    found = [probabilities(order[:size]) for size in range(1, len(order) + 1)]
    num_classes = found[0].shape[1]
    likelihood = [-log_loss(y_val, p, labels=np.arange(num_classes)) for p in found]
    accuracy = [np.mean(first_of_largest(p) == y_val) for p in found]
    if num_classes == 1:  # scikit-learn's metric takes two classes or more
        likelihood = [0.0] * len(found)
    for score, expected in [("neg-log-loss", likelihood), ("accuracy", accuracy)]:
        utility = Logistic(*game, num_features=None, score=score)
        empty = utility.score(order[:0])
        marginals = utility.marginals(order_of(order))
        assert_allclose(marginals, np.diff([empty, *expected]), atol=FITS_END)
        own = prefix_scores(utility.score, order, empty)
        assert_allclose(own[1:], expected, atol=FITS_END)


def test_logistic_of_the_study_deviates_from_refits_as_its_docstring_says(shared_data):
    def load(split):
        with (shared_data / f"paper/feature_dump_{split}.pkl").open("rb") as file:
            dump = pickle.load(file)
        return dump["feature_all"], np.asarray(dump["target_all"])

    train, val = load("train"), load("shapley_val")
    pca = PCA(32, svd_solver="full").fit(train[0].astype(np.float64))
    features = [pca.transform(x.astype(np.float64)) for x in (train[0], val[0])]
    probabilities, y_val = logistic_probabilities(features[0], train[1], features[1], val[1], c=1.0)
    order = np.random.default_rng(0).permutation(1500)[:300]
    marginals = Logistic(*train, *val, score="neg-log-loss").marginals(order_of(order))
    values = -np.log(2) + np.cumsum(marginals)  # as many validation points of either class
    for size in (1, 2, 3, 5, 10, 40, 150, 300):
        expected = -log_loss(y_val, probabilities(order[:size]))
        # The sum of marginals: each deviates by up to 2e-11, the mean by less.
        assert_allclose(values[size - 1], expected, atol=1e-9)


@pytest.mark.parametrize("c", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_logistic_converges_whatever_the_penalty_and_scale(c, scale):
    for num_classes in (2, 4):
        x, y, x_val, y_val = cloud(9, 40, 10, 4, num_classes)
        utility = Logistic(x * scale, y, x_val * scale, y_val, c=c, score="neg-log-loss")
        order = shuffled(40)
        values = utility.score(order[:0]) + np.cumsum(utility.marginals(order_of(order)))
        expected = prefix_scores(utility.score, order, 0.0)[1:]
        # |grad| <= 1e-10 leaves the weights uncertain by c, and log p by |x| times that, but for
        # coalitions so separable that log p is clipped: the extremes are c |x|^2 = 1e8.
        assert_allclose(values, expected, atol=1e-8 * max(1.0, c * scale**2 / 1e2))


def test_a_fit_that_does_not_converge_is_an_error_that_says_what_to_do(monkeypatch):
    utility = Logistic(*cloud(9, 40, 10, 4, 2), c=100.0)
    monkeypatch.setattr(logistic, "fit", lambda *points: 3.0)  # the norm that is left
    with pytest.raises(ModelError, match=r"= 3 is left; take a smaller c than 100"):
        utility.marginals(order_of(shuffled(40)))


def test_classes_a_coalition_lacks_have_no_probability():
    x, y, x_val, _ = GAMES["three classes"]
    y_val = np.full(12, 2)
    utility = Logistic(x, y, x_val, y_val, score="neg-log-loss")
    lacking = np.flatnonzero(y != 2)
    assert_allclose(utility.score(lacking), np.log(np.finfo(float).eps))
    assert utility.score(np.flatnonzero(y == 2)) == pytest.approx(0.0, abs=1e-15)


class LinearOnly(ClassifierMixin, BaseEstimator):
    """A classifier without probabilities that writes down what it is given."""

    seen: list = []  # noqa: RUF012

    def fit(self, x, y):
        self.seen.append(x[:, 0].copy())
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return np.full(len(x), self.classes_[0])


class Failing(LinearOnly):
    def __init__(self, at=3):
        self.at = at

    def fit(self, x, y):
        if len(x) >= self.at:
            raise ArithmeticError("no fit today")
        return super().fit(x, y)


class NoNumbers(LinearOnly):
    def predict_proba(self, x):
        return np.full((len(x), len(self.classes_)), np.nan)


class Scripted(ClassifierMixin, BaseEstimator):
    """Predicts as many of ten validation points right as a table says for the coalition's size."""

    def __init__(self, right=()):
        self.right = right

    def fit(self, x, y):
        self.classes_, self.size_ = np.unique(y), len(x)
        return self

    def predict(self, x):
        return (np.arange(len(x)) >= self.right[self.size_]).astype(int)


def scripted(right, **settings):
    """A game whose order 0, 1, 2, ... has the score right[size] / 10 from two players on."""
    n = len(right) - 1
    y = np.arange(n) % 2
    return Refit(
        Scripted(right), np.zeros((n, 1)), y, np.zeros((10, 1)), np.zeros(10, dtype=int), **settings
    )


@pytest.mark.parametrize("name", GAMES)
def test_refits_equal_scikit_learns_own_score_on_every_prefix(name):
    x, y, x_val, y_val = GAMES[name]
    model = DecisionTreeClassifier(random_state=0, max_depth=3)
    utility = Refit(model, x, y, x_val, y_val)

    def value(members):
        if len(np.unique(y[members])) == 1:
            return np.mean(y_val == y[members[0]])
        members = np.sort(members)
        return (
            DecisionTreeClassifier(random_state=0, max_depth=3)
            .fit(x[members], y[members])
            .score(x_val, y_val)
        )

    order = shuffled(len(x))
    expected = prefix_scores(
        value, order, np.unique(y_val, return_counts=True)[1].max() / len(y_val)
    )
    assert_allclose(utility.marginals(order_of(order)), np.diff(expected), atol=SUM_OF_FEW)
    assert utility.score(order) == expected[-1]
    assert not hasattr(model, "tree_")


def test_probabilities_stand_in_the_columns_of_their_labels():
    x, y, x_val, y_val = GAMES["labels of any number"]
    utility = Refit(GaussianNB(), x, y, x_val, y_val, score="neg-log-loss")
    for members in (np.arange(40), np.flatnonzero(y != 4), np.flatnonzero(y != -3)):
        model = GaussianNB().fit(x[members], y[members])
        found = np.zeros((12, 3))
        for column, label in enumerate(model.classes_):
            found[:, (label + 3) // 7] = model.predict_proba(x_val)[:, column]
        expected = -log_loss((y_val + 3) // 7, found, labels=[0, 1, 2])
        assert_allclose(utility.score(members), expected, atol=SUM_OF_FEW)


def test_the_model_is_fitted_in_order_of_index_and_not_on_a_single_class():
    y = np.array([0, 0, 0, 1, 1])
    LinearOnly.seen.clear()
    utility = Refit(LinearOnly(), np.arange(5.0)[:, np.newaxis], y, np.zeros((2, 1)), y[2:4])
    assert_allclose(utility.marginals(order_of([2, 0, 4, 1])), [0, 0, 0, 0])
    assert [list(x) for x in LinearOnly.seen] == [[0, 2, 4], [0, 1, 2, 4]]


def test_every_jth_prefix_is_fitted_and_its_players_share_the_difference():
    right = (0, 0, 3, 5, 9, 4, 8, 6)
    utility = scripted(right, every=3, empty=0.2)
    marginals = utility.marginals(order_of(range(7)))
    expected = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, -0.2]  # 0.2 -> 0.5 -> 0.8 -> 0.6
    assert_allclose(marginals, expected, atol=SUM_OF_FEW)


def test_every_beyond_the_order_is_one_fit():
    marginals = scripted((0, 0, 3, 5, 9), every=10, empty=0.1).marginals(order_of(range(4)))
    assert_allclose(marginals, np.full(4, 0.2), atol=SUM_OF_FEW)


def test_after_more_than_five_fits_near_the_whole_the_rest_is_not_computed():
    #        size 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14
    right = (0, 0, 8, 8, 8, 8, 8, 3, 8, 7, 8, 9, 8, 8, 8)
    marginals = scripted(right, truncation=0.13).marginals(order_of(range(14)))
    # Five fits at 8, then 3: the count begins anew; sizes 8 to 13 are six within 0.8 +- 0.104.
    assert_array_equal(np.isnan(marginals), np.arange(14) >= 13)
    whole = scripted(right).marginals(order_of(range(14)))
    assert_array_equal(marginals[:13], whole[:13])
    # A narrower share has only sizes 2 to 6, and none in a row after: never six.
    assert not np.isnan(scripted(right, truncation=0.05).marginals(order_of(range(14)))).any()


def test_truncation_counts_fits_not_players():
    marginals = scripted((0,) + (8,) * 30, truncation=0.01, every=4).marginals(order_of(range(30)))
    assert_array_equal(np.isnan(marginals), np.arange(30) >= 24)


def test_truncation_measures_the_distance_by_the_size_of_a_negative_score():
    x, y, x_val, y_val = cloud(10, 60, 20, 3, 2)
    settings = {"score": "neg-log-loss", "truncation": 0.3}
    utility = Refit(GaussianNB(var_smoothing=0.1), x, y, x_val, y_val, **settings)
    whole = Refit(GaussianNB(var_smoothing=0.1), x, y, x_val, y_val, score="neg-log-loss")
    order = shuffled(60)
    values = prefix_scores(whole.score, order, 0.0)[1:]
    near = np.abs(values - values[-1]) <= 0.3 * abs(values[-1])
    runs = [near[i - 5 : i + 1].all() for i in range(5, 60)]
    first = 5 + runs.index(True)
    assert first < 59
    assert_array_equal(np.isnan(utility.marginals(order_of(order))), np.arange(60) > first)


def test_a_failing_model_is_an_error_that_names_its_coalition():
    x, y, x_val, y_val = cloud(11, 8, 4, 2, 2)
    y = np.array([0, 1] * 4)
    utility = Refit(Failing(at=6), x, y, x_val, y_val)
    message = r"Failing failed on a coalition of 6 points \(0, 1, 2, 3, 4, \.\.\.\): no fit today"
    with pytest.raises(ModelError, match=message) as caught:
        utility.marginals(order_of(range(8)))
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(ModelError, match=r"of 2 points \(1, 6\): no fit today"):
        Refit(Failing(at=2), x, y, x_val, y_val).score(np.array([6, 1]))


def test_probabilities_that_are_no_numbers_are_an_error():
    utility = Refit(NoNumbers(), *GAMES["two classes"], score="auroc")
    with pytest.raises(ModelError, match=r"NoNumbers failed .* gave 24 NaN or infinite entries"):
        utility.score(np.arange(40))


def test_a_warning_of_the_model_is_given_once():
    x, y, x_val, y_val = cloud(12, 25, 5, 3, 2)
    utility = Refit(LogisticRegression(max_iter=1), x, y, x_val, y_val)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        utility.marginals(order_of(range(25)))
        utility.marginals(order_of(range(25)))
    assert len([w for w in caught if issubclass(w.category, ConvergenceWarning)]) == 1


def test_a_classifier_is_made_from_its_import_path():
    model = classifier("sklearn.linear_model.LogisticRegression", C=0.5)
    assert isinstance(model, LogisticRegression)
    assert model.C == 0.5


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        ("LogisticRegression", {}, "must be an import path such as package.Class"),
        ("sklearn.linear_models.Ridge", {}, "No module named 'sklearn.linear_models'"),
        ("sklearn.linear_model.Logistic", {}, "sklearn.linear_model has no class Logistic"),
        ("sklearn.linear_model.LogisticRegression", {"D": 1}, "unexpected keyword argument 'D'"),
        ("sklearn.linear_model.Ridge", {}, "not a scikit-learn classifier"),
        ("collections.OrderedDict", {}, "not a scikit-learn classifier"),
    ],
)
def test_what_cannot_be_made_is_named_in_one_line(path, parameters, message):
    with pytest.raises(ValueError, match=message) as caught:
        classifier(path, **parameters)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scale", "d", "seed"), [(3, 8, 205), (10, 8, 1), (10, 32, 78), (30, 2, 9)]
)
def test_logistic_gets_over_a_newcomer_far_on_the_wrong_side(scale, d, seed):
    """Sure of all it has, the model has no curvature left to step by."""
    rng = np.random.default_rng(seed)
    x, y = scale * rng.standard_normal((12, d)), rng.integers(0, 2, 12)
    x_val, y_val = scale * rng.standard_normal((3, d)), rng.integers(0, 2, 3)
    utility = Logistic(x, y, x_val, y_val, num_features=None, score="neg-log-loss")
    order = np.arange(12, dtype=np.int32)
    found = utility.marginals(Orders(order, np.array([0, 12]), np.ones(12)))
    scores = [utility.score(order[:size].astype(np.intp)) for size in range(13)]
    assert_allclose(found, np.diff(scores), atol=1e-8)  # what is left at the end of both fits
