"""From evidence to what is kept: rules, safeguards, planted errors, and the tables of a run."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import spearmanr

from dcai_ray.cleaning.choices import keep_share
from dcai_ray.cleaning.planted import label_weights
from dcai_ray.cleaning.probes import principal_features, share_losses
from dcai_ray.cleaning.rules import SHARES
from dcai_ray.config import parse_config
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import dropping, tasks
from dcai_ray.steps.evidence import gather
from dcai_ray.steps.exact_values import compute_values
from dcai_ray.steps.feature_set import read_points
from dcai_ray.storage import schemas
from dcai_ray.storage.location import Location
from dcai_ray.valuation.knn_shapley import knn_shapley
from tests.support import in_process
from tests.support.feature_sets import write_features

CENTRES = 2 * np.random.default_rng(99).standard_normal((3, 4))


def clusters(counts, seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(3), counts))
    return np.float32(CENTRES[y] + 0.7 * rng.standard_normal((len(y), 4))), y


def flipped(points, share, seed):
    """The points with some wrong labels, and which they are."""
    (x, y), rng = points, np.random.default_rng(seed)
    wrong = rng.random(len(y)) < share
    return (x, np.where(wrong, (y + rng.integers(1, 3, len(y))) % 3, y)), wrong


TRUE = clusters([60, 50, 40], 0)
TRAIN, IS_WRONG = flipped(TRUE, 0.2, 1)
CLEAN, FEW = clusters([25, 20, 15], 2), clusters([6, 5, 5], 3)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    in_process.patch(monkeypatch)


class Valued:
    """A run that was valued, and its files."""

    def __init__(self, folder, train=TRAIN, clean=CLEAN, **settings):
        splits = {"train": train} | ({} if clean is None else {"shapley_val": clean})
        write_features(folder / "features", splits)
        run = RunDirectory(Location(str(folder)))
        self.config = parse_config({"value": {"k": 5} | settings}, "test")
        compute_values(run, self.config)
        self.points = read_points(run)
        self.table = pd.read_parquet(folder / "values/values.parquet")
        self.evidence = pd.read_parquet(folder / "values/evidence.parquet")
        self.kept = pd.read_parquet(folder / "kept.parquet")
        self.note = json.loads((folder / "run.json").read_text())["steps"]["values"]
        self.dropped = (self.table.decision == "drop").to_numpy()


def evidence_columns(*names):
    return [name for name in schemas.EVIDENCE.names if name in names]


def test_the_tables_hold_what_is_known_by_a_clean_set(tmp_path):
    run = Valued(tmp_path)
    everything = {*schemas.EVIDENCE.names} - {"suspicion", "path"}  # there are no images
    assert list(run.table.columns) == [*schemas.VALUES.names, *evidence_columns(*everything)]
    assert run.kept.id.tolist() == run.table.id[~run.dropped].tolist()
    assert run.evidence.id.tolist() == run.table.id.tolist()
    assert run.evidence.label.tolist() == run.table.label.tolist()
    assert not run.evidence.isna().any().any()
    assert run.note["kept"] == len(run.kept)
    # The margin is that of the probe at one of its penalties.
    margins = run.evidence.filter(like="margin_")
    assert (margins.sub(run.table.margin, axis=0).abs().max() == 0).any()


def test_the_tables_hold_what_is_known_without_one(tmp_path):
    run = Valued(tmp_path, clean=None, validation="self")
    everything = {*schemas.EVIDENCE.names} - {"wrong_probability", "value_self", "path"}
    assert list(run.table.columns) == [*schemas.VALUES.names, *evidence_columns(*everything)]
    assert run.note["planted"] is None
    assert run.note["separation"] is None
    assert run.note["choice"] == {"rule": "doubted", "ordering": "self"}


@pytest.mark.parametrize(
    "settings", [{}, {"rule": "wrong"}, {"rule": "doubted", "validation": "self"}]
)
def test_flips_are_dropped_and_their_true_labels_suggested(tmp_path, settings):
    run = Valued(tmp_path, **settings)
    suggested = run.table.suggested_label.str.removeprefix("class").astype(int)
    assert (suggested == TRUE[1])[IS_WRONG].mean() > 0.9
    if settings.get("rule"):  # decides image by image
        assert run.dropped[IS_WRONG].mean() > 0.8
        assert run.dropped[~IS_WRONG].mean() < 0.05
    else:  # validated drops a share, and no more than helps a probe for certain
        assert run.dropped[IS_WRONG].mean() > 0.5
        assert run.dropped[~IS_WRONG].mean() < 0.1
    assert set(run.table.reason[run.dropped]) != {""}


def test_rule_wrong_drops_by_the_column_of_probabilities(tmp_path):
    run = Valued(tmp_path, rule="wrong", wrong_above=0.8)
    likely = run.table.wrong_probability > 0.8
    agreed = run.table.suggested_label == run.table.label
    assert_array_equal(run.dropped, likely & ~agreed)
    assert run.note["choice"] == {"rule": "wrong", "ordering": "probability", "probability": 0.8}


def test_the_share_of_wrong_labels_and_what_the_list_does_to_planted_ones_are_told(tmp_path):
    run = Valued(tmp_path, rule="wrong")
    planted = run.note["planted"]
    assert planted["images"] == 60
    assert planted["share_low"] <= IS_WRONG.mean() <= planted["share_high"]
    for c in range(3):
        told = planted["classes"][f"class{c}"]
        assert told["share_low"] <= IS_WRONG[TRAIN[1] == c].mean() <= told["share_high"]
    # Planted errors are like the real ones here, so a list fares alike on both.
    for name, truth in (("recall", IS_WRONG), ("false_alarms", ~IS_WRONG)):
        assert planted[f"{name}_low"] - 0.05 < run.dropped[truth].mean() < (
            planted[f"{name}_high"] + 0.05
        )  # fmt: skip


@pytest.mark.slow
def test_planted_errors_are_flagged_where_the_rule_would_have_dropped_them(tmp_path):
    """Rule zero with classes alike: the reference scores are values, the cut is at zero."""
    run = Valued(tmp_path, rule="zero")
    known = gather(run.points, run.config, validate=False)
    scores = known.clean.column.newcomers[0]  # (r, C)
    weights = label_weights(CLEAN[1], known.evidence.probe.reference_predictions)
    wrong = np.arange(3) != CLEAN[1][:, np.newaxis]
    recall = (weights * (scores <= 0))[wrong].sum() / weights[wrong].sum()
    assert run.note["planted"]["recall"] == pytest.approx(recall, abs=1e-6)  # as it is rounded
    alarms = (scores <= 0)[~wrong].mean()
    assert run.note["planted"]["false_alarms"] == pytest.approx(alarms, abs=1e-6)
    # Values that do not weigh classes alike are not known for planted labels.
    plain = Valued(tmp_path / "none", rule="zero", class_weights="none").note["planted"]
    assert "share" in plain
    assert "recall" not in plain


def test_a_share_drops_the_lowest_values_whatever_the_probe_says(tmp_path):
    run = Valued(tmp_path, rule="share", drop_share=0.3)
    kept = keep_share(run.table.value.to_numpy(), 0.3, TRAIN[1])
    assert_array_equal(run.dropped, ~kept)
    per_class = Valued(tmp_path / "by class", rule="share", drop_share=0.3, per_class=True)
    kept = keep_share(per_class.table.value.to_numpy(), 0.3, TRAIN[1], per_class=True)
    assert_array_equal(per_class.dropped, ~kept)


@pytest.mark.parametrize("rule", [None, "wrong"])
def test_with_few_clean_images_the_training_images_judge_each_other(tmp_path, rule, capsys):
    run = Valued(tmp_path / "few", clean=FEW, rule=rule)
    assert run.note["choice"]["rule"] == "doubted"
    said = capsys.readouterr().err
    assert "shapley_val has 16 images of 3 classes, too few to tell how many to drop" in said
    assert run.dropped[IS_WRONG].mean() > 0.5
    assert "wrong_probability" not in run.table.columns
    assert "suspicion" in run.table.columns
    # Where they are too many for that, values alone are left.
    run = Valued(tmp_path / "large", clean=FEW, rule=rule, second_opinion_up_to=100)
    assert run.note["choice"] == {"rule": "zero", "threshold": 0.0}
    assert_array_equal(run.dropped, run.table.value <= 0)


def test_the_training_images_judge_each_other_if_asked_to_though_there_are_clean_ones(tmp_path):
    run = Valued(tmp_path / "asked", rule="doubted")
    alone = Valued(tmp_path / "alone", clean=None, validation="self")
    assert run.note["choice"] == {"rule": "doubted", "ordering": "self"}
    assert run.dropped[IS_WRONG].mean() > 0.5
    assert "suspicion" in run.table.columns
    assert "suspicion" in alone.table.columns
    with pytest.raises(UserError, match="needs values by the training set itself, which has 150"):
        Valued(tmp_path / "large", rule="doubted", second_opinion_up_to=100)
    assert not (tmp_path / "large/values").exists()  # refused before anything was computed


def test_a_class_that_the_clean_set_lacks_is_left_undecided(tmp_path):
    here = CLEAN[1] < 2
    clean = CLEAN[0][here], CLEAN[1][here]
    for rule in ("wrong", "zero"):
        run = Valued(tmp_path / rule, clean=clean, rule=rule)
        lacking = TRAIN[1] == 2
        assert set(run.table.decision[lacking]) == {"undecided"}
        assert set(run.table.reason[lacking]) == {"shapley_val has no image of class class2"}
        assert run.table.wrong_probability.isna().tolist() == lacking.tolist()
        assert "undecided" not in set(run.table.decision[~lacking])
    # Those that judge each other need no clean image of a class.
    run = Valued(tmp_path / "doubted", clean=None, validation="self")
    assert "undecided" not in set(run.table.decision)


def test_a_class_with_too_few_images_to_judge_each_other_is_left_undecided(tmp_path):
    few = np.flatnonzero(TRAIN[1] == 2)[5:]  # five of that class are left, and K is 5
    train = np.delete(TRAIN[0], few, axis=0), np.delete(TRAIN[1], few)
    run = Valued(tmp_path, train=train, clean=None, validation="self")
    own = train[1] == 2
    assert set(run.table.decision[own]) == {"undecided"}
    assert set(run.table.reason[own]) == {"too few images of class class2"}


def pair(counts, flipped, seed):
    """Points of two classes that overlap, a share with the other label, and which those are."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([0, 1], counts))
    x = 1.3 * np.eye(2, 8)[y] + 0.7 * rng.standard_normal((len(y), 8))
    wrong = rng.random(len(y)) < flipped
    return (np.float32(x), np.where(wrong, 1 - y, y)), wrong


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.15])
def test_right_images_of_a_rare_class_are_not_dropped_for_being_rare(tmp_path, share):
    """Five to one, in the clean set, too; over two draws, 40 images."""
    dropped, condemned, found = [], [], []
    for seed in (1, 2):
        train, wrong = pair([100, 20], share, seed)
        clean, _ = pair([50, 10], 0.0, 10 + seed)
        run = Valued(tmp_path / str(seed), train=train, clean=clean)
        assert run.note["choice"]["rule"] == "validated"
        rare = (train[1] == 1) & ~wrong
        dropped += run.dropped[rare].tolist()
        found += run.dropped[wrong].tolist()
        plain = knn_shapley(*train, *clean, k=5, metric="cosine")  # every clean image alike
        condemned += (plain <= 0)[rare].tolist()
    assert np.mean(condemned) > 0.5
    assert np.mean(dropped) <= 0.15
    if share:
        assert np.mean(found) > 0.5


