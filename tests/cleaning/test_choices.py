"""Choices by hand: what is kept, where the cut lies, what is refused."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.cleaning.choices import Choice, check_classes_kept, keep_share
from dcai_ray.errors import UserError


def test_share_per_class_drops_that_share_of_each():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [100, 40, 20])
    value = rng.random(160) + y  # without per_class the first class alone would lose
    kept = keep_share(value, 0.25, y, per_class=True)
    assert_array_equal(np.bincount(y[~kept]), [25, 10, 5])
    for c in range(3):
        assert value[(y == c) & ~kept].max() < value[(y == c) & kept].min()
    assert_array_equal(np.bincount(y[~keep_share(value, 0.25, y)]), [40])


def test_a_choice_that_empties_classes_is_refused_by_their_names():
    y, classes = np.array([0, 0, 1, 2, 2]), ["cat", "dog", "owl"]

    def choice(*decision):
        return Choice(rule="zero", decision=np.array(decision), threshold=0.0)

    check_classes_kept(choice("keep", "drop", "undecided", "drop", "keep"), y, classes)
    with pytest.raises(UserError, match="rule zero would drop every image of class dog, owl"):
        check_classes_kept(choice("keep", "keep", "drop", "drop", "drop"), y, classes)


@pytest.mark.parametrize(
    ("choice", "cut"),
    [
        ({"threshold": 0.05}, 0.05),
        ({"share": 0.25}, 0.15),  # between .1 and .2
        ({"share": 0.0, "decision": np.array(["keep"] * 4)}, None),
        ({"share": 0.25, "decision": np.array(["keep", "drop", "keep", "keep"])}, None),
    ],
)
def test_the_cut_lies_between_dropped_and_kept_where_one_value_can(choice, cut):
    decision = {"decision": np.array(["drop", "keep", "keep", "keep"])}
    found = Choice(rule="share", **(decision | choice)).cut(np.array([0.1, 0.2, 0.3, 0.4]))
    assert found == (None if cut is None else pytest.approx(cut, rel=1e-15))


@pytest.mark.parametrize("wrong", [{}, {"threshold": 0.0, "share": 0.2}])
def test_a_choice_is_by_a_threshold_or_by_a_share(wrong):
    with pytest.raises(UserError, match="by a threshold or by a share"):
        Choice(rule="zero", decision=np.array(["keep"]), **wrong)
