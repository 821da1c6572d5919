"""What is known of labels, against the closed form and the probe without each image."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dcai_ray.cleaning.evidence import PENALTIES, run_probe
from dcai_ray.config import parse_config
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import evidence
from dcai_ray.steps.conflicts import find_copies
from dcai_ray.steps.evidence import FOLDS, MIN_CLEAN, gather
from dcai_ray.steps.feature_set import read_points
from dcai_ray.storage.location import Location
from dcai_ray.valuation.knn_shapley import knn_shapley
from tests.support import in_process
from tests.support.feature_sets import write_features

COUNTS = (5, 10)  # numbers of neighbours, for so few images
CENTRES = 2 * np.random.default_rng(99).standard_normal((3, 4))


def clusters(counts, seed):
    """Points of three clusters, in a random order."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(3), counts))
    return np.float32(CENTRES[y] + rng.standard_normal((len(y), 4))), y


TRAIN, CLEAN, FEW = clusters([40, 20, 10], 0), clusters([18, 10, 6], 1), clusters([10, 5, 5], 2)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    in_process.patch(monkeypatch)


def known(folder, clean, validate=False, **settings):
    splits = {"train": TRAIN} | ({} if clean is None else {"shapley_val": clean})
    write_features(folder / "features", splits)
    points = read_points(RunDirectory(Location(str(folder))))
    return gather(points, parse_config({"value": {"k": 3} | settings}, "test"), validate=validate)


def shapley(*points, k, **options):
    return knn_shapley(*points, k=k, **{"metric": "cosine", "class_weights": "balanced"} | options)


def joined(point, label):
    """The training images and one more."""
    return np.vstack([TRAIN[0], point[np.newaxis]]), np.append(TRAIN[1], label)


def left_out(points, index):
    return tuple(np.delete(array, index, axis=0) for array in points)


@pytest.mark.parametrize("weights", ["balanced", "none"])
def test_values_are_those_of_the_settings_and_evidence_weighs_classes_alike(tmp_path, weights):
    found = known(tmp_path, CLEAN, class_weights=weights, validation="both")
    for values, by in ((found.clean, CLEAN), (found.own, ())):
        expected = shapley(*TRAIN, *by, k=3, class_weights=weights)
        assert_allclose(values.column.value[0], expected, atol=1e-15)  # summed otherwise
        for i, k in enumerate(COUNTS):
            assert_allclose(values.evidence.value[i], shapley(*TRAIN, *by, k=k), atol=1e-15)
    columns = dict(zip(found.evidence.names, found.evidence.given.T, strict=True))
    assert list(columns) == [
        *("value_k5", "value_k10", "self_k5", "self_k10"),
        *(f"margin_{penalty:g}" for penalty in PENALTIES),
    ]
    assert_allclose(columns["value_k10"], 70 * shapley(*TRAIN, *CLEAN, k=10), atol=1e-13)
    assert_allclose(columns["self_k5"], 70 * shapley(*TRAIN, k=5), atol=1e-13)


def test_a_clean_image_joins_the_training_images_alone_and_is_valued_by_the_other_clean_ones(
    tmp_path,
):
    found = known(tmp_path, CLEAN, metric="euclidean").evidence  # the centre decides no rank
    assert_array_equal(found.labels, CLEAN[1])
    names = {name: i for i, name in enumerate(found.names)}
    for image in (0, 7, 33):
        others = left_out(CLEAN, image)
        for label in range(3):
            reference = found.reference[image, label]
            together = joined(CLEAN[0][image], label)
            for k in COUNTS:
                expected = 70 * shapley(*together, *others, k=k, metric="euclidean")[-1]
                by_clean = reference[names[f"value_k{k}"]]
                assert by_clean == pytest.approx(expected, abs=1e-12)  # sums of values of about 1


