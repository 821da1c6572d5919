"""Labels in another order, under other names, and right or noisy ones, on clusters and digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dcai_ray.cleaning.label_fit import LabelledSet, label_doubts

CLASSES = [f"number {c}" for c in range(10)]


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = np.float32(x[order]), y[order]
    return (x[:1000], y[:1000]), (x[1000:1300], y[1000:1300])


def doubts(train, clean, classes=CLASSES):
    return label_doubts(
        LabelledSet("train", *train),
        None if clean is None else LabelledSet("shapley_val", *clean),
        classes,
    )


def moved(points):
    """Labels one row further, as by a list that begins a line too late."""
    x, y = points
    return x, np.roll(y, 1)


def test_right_and_noisy_labels_are_not_doubted(digits):
    train, clean = digits
    assert doubts(train, clean) == doubts(train, None) == ()
    rng = np.random.default_rng(1)
    noisy = np.where(rng.random(1000) < 0.6, rng.integers(0, 10, 1000), train[1])
    assert doubts((train[0], noisy), clean) == ()


def test_labels_that_are_one_row_off_are_told(digits):
    train, clean = digits
    (line,) = doubts(moved(train), clean)
    assert line.startswith("the labels of train fit its images no better than by chance: ")
    assert "of its 1,000 labels" in line
    assert "by chance; are they in the order of the images?" in line
    assert "network" not in line  # shapley_val shows that the features are good
    (line,) = doubts(train, moved(clean))
    assert line.startswith("the labels of shapley_val fit its images no better than by chance: ")


def test_where_nothing_fits_the_features_may_be_to_blame(digits):
    train, clean = digits
    lines = doubts(moved(train), moved(clean))
    assert [line.split()[3] for line in lines] == ["train", "shapley_val"]
    assert all(line.endswith("and another network is needed") for line in lines)
    assert len(doubts(moved(train), None)) == 1


def test_classes_that_are_counted_otherwise_are_told(digits):
    (x, y), clean = digits
    (line,) = doubts((x, (y + 1) % 10), clean)
    assert "what looks like number 1 of train is number 0, " in line
    assert " and so on for 7 more in shapley_val; are their labels counted" in line
    (line,) = doubts((x, np.where(y == 3, 5, np.where(y == 5, 3, y))), clean)
    assert "number 5 of train is number 3, number 3 of train is number 5 in shapley_val" in line
    even = (x, 1 - y % 2), (clean[0], clean[1] % 2)
    (line,) = doubts(*even, ["even", "odd"])
    assert "odd of train is even, even of train is odd in shapley_val" in line


def test_a_class_that_looks_like_another_is_not_renamed(digits):
    """Only closed rounds are: what is 3 to the other set is 5, but what is 5 is 5."""
    (x, y), clean = digits
    assert doubts((x, np.where(y == 3, 5, y)), clean) == ()


def test_sets_that_are_each_consistent_may_have_nothing_to_do_with_each_other(digits):
    """Odd digits here and small ones there: 1, 3, 6 and 8 agree."""
    (x, y), (x_clean, y_clean) = digits
    (line,) = doubts((x, y % 2), (x_clean, (y_clean < 5).astype(int)), ["even", "odd"])
    assert line.startswith("the labels of train and shapley_val have nothing to do with each other")
    assert " of its 300 labels, and would suggest 15" in line


@pytest.mark.parametrize("count", [1, 3, 8])
def test_few_images_or_a_single_class_tell_nothing(digits, count):
    train, (x, y) = digits
    assert doubts(train, (x[:count], np.roll(y[:count], 1))) == ()
    assert doubts(train, (x[y == 4][:count], y[y == 4][:count])) == ()
