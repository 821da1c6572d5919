"""The sets of detection.py, and the cases made of them: a kind of noise and a seed."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from label_noise import Labels, flipped, look_alike, paired, structured, thinned
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from dcai_ray.cli import main as command_line
from dcai_ray.images.image_set import read_image_set
from dcai_ray.images.truth import read_truth
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.feature_import import read_feature_file
from dcai_ray.steps.feature_set import read_points
from dcai_ray.storage.location import Location

Features = NDArray[np.float32]
AS_GIVEN = "as given"
_DIGITS_TRAIN, _DIGITS_CLEAN = 1000, 300
_UNKNOWN = -1
_LEAST_TRAIN, _LEAST_CLEAN = 6, 2
_FLIPS_OF_RATIOS = 0.15
_RATIOS = (1, 5, 20)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Case:
    """Training images with given labels, clean images, and images to score probes on."""

    set: str
    noise: str
    seed: int
    classes: tuple[str, ...]
    """Their names, sorted; class number i is classes[i]."""
    x: Features  # (n, d)
    y: Labels  # (n,) as given
    truth: Labels | None  # (n,); C for a true class that is none of `classes`; None if unknown
    x_clean: Features  # (m, d)
    y_clean: Labels  # (m,)
    x_val: Features  # (v, d)
    y_val: Labels  # (v,)

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """(n,) whether a label is wrong; None if that is unknown."""
        return None if self.truth is None else self.truth != self.y

    @property
    def rare(self) -> NDArray[np.bool_] | None:
        """(n,) whether the given class is one of the thinned ones; None if there are none."""
        return self.y % 2 == 1 if self.noise.startswith(_ratio_names()) else None


@dataclass(frozen=True, slots=True)
class Source:
    """A set with its labels as given, for any seed."""

    name: str
    draw: Callable[[int], Case]
    kinds: tuple[str, ...]
    """The kinds of noise that it can have."""


def folder_source(name: str, data: str, work: Path, backbone: str, size_px: int) -> Source:
    """A folder in the product's layout; a seed above 0 redraws which clean images are val."""
    run = work / name
    flags = ("--backbone", backbone, "--size-px", str(size_px))
    if commanded("extract", "--data", data, "--run", str(run), *flags):
        raise SystemExit(f"{data}: no features")
    directory = RunDirectory(Location(str(run)))
    points, images = read_points(directory, with_val=True), read_image_set(directory)
    known = None if images is None else read_truth(images)
    truth, y = None, points.train.y
    if known is not None:
        number = {label: i for i, label in enumerate(points.classes)} | {"": _UNKNOWN}
        truth = np.array([number.get(label, len(points.classes)) for label in known.true_labels])
    case = Case(
        set=name,
        noise=AS_GIVEN,
        seed=0,
        classes=points.classes,
        x=points.train.x,
        y=y,
        truth=truth,
        x_clean=points.clean.x,
        y_clean=points.clean.y,
        x_val=points.val.x,
        y_val=points.val.y,
    )
    if truth is not None:
        case = _restricted(case, truth != _UNKNOWN)
    kinds = (AS_GIVEN, *MADE) if truth is not None else (AS_GIVEN,)
    return Source(name, partial(_redrawn, case), kinds)


def study_source(folder: str) -> Source:
    """The published study's features; which of its labels are wrong is unknown."""
    splits = {
        split: read_feature_file(Location(folder) / f"feature_dump_{split}.pkl")[1:3]
        for split in ("train", "shapley_val", "val")
    }
    classes = tuple(sorted(set(splits["train"][0])))
    (x, y), (x_clean, y_clean), (x_val, y_val) = (
        (x, np.searchsorted(classes, labels)) for labels, x in splits.values()
    )
    case = Case(
        set="study",
        noise=AS_GIVEN,
        seed=0,
        classes=classes,
        x=x,
        y=y,
        truth=None,
        x_clean=x_clean,
        y_clean=y_clean,
        x_val=x_val,
        y_val=y_val,
    )
    return Source("study", partial(_redrawn, case), (AS_GIVEN,))


def digits_source() -> Source:
    """The digits of scikit-learn, pixels as features; each seed draws the splits."""

    def draw(seed: int) -> Case:
        x, y = load_digits(return_X_y=True)
        order = np.random.default_rng([seed, 1]).permutation(len(y))
        train, clean, val = np.split(order, [_DIGITS_TRAIN, _DIGITS_TRAIN + _DIGITS_CLEAN])
        return Case(
            set="digits",
            noise=AS_GIVEN,
            seed=seed,
            classes=tuple(str(c) for c in range(10)),
            x=x[train].astype(np.float32),
            y=y[train].astype(np.int64),
            truth=y[train].astype(np.int64),
            x_clean=x[clean].astype(np.float32),
            y_clean=y[clean].astype(np.int64),
            x_val=x[val].astype(np.float32),
            y_val=y[val].astype(np.int64),
        )

    return Source("digits", draw, tuple(MADE))


