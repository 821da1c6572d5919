"""Step 2b: everything that is known about the labels before a rule decides, computed by tasks.

Values by the clean images and by the training images come from one closed form, with the values
that reference images would have (`cleaning.evidence`); the ridge probe runs beside them. With fewer
than `MIN_CLEAN` clean images nothing can be learnt from planted errors, and the training images
themselves serve as reference images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from dcai_ray import progress
from dcai_ray.cleaning.conflicts import Pairs
from dcai_ray.cleaning.doubts import MAX_SHARE, NEIGHBOURS, Doubts, doubts
from dcai_ray.cleaning.evidence import (
    Evidence,
    Network,
    Probe,
    gathered,
    neighbour_counts,
    references,
    with_best_suggestions,
)
from dcai_ray.cleaning.label_fit import LabelledSet
from dcai_ray.cleaning.planted import MIN_CLEAN, Judged, judge, wrong_odds
from dcai_ray.cleaning.rules import Doubted
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.conflicts import Copies, find_copies
from dcai_ray.steps.feature_set import FeatureSet
from dcai_ray.steps.out_of_fold import Predicted, read_predictions
from dcai_ray.valuation.count_values import CountGame, count_game
from dcai_ray.valuation.knn_shapley import KnnGame, Values, knn_game, merged

FORMAT = 6
"""Raise this when a formula or constant of the evidence (`cleaning.evidence`, `cleaning.ridge`,
`cleaning.planted`, `cleaning.doubts`, `cleaning.conflicts`) changes."""

MAX_REFERENCE_ERRORS = 0.05
"""Share of wrong labels among the clean images above which they are not learnt from."""
_LEVEL = 0.05  # of the test that the share is above it
FOLDS = 5
"""Into which the clean images are split to validate a rule."""


@dataclass(frozen=True, slots=True)
class Valued:
    """Values by one validation set."""

    column: Values
    """With the settings of the run; the first table."""
    evidence: Values
    """Shapley values with balanced classes, one table per number of neighbours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """What the clean images outside one fold say of the training images."""

    test: NDArray[np.bool_]  # (m,) the clean images of the fold
    value: NDArray[np.float64]  # (n,) by the other clean images
    odds: NDArray[np.float64]  # (n,) log odds of a wrong label
    suggested: NDArray[np.int64]  # (n,) class numbers


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known about the labels of n training images."""

    clean: Valued | None
    """Values by the m clean images; None without."""
    own: Valued | None
    """Values by the training images themselves; None where there are too many."""
    evidence: Evidence
    rows: NDArray[np.intp]
    """(r,) indices of the reference images among the clean or the training images."""
    y: NDArray[np.int64]  # (n,) class numbers as given
    by_clean: bool
    """Whether the reference images are clean."""
    num_clean: int
    """m."""
    folds: Sequence[Fold]
    copies: Copies
    clean_errors: float | None = None
    """Share of wrong labels among the clean images, where it is too high to learn from them."""
    label_doubts: tuple[str, ...] = ()
    """What is wrong with the labels of train or shapley_val as a whole, in sentences."""

    def both(self, by_clean: Any, by_self: Any, config: Config) -> Any:
        """Values by clean and training images as one validation set."""
        weight = config.value.self_weight * len(self.y)
        return (self.num_clean * by_clean + weight * by_self) / (self.num_clean + weight)

    def reference_scores(self, ordering: str, config: Config) -> NDArray[np.float64] | None:
        """(r, C) what the reference images would be ordered by, with each label.

        None if it was not computed, as for values that do not weigh classes alike, and of other
        utilities than `knn`.
        """
        if ordering == "probability":
            return None if self.judged is None else -self.judged.reference_odds
        own, by_set = (
            None if valued is None or not valued.column.newcomers.size
            else valued.column.newcomers[0]
            for valued in (self.own, self.clean)
        )  # fmt: skip
        if own is None and by_set is None:
            return None
        if ordering == "self":
            return own
        if ordering == "both" or config.value.validation == "both":
            return self.both(by_set, own, config)
        return by_set

    @cached_property
    def judged(self) -> Judged | None:
        """What planted errors say; None without clean images to plant them in."""
        return judge(self.evidence, self.y) if self.by_clean else None

    @cached_property
    def doubts(self) -> Doubts | None:
        """What the training images say of each other; None where they were not asked."""
        if self.by_clean or self.own is None:
            return None
        own = self.own.evidence
        table = neighbour_counts(len(self.y), 1).index(NEIGHBOURS)
        return doubts(self.evidence, self.rows, self.y, own.value[table], own.stderr[table])


def gather(points: FeatureSet, config: Config, *, validate: bool) -> Known:
    """Value the images and run the probe; where most labels look wrong, look at them as a whole.

    Args:
        points: the features.
        config: its sections value and resources are used.
        validate: whether the clean images are also left out fold by fold.
    Raises:
        UserError: the probabilities of the settings do not fit, or the rule is about what training
            images say of each other, and there are too many to ask.
    """
    known = _known(points, config, validate=validate)
    if not _look_wrong(known):
        return known
    by_itself = config.value.validation == "self"
    clean = None if by_itself else LabelledSet("shapley_val", points.clean.x, points.clean.y)
    return replace(known, label_doubts=compare_labels(points, clean, config))


def compare_labels(
    points: FeatureSet, others: LabelledSet | None, config: Config
) -> tuple[str, ...]:
    """What is wrong with the labels of train and other images as a whole, found by a task."""
    name = "comparing labels as a whole"
    step = Step(name=name, unit="comparisons", task_names=[name], run=points.run)
    function = partial(tasks.compare_labels, classes=points.classes)
    sets = (LabelledSet("train", points.train.x, points.train.y), others)
    (found,) = run_tasks(function, [sets], step, config.resources)
    return found


def _look_wrong(known: Known) -> bool:
    """Whether most labels, of all or of a class, look wrong."""
    if known.judged is not None:
        judged = (known.judged.share, *known.judged.class_shares)
        return any(share.value > MAX_SHARE for share in judged)
    doubted = known.doubts is not None and known.doubts.share > MAX_SHARE
    return doubted or known.clean_errors is not None


def _known(points: FeatureSet, config: Config, *, validate: bool) -> Known:
    """All that single labels are judged by; arguments and errors as in `gather`."""
    clean, settings = points.clean, config.value
    if settings.chosen_rule == Doubted.name:
        if not _values_itself(points, config):
            raise UserError(
                f"rule doubted needs values by the training set itself, which has "
                f"{len(points.train.y)} images; raise value.second_opinion_up_to, or use another "
                "rule"
            )
        return _gather(points, config, trusted=False, validate=False)
    if settings.validation == "self":
        return _gather(points, config, trusted=False, validate=False)
    if len(clean.y) < MIN_CLEAN or len(np.unique(clean.y)) < 2:
        return _gather(points, config, trusted=False, validate=False)
    known = _gather(points, config, trusted=True, validate=validate)
    assert known.judged is not None
    errors = known.judged.reference_errors
    if not _are_too_many(errors, len(clean.y)):
        _tell_missing_classes(points)
        return known
    instead = ", or use --validation self" if settings.method == "exact" else ""
    progress.warn(
        f"about {100 * errors:.0f} % of the labels of shapley_val look wrong themselves: nothing "
        f"can be learnt from them; check them{instead}"
    )
    known = _gather(points, config, trusted=False, validate=False, with_clean=False)
    return replace(known, clean_errors=errors)


def _are_too_many(errors: float, count: int) -> bool:
    """Whether a share of errors among so many clean images is above the limit, not by chance.

    Source: the binomial test; few images have a few suspicious ones by chance.
    """
    return bool(binom.sf(round(errors * count) - 1, count, MAX_REFERENCE_ERRORS) < _LEVEL)


def _gather(
    points: FeatureSet, config: Config, *, trusted: bool, validate: bool, with_clean: bool = True
) -> Known:
    """What is known with the clean images as reference images (`trusted`), or the training images.

    The values by the clean images are computed in any case, as they are asked for; `with_clean`
    tells whether the probe learns from them.
    """
    settings, train, clean = config.value, points.train, points.clean
    use_clean = settings.validation != "self" and len(clean.y) > 0
    use_own = _values_itself(points, config)
    rows = references(clean.y if trusted else train.y)
    whole = np.ones(len(clean.y) if use_clean else 0, dtype=bool)
    predicted = read_predictions(points, config, of_clean=trusted)
    folds = _folds(clean.y) if validate else []
    learnt_from = [whole & with_clean, *(~test for test in folds)]
    copies = find_copies(points, config, among_train=use_own)
    probes = _probes(points, config, learnt_from, rows, trusted, copies)
    by_own = _valued(points, config, None, rows, trusted, copies) if use_own else None
    by_set = _valued(points, config, whole, rows, trusted, copies) if use_clean else None
    evidence = _gathered(
        points, by_set if trusted else None, by_own, probes[0], predicted, rows, learnt_from[0]
    )
    found = []
    for test, probe in zip(folds, probes[1:], strict=True):
        part = _valued(points, config, ~test, rows, trusted, copies)
        others = _gathered(points, part, by_own, probe, predicted, rows, ~test)
        found.append(
            Fold(
                test=test,
                value=part.column.value[0],
                odds=wrong_odds(others),
                suggested=others.probe.suggested,
            )
        )
    return Known(
        clean=by_set,
        own=by_own,
        evidence=evidence,
        rows=rows,
        y=train.y,
        by_clean=trusted,
        num_clean=len(clean.y),
        folds=found,
        copies=copies,
    )


def _values_itself(points: FeatureSet, config: Config) -> bool:
    """Whether the training images are valued by each other."""
    n, settings = len(points.train.y), config.value
    return settings.validation != "clean" or 2 <= n <= settings.second_opinion_up_to


def _folds(y: NDArray[np.integer]) -> list[NDArray[np.bool_]]:
    """(m,) masks of the folds; every class is dealt out in turn."""
    fold = np.empty(len(y), dtype=np.intp)
    fold[np.argsort(y, kind="stable")] = np.arange(len(y)) % FOLDS
    return [fold == number for number in range(FOLDS)]


def _probes(
    points: FeatureSet,
    config: Config,
    clean: Sequence[NDArray[np.bool_]],
    rows: NDArray[np.intp],
    by_clean: bool,
    copies: Copies,
) -> list[Probe]:
    """The ridge probe with each choice of the clean images.

    An image is not judged by copies of it, except a training image by clean copies: their labels
    are known, and a clean image stands for a training image whose copies are not.
    """
    data = tasks.RidgeData(
        train=(points.train.x, points.train.y),
        clean=(points.clean.x, points.clean.y),
        rows=rows,
        rows_are_clean=by_clean,
        num_classes=len(points.classes),
        copies=np.concatenate([copies.among_train, copies.of_clean]),
    )
    step = Step(
        name="leave-one-out probe",
        unit="probes",
        task_names=[f"leave-one-out probe {number}" for number in range(len(clean))],
        run=points.run,
    )
    return list(run_tasks(partial(tasks.fit_ridge, data=data), clean, step, config.resources))


def _valued(
    points: FeatureSet,
    config: Config,
    kept: NDArray[np.bool_] | None,
    rows: NDArray[np.intp],
    by_clean: bool,
    copies: Copies,
) -> Valued:
    """Values by some of the clean images (m,), or by the training images for None.

    Training images that show the same do not value each other, and nothing that shows the same as a
    newcomer values it.
    """
    settings, train, clean = config.value, points.train, points.clean
    by_self = kept is None
    others = (None, None) if kept is None else (clean.x[kept], clean.y[kept])
    further: dict[str, Any] = {}
    if by_clean:
        further = {
            "x_newcomers": clean.x[rows],
            "unvalued": _unvalued(copies, kept, rows, len(train.y), len(clean.y)),
        }
    elif by_self:
        further = {"relabelled": rows}
    counts = neighbour_counts(len(train.y), len(points.classes))
    game = partial(
        knn_game, train.x, train.y, *others, metric=settings.metric, copies=copies.among_train
    )
    chosen: dict[str, Any] = {
        "k": settings.k,
        "semivalue": settings.semivalue,
        "beta": settings.beta,
    }
    balanced = settings.class_weights == "balanced"
    # A second opinion beside the values by clean images is that of the closed form, whatever the
    # utility: it has as many validation points as there are training images.
    is_second = by_self and settings.validation == "clean"
    counts_votes = settings.method == "exact" and settings.utility != "knn" and not is_second
    if balanced and not counts_votes:
        # One ranking serves both.
        found = _run(
            game(**chosen, class_weights="balanced", further_k=counts, **further),
            points, config, by_self=by_self,
        )  # fmt: skip
        return Valued(found, found.without_first())
    asked = game(**chosen, class_weights=settings.class_weights)
    if counts_votes:
        options: dict[str, Any] = {**chosen, **settings.utility_options}
        counted = count_game(asked, settings.utility, **options, balanced=balanced)
        column = _run(counted, points, config, by_self=by_self)
    else:
        column = _run(asked, points, config, by_self=by_self)
    fair = game(k=counts[0], class_weights="balanced", further_k=counts[1:], **further)
    return Valued(column, _run(fair, points, config, by_self=by_self))


def _unvalued(
    copies: Copies, kept: NDArray[np.bool_] | None, rows: NDArray[np.intp], n: int, m: int
) -> Pairs:
    """Validation points and the newcomers that they show, or nearly so.

    Args:
        kept: (m,) the clean images that value, or None for the n training images.
        rows: (r,) the clean images that are newcomers.
    """
    number = np.full(m, -1)
    number[rows] = np.arange(len(rows))
    newcomer, image = copies.of_clean.T
    if kept is None:
        pairs = np.stack([image, number[newcomer - n]], axis=1)[image < n]
    else:
        itself = np.arange(n, n + m)
        newcomer, image = np.append(newcomer, itself), np.append(image, itself)
        place = np.append(np.full(n, -1), np.where(kept, np.cumsum(kept) - 1, -1))
        pairs = np.stack([place[image], number[newcomer - n]], axis=1)
    return pairs[(pairs >= 0).all(axis=1)]


def _run(game: KnnGame | CountGame, points: FeatureSet, config: Config, *, by_self: bool) -> Values:
    name = f"valuing by {'the training set (leave-one-out)' if by_self else 'shapley_val'}"
    unit = f"validation {RunDirectory(points.run).unit}"
    step = Step.of_blocks(name, unit, game.val_blocks, points.run)
    function = partial(tasks.value_block, game=game)
    sums = run_tasks(function, game.val_blocks, step, config.resources)
    return merged(game.points if isinstance(game, CountGame) else game, sums)


def _gathered(
    points: FeatureSet,
    by_set: Valued | None,
    by_own: Valued | None,
    probe: Probe,
    predicted: Sequence[Predicted],
    rows: NDArray[np.intp],
    learnt: NDArray[np.bool_],
) -> Evidence:
    """The evidence, where the clean images of a mask (m,) may be learnt from.

    Values by clean images (`by_set`) make these the reference images: those among `learnt`.
    """
    by_clean = by_set is not None
    used = learnt[rows] if by_clean else np.ones(len(rows), dtype=bool)
    counts = neighbour_counts(len(points.train.y), len(points.classes))
    pieces = []
    for name, found in (("value", by_set), ("self", by_own)):
        if found is not None:
            others = found.evidence.newcomers if by_clean else found.evidence.relabelled
            pieces += [
                (f"{name}_k{k}", found.evidence.value[i], others[i][used])
                for i, k in enumerate(counts)
            ]
    train, clean = points.train.y, points.clean.y[: len(learnt)]
    networks = [_network(each, rows[used], by_clean, learnt) for each in predicted]
    probe = with_best_suggestions(probe, networks, clean[learnt] if learnt.any() else train)
    labels = (clean if by_clean else train)[rows[used]]
    return gathered(pieces, probe, train, labels, networks)


def _network(
    predicted: Predicted, rows: NDArray[np.intp], by_clean: bool, learnt: NDArray[np.bool_]
) -> Network:
    """Predictions for the training images, and for clean or training images as reference images."""
    train, clean = predicted.train, predicted.clean
    judged: NDArray[np.float64] | None = train
    if learnt.any():
        judged = None if clean is None else clean[: len(learnt)][learnt]
    others = clean if by_clean else train
    assert others is not None
    return Network(predicted.name, train, others[rows], judged)


def _tell_missing_classes(points: FeatureSet) -> None:
    """Warn of classes that the clean images lack; every rule leaves them undecided."""
    missing = np.setdiff1d(points.train.y, points.clean.y)
    if len(missing):
        names = ", ".join(points.classes[c] for c in missing)
        progress.warn(
            f"shapley_val has no image of class {names}: the training images of that class cannot "
            "be judged by it and stay undecided; add some clean ones"
        )
