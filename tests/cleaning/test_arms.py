"""The arms against their words."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.cleaning.arms import arms_of, new_labels, random_choice


def test_random_choice_keeps_as_many_at_random_and_something_of_each_class():
    y = np.repeat([0, 1, 2], [60, 39, 1])
    kept = np.arange(100) < 50
    draws = np.array([random_choice(kept, y, seed) for seed in range(400)])
    assert (draws.sum(axis=1) == 50).all()
    assert draws[:, 99].all()  # the only one of its class
    assert_array_equal(draws[7], random_choice(kept, y, 7))
    # 49 of the other 99: each about 198 times in 400, 5 standard deviations of sqrt(400) / 2.
    assert np.abs(draws[:, :99].sum(axis=0) - 400 * 49 / 99).max() < 50


def test_random_choice_takes_one_of_each_class_where_fewer_are_kept():
    y = np.array([0, 1, 2, 0, 1, 2])
    assert_array_equal(np.sort(y[random_choice(np.zeros(6, bool), y, 0)]), [0, 1, 2])


def test_arms_are_what_their_names_say():
    y, kept = np.array([0, 1] * 20), np.arange(40) % 4 > 0
    wrong = np.arange(40) < 6
    found = arms_of(kept, y, wrong, has_clean=True, seeds=[3, 5])
    alike = {"all": np.ones(40), "kept": kept, "clean": np.zeros(40), "kept+clean": kept}
    for arm, mask in (alike | {"truth": ~wrong}).items():
        for seed in (3, 5):
            assert_array_equal(found[arm][seed].chosen, mask)
            assert_array_equal(found[arm][seed].labels, y)
    drawn = [found["random"][seed].chosen for seed in (3, 5)]
    assert drawn[0].sum() == drawn[1].sum() == kept.sum()
    assert (drawn[0] != drawn[1]).any()
    assert found.keys() == alike.keys() | {"truth", "random"}


def test_the_arm_reviewed_has_the_labels_that_people_decided():
    y, kept = np.array([0, 1, 0, 1]), np.array([True, True, False, True])
    labels = np.array([0, -1, 1, 1])
    found = arms_of(kept, y, None, has_clean=False, seeds=[0], reviewed=labels)["reviewed"][0]
    assert_array_equal(found.chosen, [True, False, True, True])
    assert_array_equal(found.labels, labels)
    none = arms_of(kept, y, None, has_clean=False, seeds=[0], reviewed=np.full(4, -1))
    assert "reviewed" not in none


@pytest.mark.parametrize("wrong", [None, np.zeros(4, bool)])
def test_without_clean_set_or_known_wrong_labels_there_are_no_such_arms(wrong):
    found = arms_of(np.ones(4, bool), np.array([0, 1, 0, 1]), wrong, has_clean=False, seeds=[0])
    assert found.keys() == {"all", "kept", "random"}


def test_there_is_no_arm_truth_where_a_class_has_no_right_label():
    y = np.array([0, 0, 1, 1])
    for wrong, there in (([1, 0, 0, 1], True), ([0, 0, 1, 1], False), ([1, 1, 1, 1], False)):
        found = arms_of(np.ones(4, bool), y, np.array(wrong, bool), has_clean=True, seeds=[0])
        assert ("truth" in found) == there


NAN = np.nan
#       kept       sure       unsure     at the bound  unknown    its own label
KEPT = [1, 0, 0, 0, 0, 0]
Y = [0, 0, 1, 1, 0, 1]
SUGGESTED = [1, 1, 0, 0, -1, 1]
PROBABILITY = [0.99, 0.81, 0.7, 0.8, NAN, 0.99]


def relabels(above=0.8):
    arrays = np.array(KEPT, bool), np.array(Y), np.array(SUGGESTED), np.array(PROBABILITY)
    return new_labels(*arrays, above)


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        (0.8, [0, 1, -1, -1, -1, -1]),
        (0.75, [0, 1, -1, 0, -1, -1]),
        (0.0, [0, 1, 0, 0, -1, -1]),
        (1.0, [0, -1, -1, -1, -1, -1]),
    ],
)
def test_dropped_images_get_their_suggested_label_if_it_is_likelier_than_the_bound(above, expected):
    assert_array_equal(relabels(above), expected)


def test_relabelled_has_the_kept_images_and_those_with_a_new_label():
    kept, y, wrong = np.array(KEPT, bool), np.array(Y), np.array([0, 1, 0, 0, 0, 0], bool)
    found = arms_of(kept, y, wrong, has_clean=True, seeds=[0, 1], relabelled=relabels())
    assert list(found) == ["all", "kept", "relabelled", "random", "clean", "kept+clean", "truth"]
    for seed in (0, 1):
        chosen, labels = found["relabelled"][seed]
        assert_array_equal(chosen, [1, 1, 0, 0, 0, 0])
        assert_array_equal(labels[chosen], [0, 1])
        for arm in found.keys() - {"relabelled"}:
            assert_array_equal(found[arm][seed].labels, Y)


def test_where_nothing_is_relabelled_there_is_no_such_arm():
    kept, y = np.array(KEPT, bool), np.array(Y)
    found = arms_of(kept, y, None, has_clean=True, seeds=[0], relabelled=relabels(above=1.0))
    assert "relabelled" not in found
    kept[:] = True
    found = arms_of(kept, y, None, has_clean=True, seeds=[0], relabelled=relabels())
    assert "relabelled" not in found
