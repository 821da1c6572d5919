"""How far to trust a list of suspects: what planted errors say, and when they mislead.

Planted errors are clean images with a wrong label (`cleaning.planted`). They say nothing where the
clean images are unlike the training images, which a classifier would then tell apart: its
separation is the area under its ROC curve.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.doubts import MAX_SHARE
from dcai_ray.cleaning.planted import MIN_CLEAN
from dcai_ray.cleaning.recall import Interval

_SEPARATED_ABOVE = 0.6
_STANDARD_ERRORS = 3.3
_UNKNOWN = Interval(np.nan, np.nan, np.nan)
_SAMPLING = "their intervals contain the cut-off"

PLANTED = (
    "Planted errors are clean images with a wrong label, half of them drawn at random and half as "
    "a quick classifier confuses the classes. Real errors may be easier or harder to find; where "
    "they look more natural than planted ones, the estimated share tends to be too low."
)
"""What planted errors are, and what they do not say."""


def differ(separation: float, num_train: int, num_clean: int) -> bool:
    """Whether shapley_val and train differ, both noticeably and beyond chance.

    Noticeably: an area above .6; of two normal distributions, the means are then more than a third
    of a standard deviation apart. Beyond chance: more than 3.3 standard errors above .5, which of
    equal distributions happens once in 2,000 times. An area below .5 is no difference.

    Args:
        separation: area under the ROC curve of telling shapley_val from train, as the mean over
            classes; its standard error is taken to be that without classes, which is smaller.
        num_train: n.
        num_clean: m.
    Source: Mann & Whitney 1947, Ann. Math. Stat. 18(1), for the standard error of equal
        distributions, sqrt((n + m + 1) / (12 n m)).
    """
    n, m = num_train, num_clean
    if not n or not m:
        return False
    stderr = np.sqrt((n + m + 1) / (12 * n * m))
    return bool(separation > max(_SEPARATED_ABOVE, 0.5 + _STANDARD_ERRORS * stderr))


@dataclass(frozen=True, slots=True)
class Tested:
    """What planted errors say about the labels and the list; NaN for what they cannot say."""

    share: Interval
    """Estimated share of wrong labels among the training images."""
    recall: Interval
    """Share of the planted errors that the list catches."""
    false_alarms: Interval
    """Share of the right labels that it flags."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """What is known about a list of suspects without the truth about any of them."""

    tested: Tested | None
    """None where nothing could be planted."""
    classes: Mapping[str, Tested]
    """The same by given label."""
    num_clean: int
    """Clean images, used or not."""
    clean_errors: float | None
    """Share of the clean labels that look wrong, where it is too high to learn from them."""
    suspicious: float | None
    """Share of the labels that look like errors planted in the training images themselves; None
    where clean images tell more."""
    separation: float | None
    """How well shapley_val is told from train; None without a clean set."""
    differ: bool
    """Whether they differ so much that planted errors mislead."""


def read_trust(record: Mapping[str, Any], num_train: int) -> Trust | None:
    """What run.json records of it; None if no rule has decided yet.

    Args:
        record: the content of run.json.
        num_train: n.
    """
    steps = record.get("steps", {})
    if "values" not in steps:
        return None
    noted = steps["values"]
    planted = noted.get("planted")
    images = steps.get("images", {}).get("images", {})
    num_clean = noted.get("clean", images.get("shapley_val", 0))
    separation = noted.get("separation")
    return Trust(
        tested=None if planted is None else _tested(planted),
        classes={name: _tested(c) for name, c in (planted or {}).get("classes", {}).items()},
        num_clean=num_clean,
        clean_errors=noted.get("clean_errors"),
        suspicious=noted.get("suspicious"),
        separation=separation,
        differ=separation is not None and differ(separation, num_train, num_clean),
    )


def _tested(entries: Mapping[str, float | None]) -> Tested:
    def interval(name: str) -> Interval:
        found = (entries.get(f"{name}{end}") for end in ("", "_low", "_high"))
        return Interval(*(np.nan if entry is None else float(entry) for entry in found))

    return Tested(interval("share"), interval("recall"), interval("false_alarms"))


def sentences(trust: Trust, choice: Choice | None, num_listed: int, settings: Any) -> list[str]:
    """What the report says about it, in paragraphs.

    Args:
        trust: what is known.
        choice: the choice of the rule.
        num_listed: number of images on the list.
        settings: the settings of the run's section value.
    """
    tested = trust.tested
    if tested is None:
        return _untested(trust, choice, settings)
    share = f"About {per_cent(tested.share)} of the training labels are wrong"
    if not num_listed:
        text = "The list is empty: it catches no wrong label and flags no right one."
    elif np.isnan(tested.recall.value):
        text = (
            "Planted errors cannot test this list, as planted images have no values like those "
            "that it is made from."
        )
    else:
        text = (
            f"Of 100 planted errors, this list catches {_of_100(tested.recall)}; of 100 right "
            f"labels, it flags {_of_100(tested.false_alarms)}."
        )
    found = [f"{text} {share}. Intervals are at 95\u00a0% confidence.", PLANTED]
    if trust.differ:
        found.append("As shapley_val and train differ (see the warning above), this may not hold.")
    return found


def _untested(trust: Trust, choice: Choice | None, settings: Any) -> list[str]:
    by_itself = settings.get("validation") == "self"
    if by_itself or (choice is not None and choice.rule == "doubted"):
        basis = "evidence of the training images about each other only"
    else:
        basis = f"values by {_images(trust.num_clean)} of shapley_val"
    remedy = (
        f"A shapley_val of at least {MIN_CLEAN} images with checked labels, some of each class,"
    )
    if trust.clean_errors is not None:
        remedy = "A shapley_val whose labels have been checked"
    elif by_itself and trust.num_clean >= MIN_CLEAN:
        remedy = "The setting value.validation clean"
    return [
        "It is not known how many of the wrong labels this list catches. That takes errors "
        f"planted in clean images, and {why_untested(trust, settings)}. The list comes from "
        f"{basis}. {_suspicious(trust)}".rstrip(),
        f"{remedy} would tell how many it catches, how many right labels it flags, and how many "
        "labels are wrong; a few hundred images tell it to within about 5\u00a0%.",
    ]


def _suspicious(trust: Trust) -> str:
    """How many labels look wrong, in a sentence; empty if it is not known."""
    if trust.suspicious is None:
        return ""
    if trust.suspicious > MAX_SHARE:
        return (
            "The features say too little about the classes: by them, more than half of the labels "
            "look wrong, so none is doubted. Features of another network may say more."
        )
    share = f"{100 * trust.suspicious:.0f}\u00a0%"
    return (
        f"About {share} of the labels look like errors planted in the training images themselves; "
        "errors that are harder to see come on top."
    )


def why_untested(trust: Trust, settings: Any) -> str:
    """Why no errors could be planted in clean images, as a sentence without its full stop."""
    if not trust.num_clean:
        return "there is no clean set (shapley_val)"
    if settings.get("validation") == "self":
        return "shapley_val was not used (value.validation self)"
    if trust.num_clean < MIN_CLEAN:
        return f"shapley_val has only {trust.num_clean} of the {MIN_CLEAN} images needed"
    if trust.clean_errors is not None:
        share = f"{100 * trust.clean_errors:.0f}\u00a0%"
        return f"about {share} of the labels of shapley_val look wrong themselves"
    return "shapley_val has images of one class only"


def line(trust: Trust, num_listed: int, settings: Any) -> str:
    """The same in one line for the terminal."""
    tested = trust.tested
    if tested is None:
        return f"how far to trust this is unknown: {why_untested(trust, settings)}"
    share = f"about {per_cent(tested.share)} of the labels are wrong".replace("\u00a0", " ")
    if not num_listed or np.isnan(tested.recall.value):
        return f"planted errors: {share}"
    text = (
        f"planted errors: catches {per_cent(tested.recall)}, flags {per_cent(tested.false_alarms)} "
        "of right labels"
    )
    return f"{text}; {share}".replace("\u00a0", " ")


def difference(trust: Trust) -> str:
    """What a difference of shapley_val and train means, as a sentence without its full stop."""
    return (
        "the images of shapley_val and train differ: a quick classifier tells them apart (AUC "
        f"{trust.separation:.2f}, chance is 0.5), so values, planted errors and the estimated "
        "share of wrong labels may mislead"
    )


def undecided(values: pa.Table) -> str:
    """How many images are undecided, and the most common reason; empty if none is.

    Args:
        values: the table of values.
    """
    decisions = values["decision"].to_pylist()
    reasons = [""] * len(decisions)
    if "reason" in values.column_names:
        reasons = values["reason"].to_pylist()
    count = Counter(
        reason or _SAMPLING
        for reason, decision in zip(reasons, decisions, strict=True)
        if decision == "undecided"
    )
    if not count:
        return ""
    total = count.total()
    (reason, often), *others = count.most_common()
    text = f"{_images(total)} {'is' if total == 1 else 'are'} undecided and kept"
    return f"{text}; most often ({often:,}): {reason}" if others else f"{text}: {reason}"


def expected_wrong(values: pa.Table) -> float | None:
    """The expected number of wrong labels among the dropped images; None if it is not known.

    Args:
        values: the table of values.
    """
    if "wrong_probability" not in values.column_names:
        return None
    dropped = np.array(values["decision"].to_pylist()) == "drop"
    found = values["wrong_probability"].to_numpy()[dropped]
    return None if np.isnan(found).any() else float(found.sum())


def class_rows(trust: Trust, values: pa.Table) -> list[tuple[str, int, Tested]]:
    """Given label, images, and what planted errors say; largest share of wrong labels first.

    Nothing is said about a class that shapley_val lacks.

    Args:
        trust: what is known.
        values: the table of values.
    """
    labels = values["label"].to_pylist()
    count, judged = Counter(labels), set(labels)
    if "wrong_probability" in values.column_names:
        known = values["wrong_probability"].is_valid().to_pylist()
        judged = {label for label, is_known in zip(labels, known, strict=True) if is_known}
    unknown = Tested(_UNKNOWN, _UNKNOWN, _UNKNOWN)
    rows = [
        (label, count[label], tested if label in judged else unknown)
        for label, tested in trust.classes.items()
        if count[label]
    ]
    return sorted(rows, key=lambda row: (-np.nan_to_num(row[2].share.value), row[0]))


def class_pairs(values: pa.Table, at_most: int) -> list[tuple[str, str, int, float]]:
    """Given label, suggested label, images, and expected number of wrong labels among these.

    The expected number is the sum of P(wrong); the worst pairs come first. Empty if no probability
    is known.

    Args:
        values: the table of values.
        at_most: number of pairs.
    """
    if "wrong_probability" not in values.column_names:
        return []
    columns = values.select(["label", "suggested_label", "wrong_probability"]).to_pydict()
    images: Counter[tuple[str, str]] = Counter()
    wrong: dict[tuple[str, str], float] = {}
    for label, suggested, probability in zip(*columns.values(), strict=True):
        if probability is not None and label != suggested:
            images[label, suggested] += 1
            wrong[label, suggested] = wrong.get((label, suggested), 0.0) + probability
    worst = sorted(wrong, key=lambda pair: (-wrong[pair], pair))[:at_most]
    return [(*pair, images[pair], wrong[pair]) for pair in worst]


def per_cent(interval: Interval, unit: str = "\u00a0%") -> str:
    """A share with its interval, "81 % (76 to 85)"; a dash for NaN."""
    if np.isnan(interval.value):
        return "–"
    return f"{100 * interval.value:.0f}{unit} {bounds(interval)}".rstrip()


def bounds(interval: Interval) -> str:
    """An interval in per cent, "(76 to 85)"; empty for NaN."""
    if np.isnan(interval.low) or np.isnan(interval.high):
        return ""
    return f"({100 * interval.low:.0f} to {100 * interval.high:.0f})"


def _of_100(interval: Interval) -> str:
    return per_cent(interval, unit="")


def _images(count: int) -> str:
    return f"{count:,} {'image' if count == 1 else 'images'}"