def test_right_images_of_a_common_class_are_not_dropped_to_make_classes_equal(tmp_path):
    """Twenty to one, the clean set one to one."""
    train, _ = pair([200, 10], 0.0, 1)
    clean, _ = pair([30, 30], 0.0, 2)
    run = Valued(tmp_path, train=train, clean=clean)
    assert run.note["choice"]["rule"] == "validated"
    assert run.dropped.mean() <= 0.03


def test_the_likeliest_errors_come_first_even_where_every_probability_is_zero(
    tmp_path, monkeypatch
):
    seen, make = [], dropping.Valued
    monkeypatch.setattr(dropping, "Valued", lambda **parts: [seen.append(parts), make(**parts)][1])
    run = Valued(tmp_path, train=pair([100, 20], 0.0, 2)[0], clean=pair([50, 10], 0.0, 11)[0])
    assert (run.table.wrong_probability == 0).all()
    score = seen[0]["orderings"]["probability"]
    may = np.isfinite(score)
    assert may.sum() > 5  # the labels that the probe would change
    assert len(np.unique(score[may])) == may.sum()
    # The odds are learnt from the margins among others, so they agree by and large.
    assert spearmanr(score[may], run.table.margin[may]).statistic > 0.5


@pytest.mark.slow
def test_shares_are_tried_where_the_scores_do_not_come_from_the_tested_images(
    tmp_path, monkeypatch
):
    jobs = []
    score = tasks.score_share
    monkeypatch.setattr(
        tasks, "score_share", lambda job, data: [jobs.append(job), score(job, data)][1]
    )
    run = Valued(tmp_path)
    known = gather(run.points, run.config, validate=True)
    by_self = known.own.column.value[0]
    tried, suggested = {}, known.evidence.probe.suggested
    for job in jobs:
        # What no clean image decides is tested on all of them at once.
        fold = next((f for f in known.folds if np.array_equal(f.test, job.test)), None)
        assert fold is not None or job.test.all()
        scores = {"self": by_self} | (
            {}
            if fold is None
            else {
                "value": fold.value,
                "both": known.both(fold.value, by_self, run.config),
                "probability": -fold.odds,
            }
        )
        may = np.isfinite(job.score)
        (name,) = (n for n, score in scores.items() if np.array_equal(job.score[may], score[may]))
        # By value any image may go; where labels are judged, none that looks like its label.
        looks_like = suggested if fold is None else fold.suggested
        expected = np.ones(len(may), bool) if name == "value" else looks_like != TRAIN[1]
        assert_array_equal(may, expected)
        tests = tried.setdefault(name, {}).setdefault(job.share, np.zeros(len(CLEAN[1]), int))
        tests += job.test
    assert set(tried) == {"value", "self", "both", "probability"}
    assert set(tried["value"]) == set(SHARES)
    for name, shares in tried.items():
        for tests in shares.values():
            assert_array_equal(tests, 1)  # every clean image once
        if name != "value":  # as far as there are images to drop; all images are tried once
            assert 0 not in shares
            assert 3 <= len(shares) < 18
    assert set(run.note["choice"]["orderings"]) == set(tried)


def test_losses_of_the_folds_are_those_of_probes_on_each_of_them(tmp_path):
    """By hand for one share: of each clean image the loss from the fold that it is tested in."""
    run = Valued(tmp_path, rule="share")
    known = gather(run.points, run.config, validate=True)
    value = known.clean.column.value[0]
    nobody = np.zeros(len(value), dtype=bool)
    trials = dropping._trials({"value": value}, nobody, run.config, known, exact=True)
    losses = dropping._losses(trials, run.points, run.config, [0.0, 0.2])["value"]
    x, x_clean = principal_features(TRAIN[0], CLEAN[0])
    counts = np.bincount(CLEAN[1])
    weights = len(CLEAN[1]) / 3 / counts[CLEAN[1]]  # the mean over classes of their means
    for share, found in zip((0.0, 0.2), losses, strict=True):
        for fold in known.folds:
            expected = share_losses(
                fold.value, share, x, TRAIN[1], x_clean[fold.test], CLEAN[1][fold.test],
                balanced=True,
            )  # fmt: skip
            assert_array_equal(found[fold.test], expected * weights[fold.test])
