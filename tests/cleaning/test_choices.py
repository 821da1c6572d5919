"""Choices by hand: what is kept, and where the cut lies."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.cleaning.choices import Choice, keep_share


def test_share_per_class_drops_that_share_of_each():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [100, 40, 20])
    value = rng.random(160) + y  # without per_class the first class alone would lose
    kept = keep_share(value, 0.25, y, per_class=True)
    assert_array_equal(np.bincount(y[~kept]), [25, 10, 5])
    for c in range(3):
        assert value[(y == c) & ~kept].max() < value[(y == c) & kept].min()
    assert_array_equal(np.bincount(y[~keep_share(value, 0.25, y)]), [40])


def test_an_infinite_score_is_never_dropped_however_large_the_share():
    score = np.array([np.inf, 0.1, np.inf, 0.3])
    assert keep_share(score, 0.25, np.zeros(4, int)).tolist() == [True, False, True, True]
    assert keep_share(score, 0.9, np.zeros(4, int)).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("choice", "cut"),
    [
        ({"threshold": 0.05}, 0.05),
        ({"share": 0.25}, 0.15),  # between .1 and .2
        ({"share": 0.0, "decision": np.array(["keep"] * 4)}, None),
        ({"share": 0.25, "decision": np.array(["keep", "drop", "keep", "keep"])}, None),
        ({"share": 0.25, "ordering": "self"}, None),  # not ordered by value
        ({"probability": 0.5}, None),
    ],
)
def test_the_cut_lies_between_dropped_and_kept_where_one_value_can(choice, cut):
    decision = {"decision": np.array(["drop", "keep", "keep", "keep"])}
    found = Choice(rule="share", **(decision | choice)).cut(np.array([0.1, 0.2, 0.3, 0.4]))
    assert found == (None if cut is None else pytest.approx(cut, rel=1e-15))
