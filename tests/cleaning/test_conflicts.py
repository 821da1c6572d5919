"""Copies under other labels: found against theory and by hand, decided by hand."""

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

from dcai_ray.cleaning import conflicts as module
from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.conflicts import (
    alike_pairs,
    conflicts,
    copies_of_each,
    described,
    distance_ratio,
    most_copies,
    nearly_same,
    no_judges,
    pictures,
    resolved,
    same_pairs,
)

CLASSES = ("cat", "dog", "fox")
CAT, DOG, FOX = 0, 1, 2


def gauss(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def all_near(x_train, x_clean=None, *, among_train=True):
    """Near pairs as a sorted list."""
    clean = x_train[:0] if x_clean is None else x_clean
    points = pictures(x_train, clean, among_train=among_train)
    found = alike_pairs(points, slice(0, len(x_train)), distance_ratio(points))
    return sorted(map(tuple, found[nearly_same(points, found)].tolist()))


def with_copies(x, rng, noise=0.1):
    """Copies of the first rows; .1 of noise leaves a cosine of about .995."""
    return x + noise * rng.standard_normal(x.shape).astype(np.float32)


@pytest.mark.parametrize("d", [16, 64, 512])
def test_near_copies_in_train_and_clean_are_found_and_nothing_else(d):
    rng = np.random.default_rng(1)
    x = gauss(300, d)
    x[[7, 200]] = with_copies(x[[3, 4]], rng)
    clean = np.concatenate([gauss(40, d, seed=2), with_copies(x[5:6], rng)])
    expected = [(3, 7), (4, 200), (5, 340), (7, 3), (200, 4)]
    assert all_near(x, clean) == expected
    assert all_near(x, clean, among_train=False) == [(5, 340)]


def test_a_slow_comparison_pair_by_pair_finds_the_same(monkeypatch):
    monkeypatch.setattr(module, "CHANCE", 30.0)
    monkeypatch.setattr(module, "SIMILAR", 0.5)
    monkeypatch.setattr(module, "ALIKE", 0.5)
    x, clean = np.split(gauss(120, 6), [90])
    ratio = distance_ratio(pictures(x, clean, among_train=True))
    every = np.concatenate([x, clean]).astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    expected = []
    for i in range(90):
        distance = {j: 1 - every[i] @ every[j] for j in range(120) if j != i}
        limit = min(ratio * sorted(distance.values())[4], 0.5)
        expected += [(i, j) for j in distance if distance[j] <= limit]
    assert len(expected) > 5
    assert all_near(x, clean) == expected
    monkeypatch.setattr(module, "_TILE_BYTES", 4 * 120 * 7)  # seven rows at a time
    assert all_near(x, clean) == expected


@pytest.mark.parametrize("d", [3, 5, 9])
def test_chance_is_the_number_of_pairs_of_different_pictures(d, monkeypatch):
    """Directions of Gaussian points lie alike everywhere on a sphere of dimension d - 1."""
    n, chance = 1500, 60.0
    monkeypatch.setattr(module, "CHANCE", chance)
    monkeypatch.setattr(module, "SIMILAR", -1.0)
    monkeypatch.setattr(module, "ALIKE", -1.0)
    x = gauss(n, d, seed=d)
    ratio = distance_ratio(pictures(x, x[:0], among_train=True))
    # The dimension is known to some per cent, from the median over 1,000 images.
    expected = np.log(chance / (4 * n)) * 2 / (d - 1)
    assert abs(np.log(ratio) / expected - 1) < 0.12
    # Pairs come twice if both are near: the standard deviation is that of 30 pairs, about 11; and
    # 12 per cent of the dimension are a factor of (4 n / 60)^.12 = 1.7.
    assert 20 < len(all_near(x)) < 140


@pytest.mark.parametrize("d", [1, 2, 3, 4, 8, 32])
def test_different_pictures_are_not_near_however_few_features_they_have(d):
    assert all_near(gauss(1000, d)) == []


@pytest.mark.parametrize("spread", [0.3, 0.1, 0.01, 0.0])
def test_pictures_of_a_class_are_not_near_where_a_network_makes_them_alike(spread):
    """The cosines within a class are .92, .99, .9999 and 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 64))[np.arange(500) % 10]
    assert all_near(np.float32(x + spread * rng.standard_normal(x.shape))) == []


@pytest.mark.parametrize("size", [2, 5, 6, 12, 30])
def test_all_of_a_burst_are_near_each_other_and_nothing_else_is(size):
    """From six frames on, the fifth neighbour of a frame is a frame."""
    rng = np.random.default_rng(0)
    x = gauss(400, 64)
    x[:size] = with_copies(np.repeat(x[:1], size, axis=0), rng)
    points = pictures(x, x[:0], among_train=True)
    found = alike_pairs(points, slice(0, 400), distance_ratio(points), most_copies(400, 2))
    assert most_copies(400, 2) == 31
    assert set(map(tuple, found.tolist())) == set(permutations(range(size), 2))


@pytest.mark.parametrize("spread", [0.3, 0.1, 0.01, 0.0])
def test_a_class_that_a_network_makes_alike_is_no_burst(spread):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 64))[np.arange(500) % 10]
    x = np.float32(x + spread * rng.standard_normal(x.shape))
    points = pictures(x, x[:0], among_train=True)
    most = most_copies(500, 10)
    assert most == 12
    assert len(alike_pairs(points, slice(0, 500), distance_ratio(points), most)) == 0


def test_frames_that_are_merely_alike_are_no_copies_but_do_not_judge_each_other():
    """The noise leaves a cosine of about .89 between two frames."""
    x = gauss(400, 64)
    x[:12] = with_copies(np.repeat(x[:1], 12, axis=0), np.random.default_rng(0), noise=0.35)
    points = pictures(x, x[:0], among_train=True)
    alike = alike_pairs(points, slice(0, 400), distance_ratio(points), most_copies(400, 2))
    same = nearly_same(points, alike)
    assert set(map(tuple, alike.tolist())) == set(permutations(range(12), 2))
    assert not same.any()
    labels = np.where(np.arange(400) < 200, CAT, DOG)
    assert judged_apart(alike, same, labels) == set(permutations(range(12), 2))


def judged_apart(alike, same, labels, most=31):
    found = no_judges(alike, same, labels, most).tolist()
    assert len(found) == len(set(map(tuple, found)))
    return set(map(tuple, found))


def test_the_first_frame_of_a_burst_does_not_judge_the_last():
    """Each is alike to the next one only; five of them are a quarter of twenty, and one more."""
    chain = np.array([(i, i + 1) for i in range(4)])
    labels, nothing = np.array([CAT] * 20 + [DOG] * 20), np.zeros(4, dtype=bool)
    assert judged_apart(chain, nothing, labels) == set(permutations(range(5), 2))
    assert judged_apart(chain, nothing, labels, most=4) == set(permutations(range(5), 2))
    assert judged_apart(chain, nothing, labels, most=3) == set()  # too long for a burst
    same = np.array([True, False, False, True])
    assert judged_apart(chain, same, labels, most=3) == {(0, 1), (3, 4)}


def test_a_rare_class_judges_itself_however_alike_its_images_are():
    """Only what is nearly the same is left out where no quarter of the class is alike."""
    alike = np.array(list(permutations(range(5), 2)))
    same = (alike < 2).all(axis=1)
    labels = np.array([FOX] * 5 + [CAT] * 40)
    assert judged_apart(alike, same, labels) == {(0, 1), (1, 0)}
    labels[5:20] = FOX  # 4 of 20 are no more than a quarter
    assert judged_apart(alike, same, labels) == set(permutations(range(5), 2))


def test_copies_of_each_are_those_of_the_same_content_or_nearly_the_same():
    near = np.array([(0, 3), (2, 5), (1, 4)])
    found = set(map(tuple, copies_of_each(["a", "b", "c", "d", "b", "a"], near).tolist()))
    expected = {(0, 3), (2, 5), (1, 4), (0, 5)}
    assert found == expected | {(j, i) for i, j in expected}
    assert copies_of_each([], near[:0]).shape == (0, 2)


def test_digits_are_not_near_and_their_copies_are():
    x = np.float32(load_digits().data)
    assert all_near(x) == []
    again = np.concatenate([x, x[:20]])
    assert {(i, len(x) + i) for i in range(20)} <= set(all_near(again))
    assert len(all_near(again)) == 40


def test_where_every_picture_occurs_twice_each_has_one_near_pair():
    x = gauss(200, 32)
    found = all_near(np.concatenate([x, with_copies(x, np.random.default_rng(0), 0.02)]))
    assert found == sorted([(i, i + 200) for i in range(200)] + [(i + 200, i) for i in range(200)])


def test_too_few_pictures_are_not_compared():
    assert all_near(np.repeat(gauss(1, 8), 5, axis=0)) == []
    assert all_near(gauss(50, 8), gauss(5, 8, seed=1), among_train=False) == []


def test_same_bytes_are_paired_with_the_first_of_each_label():
    contents = ["a", "b", "a", "a", "c", "c", "a"]  # the last two are clean
    labels = np.array([CAT, CAT, DOG, CAT, CAT, DOG, DOG])
    found = sorted(map(tuple, same_pairs(contents, labels, 5).tolist()))
    assert found == [(0, 2), (0, 6), (2, 0), (2, 6), (3, 0), (3, 2), (3, 6), (4, 5)]
    assert same_pairs([], labels, 5).shape == (0, 2)
    assert same_pairs(["a", "b"], labels[:2], 1).shape == (0, 2)


def pairs(*of):
    return np.array(of, dtype=np.intp).reshape(-1, 2)


def test_conflicts_by_hand():
    #        0    1    2    3    4    5    6    7  | 8    9   10   11
    y = [CAT, DOG, DOG, CAT, CAT, FOX, CAT, CAT, DOG, CAT, DOG, CAT]
    same = pairs((0, 1), (1, 0), (2, 8), (3, 11), (6, 8), (6, 9))
    near = pairs((0, 2), (3, 10), (4, 10), (5, 9), (5, 10))
    found = conflicts(same, near, np.array(y), 8)
    # 3 and 6 have clean copies of their own label among those with the same bytes.
    assert_array_equal(np.flatnonzero(found.refuted), [4, 5])
    assert_array_equal(found.other, [1, 0, 0, 10, 10, 9, 8, -1])
    assert_array_equal(found.same, [1, 1, 0, 0, 0, 0, 1, 0])
    assert sorted(map(tuple, found.pairs.tolist())) == [(0, 1), (0, 2), (1, 0), (2, 0)]
    words = described(found, [CLASSES[c] for c in y], [f"picture {i}" for i in range(12)])
    assert words[0] == "same picture as picture 1, labelled dog"
    assert words[2] == "nearly the same picture as picture 0, labelled cat"
    assert words[7] is None


def test_without_copies_there_is_no_conflict():
    found = conflicts(pairs(), pairs((0, 1)), np.array([CAT, CAT, DOG]), 3)
    assert not found.found.any()
    assert not found.refuted.any()


def decided(y, same, decision, *, clean=(), rule="validated", reason=None):
    """Decisions and reasons after conflicts; images are called 0, 1, ..."""
    n, labels = len(y), np.array([*y, *clean])
    names = [CLASSES[c] for c in labels]
    found = conflicts(pairs(*same), pairs(), labels, n)
    reason = np.array([""] * n if reason is None else reason)
    choice = Choice(rule=rule, decision=np.array(decision), reason=reason)
    words = described(found, names, [str(i) for i in range(len(labels))])
    after = resolved(choice, found, np.array(y), CLASSES, names, words)
    assert after.reason is not None
    return after.decision.tolist(), after.reason.tolist()


K, D, U = "keep", "drop", "undecided"


@pytest.mark.parametrize(
    ("rule_says", "expected"),
    [((K, D), (K, D)), ((D, K), (D, K)), ((K, K), (U, U)), ((D, D), (U, U)), ((U, D), (U, D))],
)
def test_two_images_in_conflict_are_undecided_unless_the_rule_drops_one(rule_says, expected):
    y = (CAT, DOG, CAT, DOG)  # two more, so that no class is emptied
    decision, reason = decided(y, [(0, 1), (1, 0)], (*rule_says, K, K), reason=["r"] * 4)
    assert decision == [*expected, K, K]
    if expected == (U, U):
        assert reason[0] == "same picture as 1, labelled dog; one of the two is wrong"
        assert reason[1] == "same picture as 0, labelled cat; one of the two is wrong"
    else:
        assert reason == ["r"] * 4


@pytest.mark.parametrize(
    ("rule_says", "expected"),
    [((D, K, K), (D, K, K)), ((D, D, K), (D, D, K)), ((K, D, K), (U, U, U)), ((D,) * 3, (U,) * 3)],
)
def test_of_several_copies_those_that_are_kept_must_have_one_label(rule_says, expected):
    same = [(0, 1), (0, 2), (1, 0), (2, 0)]
    decision, _ = decided((CAT, DOG, DOG, CAT), same, (*rule_says, K))
    assert decision == [*expected, K]


def test_what_a_clean_copy_refutes_is_dropped_whatever_the_rule_says():
    for says in (K, U, D):
        decision, reason = decided((CAT, CAT), [(0, 2)], (says, K), clean=(FOX,))
        assert decision == [D, K]
        assert reason == ["clean copy is labelled fox", ""]


def test_a_clean_copy_decides_between_two_images_in_conflict():
    same = [(0, 1), (1, 0), (0, 4), (1, 4)]
    y = (CAT, DOG, CAT, DOG)
    assert decided(y, same, (K,) * 4, clean=(DOG,))[0] == [D, K, K, K]
    # The rule would drop both; that of the right label is not dropped for it.
    assert decided(y, same, (D, D, K, K), clean=(DOG,))[0] == [D, U, K, K]
    assert decided(y, same, (K,) * 4, clean=(FOX,))[0] == [D, D, K, K]


def test_clean_copies_that_contradict_each_other_refute_nothing():
    decision, _ = decided((CAT, DOG), [(0, 2), (0, 3)], (K, K), clean=(DOG, CAT))
    assert decision == [K, K]


def test_no_conflict_empties_a_class():
    decision, reason = decided((CAT, DOG), [(0, 2)], (K, K), clean=(DOG,))
    assert decision == [U, K]
    assert reason[0] == "dropping it would leave no image of class cat"


@pytest.mark.parametrize("rule", ["zero", "chance", "share", "certain"])
def test_literal_rules_keep_their_decisions(rule):
    same = [(0, 1), (1, 0), (2, 3)]
    decision, reason = decided((CAT, DOG, CAT), same, (K, K, K), clean=(DOG,), rule=rule)
    assert decision == [K, K, K]
    assert reason == ["", "", ""]