def test_what_shows_the_same_as_a_clean_image_does_not_judge_it(tmp_path, monkeypatch):
    """Clean image 7 occurs again as clean image 9 and, under a label of its own, as training image
    2; training images 5 and 6 show the same."""
    n = len(TRAIN[1])

    def known_with(name, among_train, of_clean):
        def made(points, config, **options):
            found = find_copies(points, config, **options)
            pairs = (np.array(each, int).reshape(-1, 2) for each in (among_train, of_clean))
            return replace(found, among_train=next(pairs), of_clean=next(pairs))

        monkeypatch.setattr(evidence, "find_copies", made)
        return known(tmp_path / name, CLEAN, metric="euclidean", validate=True)

    of_clean = [(n + 7, n + 9), (n + 9, n + 7), (n + 7, 2)]
    found = known_with("copied", [(5, 6), (6, 5)], of_clean)
    plain = known_with("plain", [], [])
    names = {name: i for i, name in enumerate(found.evidence.names)}
    others, leaves_out = left_out(CLEAN, [7, 9]), {5: [5, 6], 6: [5, 6]}
    for label in range(3):
        together, k = joined(CLEAN[0][7], label), 5
        expected = n * shapley(*together, *others, k=k, metric="euclidean")[-1]
        by_clean = found.evidence.reference[7, label, names[f"value_k{k}"]]
        assert by_clean == pytest.approx(expected, abs=1e-12)
        expected = n * np.mean([
            np.mean([
                shapley(
                    *left_out(together, leaves_out.get(i, i)),
                    together[0][[i]], together[1][[i]], k=k, metric="euclidean",
                )[-1]
                for i in np.flatnonzero(TRAIN[1] == c) if i != 2
            ])
            for c in range(3)
        ])  # fmt: skip
        by_self = found.evidence.reference[7, label, names[f"self_k{k}"]]
        assert by_self == pytest.approx(expected, abs=1e-12)
    groups = np.array([(5, 6), (6, 5), *of_clean])
    probe = run_probe(*TRAIN, *CLEAN, n + np.arange(len(CLEAN[1])), 3, groups)
    for name, changed in (("margins", [5, 6]), ("reference_margins", [7, 9])):
        margins = getattr(found.evidence.probe, name)
        before = getattr(plain.evidence.probe, name)
        assert_allclose(margins, getattr(probe, name), atol=3e-9)  # they are rounded to 1e-9
        differs = (abs(margins - before) > 3e-9).reshape(len(margins), -1).any(axis=1)
        assert_array_equal(np.flatnonzero(differs), changed)
    rest = np.setdiff1d(np.arange(len(CLEAN[1])), [7, 9])
    for piece in ("value_k5", "value_k10"):
        values = found.evidence.reference[..., names[piece]]
        assert_array_equal(values[rest], plain.evidence.reference[rest][..., names[piece]])
    assert not all(
        np.array_equal(fold.odds, before.odds)
        for fold, before in zip(found.folds, plain.folds, strict=True)
    )


def test_few_clean_images_teach_nothing_and_the_training_images_judge_each_other(tmp_path):
    assert len(FEW[1]) < MIN_CLEAN <= len(CLEAN[1])
    found = known(tmp_path / "few", FEW, validate=True)
    assert not found.by_clean
    assert found.judged is None
    assert found.folds == []
    assert_array_equal(found.evidence.labels, TRAIN[1])
    assert found.evidence.reference.shape[:2] == (70, 3)
    assert not any(name.startswith("value") for name in found.evidence.names)
    # With its given label a training image as a reference image is what it is.
    own = found.evidence.reference[np.arange(70), TRAIN[1]]
    assert_allclose(own, found.evidence.given, atol=1e-12)
    # The probe learns from the clean images all the same.
    probe = run_probe(*TRAIN, *FEW, np.arange(70), 3)
    assert_array_equal(found.evidence.probe.margins, probe.margins)
    assert found.doubts.doubted.shape == (70,)
    assert_array_equal(found.clean.column.value[0], shapley(*TRAIN, *FEW, k=3))
    without = known(tmp_path / "none", None, validation="self")
    assert without.clean is None
    assert without.judged is None
    assert without.doubts is not None


def test_clean_images_of_a_single_class_teach_nothing(tmp_path):
    found = known(tmp_path, clusters([40, 0, 0], 3))
    assert not found.by_clean