def cases(source: Source, kinds: Sequence[str], seeds: int) -> Iterator[Case]:
    """The cases of a set: each kind of noise that it can have, with each seed."""
    for kind in (kind for kind in source.kinds if kind in kinds):
        for seed in range(seeds):
            case = source.draw(seed)
            yield case if kind == AS_GIVEN else MADE[kind](_true(case, kind))


def commanded(*arguments: str) -> int:
    """Run a command of the product in this process; its exit code. stdout is left to the tables."""
    with redirect_stdout(sys.stderr):
        return command_line([*arguments, "--quiet"])


def _true(case: Case, kind: str) -> Case:
    """The case with true labels, where their class is one of the set's."""
    assert case.truth is not None
    case = _restricted(case, case.truth < len(case.classes))
    assert case.truth is not None
    return replace(case, noise=kind, y=case.truth)


def _rng(case: Case) -> np.random.Generator:
    return np.random.default_rng([case.seed, *case.noise.encode()])


def _relabelled(make: Callable[..., Labels], case: Case, **options: float) -> Case:
    return replace(case, y=make(case.y, rng=_rng(case), **options))


def _relabelled_by_features(make: Callable[..., Labels], case: Case, **options: float) -> Case:
    return replace(case, y=make(case.x, case.y, rng=_rng(case), **options))


def _imbalanced(case: Case, *, ratio: float, thin_clean: bool, flips: float) -> Case:
    """Every other class thinned; then that share of the labels flipped."""
    # The same images stay whatever the clean set and the flips.
    rng = np.random.default_rng([case.seed, int(ratio)])
    case = _restricted(case, thinned(case.y, ratio, _LEAST_TRAIN, rng))
    left = thinned(case.y_clean, ratio if thin_clean else 1, _LEAST_CLEAN, rng)
    case = replace(case, x_clean=case.x_clean[left], y_clean=case.y_clean[left])
    return replace(case, y=flipped(case.y, flips, rng))


def _ratio_names() -> tuple[str, ...]:
    return tuple(f"{ratio}:1" for ratio in _RATIOS)


def _ratios() -> dict[str, Callable[[Case], Case]]:
    made: dict[str, Callable[[Case], Case]] = {}
    for flips, labels in ((_FLIPS_OF_RATIOS, ""), (0.0, ", all right")):
        for ratio, name in zip(_RATIOS, _ratio_names(), strict=True):
            for thin, clean in ((False, ""), (True, ", clean too")):
                if ratio > 1 or not thin:
                    made[f"{name}{clean}{labels}"] = partial(
                        _imbalanced, ratio=ratio, thin_clean=thin, flips=flips
                    )
    return made


RATIOS = _ratios()
"""Class ratios, with 15 % flips or all labels right; the clean set balanced or thinned too."""
NOISE: dict[str, Callable[[Case], Case]] = {
    **{
        f"flips {share:.0%}": partial(_relabelled, flipped, share=share)
        for share in (0.1, 0.2, 0.3, 0.4)
    },
    "pair 30%": partial(_relabelled, paired, share=0.3),
    "look-alike 20%": partial(_relabelled_by_features, look_alike, share=0.2),
    "structured": partial(_relabelled_by_features, structured),
}
"""Noise on the true labels, with all images."""
MADE = NOISE | RATIOS


def _restricted(case: Case, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Case:
    truth = None if case.truth is None else case.truth[chosen]
    return replace(case, x=case.x[chosen], y=case.y[chosen], truth=truth)


def _redrawn(case: Case, seed: int) -> Case:
    """Seed 0: as given. Others redraw, class by class, which clean images are shapley_val."""
    if seed == 0:
        return case
    rng = np.random.default_rng([seed, 0])
    x = np.concatenate([case.x_clean, case.x_val])
    y = np.concatenate([case.y_clean, case.y_val])
    is_clean = np.zeros(len(y), dtype=bool)
    for c in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == c))
        is_clean[own[: int((case.y_clean == c).sum())]] = True
    return replace(
        case,
        seed=seed,
        x_clean=x[is_clean],
        y_clean=y[is_clean],
        x_val=x[~is_clean],
        y_val=y[~is_clean],
    )
