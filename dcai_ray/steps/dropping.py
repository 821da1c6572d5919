"""From values and evidence to decisions: the rule of the settings, with its trials as tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dcai_ray import progress
from dcai_ray.cleaning.choices import Choice, Sampled, Valued
from dcai_ray.cleaning.doubts import MAX_SHARE, NEIGHBOURS
from dcai_ray.cleaning.planted import MIN_CLEAN
from dcai_ray.cleaning.probes import principal_features
from dcai_ray.cleaning.recall import Detection, class_detections, detection
from dcai_ray.cleaning.rules import Doubted, Rule, Validated, Wrong, Zero, new_rule
from dcai_ray.cleaning.safeguards import safeguarded, trusts_suggestions
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config, plain
from dcai_ray.steps import tasks
from dcai_ray.steps.evidence import Known
from dcai_ray.steps.feature_set import FeatureSet

FORMAT = 6
"""Raise this when a rule, one of its constants, a safeguard, what copies overrule, the tiers or the
probe of the shares changes (`cleaning.rules`, `cleaning.safeguards`, `cleaning.conflicts`,
`cleaning.tiers`, `cleaning.probes`): values are then written anew."""


def rule_of(config: Config) -> Rule:
    """The rule of the settings."""
    settings = {**plain(config.value), "confidence": config.sample.confidence}
    return new_rule(config.value.chosen_rule, settings)


def validates(config: Config) -> bool:
    """Whether the rule needs the clean images left out fold by fold."""
    return config.value.chosen_rule == Validated.name


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Decided:
    """The decisions, and how they fare on planted errors."""

    choice: Choice
    planted: Detection | None
    """None where nothing could be planted, or where the values of planted images are unknown."""
    planted_by_class: tuple[Detection, ...]


def decide(
    value: NDArray[np.float64],
    points: FeatureSet,
    config: Config,
    known: Known,
    sampled: Sampled | None = None,
) -> Decided:
    """The decisions of the rule of the settings; shares are tried by tasks.

    Args:
        value: (n,).
        points: the features of the n images.
        config: its sections value, sample and resources are used.
        known: what is known about their labels.
        sampled: what sampling yields besides the values; None if they are exact.
    """
    judged, doubts = known.judged, known.doubts
    right = -judged.odds if judged else None
    exact = sampled is None
    suggested = known.evidence.probe.suggested
    num_classes = len(points.classes)
    lacking = np.bincount(points.clean.y, minlength=num_classes) == 0
    unjudged = lacking[points.train.y] & validates(config)
    orderings = _orderings(value, right, suggested, unjudged, config, known, exact=exact)
    trials = _trials(orderings, unjudged, config, known, exact=exact)
    valued = Valued(
        value=value,
        y=points.train.y,
        losses=partial(_losses, trials, points, config),
        orderings=orderings,
        wrong_probability=judged.wrong_probability if judged else None,
        doubted=doubts.doubted if doubts else None,
        sampled=sampled,
    )
    rule = _usable(rule_of(config), points, known)
    if rule.name == Doubted.name and doubts is not None and doubts.share > MAX_SHARE:
        progress.warn(
            "the features say too little about the classes: by them, more than half of the labels "
            "look wrong, so none is doubted; use another network (--backbone), or a clean set"
        )
    chosen = rule.choose(valued)
    counts = np.bincount(points.train.y, minlength=num_classes)
    by_others = rule.name == Doubted.name or known.clean is None
    neighbours = NEIGHBOURS if rule.name == Doubted.name else config.value.k
    guarded = safeguarded(
        chosen,
        points.train.y,
        points.classes,
        lacking=np.zeros(num_classes, bool) if by_others else lacking,
        too_small=counts <= neighbours if by_others else np.zeros(num_classes, bool),
        suggested=suggested,
    )
    choice = known.copies.resolve(guarded)
    flagged = _flagged_references(chosen, valued, points, config, known, exact=exact)
    if judged is None or flagged is None:
        return Decided(choice=choice, planted=None, planted_by_class=())
    labels = known.evidence.labels
    return Decided(
        choice=choice,
        planted=detection(flagged, labels, judged.weights),
        planted_by_class=class_detections(flagged, labels, judged.weights),
    )


def _usable(rule: Rule, points: FeatureSet, known: Known) -> Rule:
    """The rule, or what is left of it with too few clean images."""
    if rule.name not in (Validated.name, Wrong.name) or known.by_clean:
        return rule
    fallback: Rule = Zero() if known.doubts is None else Doubted()
    instead = f"using the rule {fallback.name} instead of {rule.name}"
    if known.clean_errors is not None:
        progress.warn(f"shapley_val cannot tell how many to drop; {instead}")
        return fallback
    few, classes = progress.counted(len(points.clean.y), "images"), len(np.unique(points.clean.y))
    progress.warn(
        f"shapley_val has {few} of {classes} {'class' if classes == 1 else 'classes'}, too few to "
        f"tell how many to drop (that takes at least {MIN_CLEAN} clean images of two classes); "
        f"{instead}"
    )
    return fallback


def _orderings(
    value: NDArray[np.float64],
    right: NDArray[np.float64] | None,
    suggested: NDArray[np.int64],
    unjudged: NDArray[np.bool_],
    config: Config,
    known: Known,
    *,
    exact: bool,
) -> dict[str, NDArray[np.float64]]:
    """What images may be ordered by.

    Args:
        value: (n,).
        right: (n,) the larger, the likelier is the label right; None if unknown.
        suggested: (n,) class numbers; only by value may an image be dropped whose suggested label
            is the label that it has.
        unjudged: (n,) images that stay undecided whatever their scores.
        config: its section value is used.
        known: the self-valuation is used.
        exact: whether values are exact; those of `knn` have one unit with the self-valuation.
    """
    found = {"value": value}
    if known.own is not None and config.value.validation != "self":
        found["self"] = known.own.column.value[0]
        if exact and config.value.validation == "clean" and config.value.utility == "knn":
            found["both"] = known.both(value, found["self"], config)
    if right is not None:
        found["probability"] = right
    same = suggested == known.y
    return {
        name: np.where(unjudged | (same & (name != "value")), np.inf, score)
        for name, score in found.items()
    }


_Trial = tuple[NDArray[np.float64], NDArray[np.bool_]]  # (n,) scores, (m,) images to test on


def _trials(
    orderings: Mapping[str, NDArray[np.float64]],
    unjudged: NDArray[np.bool_],
    config: Config,
    known: Known,
    *,
    exact: bool,
) -> dict[str, list[_Trial]]:
    """By ordering, what to drop by and where to test it: scores never come from tested images."""
    by_fold = []
    for fold in known.folds:
        value = fold.value if exact else orderings["value"]
        if config.value.validation == "both" and known.own is not None:
            value = known.both(value, known.own.column.value[0], config)
        by_fold.append(
            _orderings(value, -fold.odds, fold.suggested, unjudged, config, known, exact=exact)
        )
    tests = [fold.test for fold in known.folds]
    everything = np.ones(known.num_clean, dtype=bool)
    return {
        name: [(score, everything)]
        if all(np.array_equal(others[name], score) for others in by_fold)
        else [(others[name], test) for others, test in zip(by_fold, tests, strict=True)]
        for name, score in orderings.items()
    }


def _losses(
    trials: Mapping[str, Sequence[_Trial]],
    points: FeatureSet,
    config: Config,
    shares: Sequence[float],
) -> dict[str, list[NDArray[np.float64] | None]]:
    """By ordering, the losses (m,) of every share; keeping all is tried once.

    Where classes weigh alike they do so in the probe, and the losses are weighted so that their
    mean is that of the classes. None for a share that would empty a class, or that there are too
    few images to drop for.
    """
    balanced = config.value.class_weights == "balanced"
    train, clean = principal_features(points.train.x, points.clean.x)
    data = tasks.ProbeData(
        train=(train, points.train.y),
        clean=(clean, points.clean.y),
        val=(clean, points.clean.y),
        num_classes=len(points.classes),
    )
    jobs = {
        (name, share, part): tasks.ShareJob(score, share, config.value.per_class, balanced, test)
        for name, parts in trials.items()
        for share in shares
        if (share > 0 or name == "value") and share <= _most(parts)
        for part, (score, test) in enumerate(parts)
    }
    step = Step(
        name="choosing how many to drop",
        unit="trials",
        task_names=[f"drop {100 * share:g} % by {name}, {part}" for name, share, part in jobs],
        run=points.run,
    )
    function = partial(tasks.score_share, data=data)
    results = run_tasks(function, list(jobs.values()), step, config.resources)
    found = dict(zip(jobs, results, strict=True))

    counts = np.bincount(points.clean.y)
    weights = len(clean) / np.count_nonzero(counts) / counts[points.clean.y] if balanced else 1.0

    def joined(name: str, share: float) -> NDArray[np.float64] | None:
        if share > _most(trials[name]):
            return None
        losses = np.empty(len(clean))
        for part, (_, test) in enumerate(trials[name]):
            part_losses = found[name, share, part]
            if part_losses is None:
                return None
            losses[test] = part_losses
        return losses * weights

    return {
        name: [joined(name if share > 0 else "value", share) for share in shares] for name in trials
    }


def _most(parts: Sequence[_Trial]) -> float:
    """The largest share that may be dropped."""
    return min(float(np.isfinite(score).mean()) for score, _ in parts)


def _flagged_references(
    chosen: Choice,
    valued: Valued,
    points: FeatureSet,
    config: Config,
    known: Known,
    *,
    exact: bool,
) -> NDArray[np.bool_] | None:
    """(r, C) whether each reference image would be dropped with each label.

    None where the scores of reference images are not known: they have no sampled values.
    """
    if not known.by_clean or known.judged is None:
        return None
    by = chosen.ordering
    if chosen.rule == Doubted.name or (by in ("value", "both") and not exact):
        return None
    scores = known.reference_scores(by, config)
    if chosen.probability is not None:
        scores = -known.judged.reference_probability
    if scores is None:
        return None
    own, dropped = valued.scores(by), ~chosen.kept
    num_classes = len(points.classes)
    cuts = np.full(num_classes, -np.inf)
    if chosen.threshold is not None:
        cuts[:] = chosen.threshold
    elif chosen.probability is not None:
        cuts[:] = -chosen.probability
    elif chosen.per_class:
        np.maximum.at(cuts, points.train.y[dropped], own[dropped])
    elif dropped.any():
        cuts[:] = own[dropped].max()
    flagged = scores <= cuts
    if trusts_suggestions(chosen):
        suggested = known.evidence.probe.reference_predictions.argmax(axis=1)
        flagged &= suggested[:, np.newaxis] != np.arange(num_classes)
    return np.asarray(flagged & np.isin(np.arange(num_classes), points.clean.y))