def test_where_the_training_set_is_large_it_does_not_value_itself(tmp_path):
    found = known(tmp_path / "clean", CLEAN, second_opinion_up_to=69)
    assert found.own is None
    assert not any(name.startswith("self") for name in found.evidence.names)
    assert found.judged is not None
    found = known(tmp_path / "few", FEW, second_opinion_up_to=69)
    assert found.doubts is None


def test_labels_one_row_off_are_told_as_a_whole_and_right_ones_are_not(tmp_path, monkeypatch):
    right = {"train": clusters([90, 90, 90], 0), "shapley_val": clusters([40, 40, 40], 1)}
    moved = {split: (x, np.roll(y, 1)) for split, (x, y) in right.items()}
    by_chance = "the labels of {} fit its images no better than by chance"
    monkeypatch.setattr(sys.modules[__name__], "TRAIN", right["train"])
    assert known(tmp_path / "right", right["shapley_val"]).label_doubts == ()
    (line,) = known(tmp_path / "clean", moved["shapley_val"]).label_doubts
    assert line.startswith(by_chance.format("shapley_val"))
    monkeypatch.setattr(sys.modules[__name__], "TRAIN", moved["train"])
    (line,) = known(tmp_path / "train", right["shapley_val"]).label_doubts
    assert line.startswith(by_chance.format("train"))
    (line,) = known(tmp_path / "alone", None, validation="self").label_doubts
    assert line.startswith(by_chance.format("train"))


@pytest.mark.slow
def test_a_fold_knows_nothing_of_the_clean_images_that_are_tested_on(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "MAX_REFERENCE_ERRORS", 1.0)  # some are moved to other classes
    found = known(tmp_path / "as it is", CLEAN, validate=True)
    assert len(found.folds) == FOLDS
    assert_array_equal(sum(fold.test.astype(int) for fold in found.folds), 1)
    for c in range(3):  # every class is dealt out evenly
        counts = [int(fold.test[CLEAN[1] == c].sum()) for fold in found.folds]
        assert max(counts) - min(counts) <= 1
    for number, fold in enumerate(found.folds):
        rest = tuple(array[~fold.test] for array in CLEAN)
        assert_allclose(fold.value, shapley(*TRAIN, *rest, k=3), atol=1e-15)
        moved = (np.where(fold.test[:, np.newaxis], -CLEAN[0], CLEAN[0]), CLEAN[1])
        again = known(tmp_path / str(number), moved, validate=True).folds[number]
        assert_array_equal(again.test, fold.test)
        assert_array_equal(again.odds, fold.odds)


def test_of_many_clean_images_some_are_reference_images(tmp_path, monkeypatch):
    """Which ones decides no value, and those that are none value the others all the same."""
    whole = known(tmp_path / "all", CLEAN, validate=True)
    rows = np.arange(0, 34, 3)
    monkeypatch.setattr(evidence, "references", lambda y: rows)
    some = known(tmp_path / "some", CLEAN, validate=True)
    assert_array_equal(some.evidence.labels, CLEAN[1][rows])
    assert_allclose(some.evidence.reference, whole.evidence.reference[rows], atol=1e-12)
    assert_array_equal(some.evidence.given, whole.evidence.given)
    for fold in some.folds:
        assert np.isfinite(fold.odds).all()


@pytest.mark.parametrize("weight", [0.4, 1.5])
def test_both_is_the_mean_over_clean_and_training_images(tmp_path, weight):
    found = known(tmp_path, CLEAN, self_weight=weight)
    config = parse_config({"value": {"self_weight": weight}}, "test")
    expected = (34 * 0.25 + weight * 70 * 0.75) / (34 + weight * 70)
    assert found.both(0.25, 0.75, config) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("errors", "count", "too_many"),
    [
        (0.0, 30, False),
        (0.08, 60, False),  # 5 of 60: seen by chance with 5 % wrong in every fifth set
        (0.12, 60, True),  # 7 of 60: in three of a hundred
        (0.08, 500, True),
        (0.05, 10**6, False),
    ],
)
def test_clean_labels_are_refused_where_more_are_wrong_than_by_chance(errors, count, too_many):
    assert evidence._are_too_many(errors, count) == too_many
