"""The sentences of the report, made from the findings; bad news is as plain as good news.

A gap between two arms counts as noise if it is within the larger of the spread over seeds and one
standard error of an accuracy on val, sqrt(p (1 - p) / m).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dcai_ray.cleaning import rules
from dcai_ray.cleaning.arms import ARMS
from dcai_ray.cleaning.evaluation import Row
from dcai_ray.images.shown import FINDINGS, NEAR_ACROSS, found_in
from dcai_ray.report import trust
from dcai_ray.report.findings import NOT_CLEANING, Findings, label_doubts, mistrust
from dcai_ray.report.sampling_summary import Check

Outcome = Literal["better", "unsettled", "not better"]

BASELINES = {
    "all": "training on all images",
    "random": "dropping as many at random",
    "clean": "training on the clean validation set alone",
}
"""What cleaning must beat, cheapest first."""

_OTHERS = {
    "relabelled": "Relabelled instead of dropped where another label is likely",
    "reviewed": "With what people decided",
    "kept+clean": "Kept and clean images together",
    "truth": "Perfect cleaning (only the wrong labels dropped)",
}
_CONSEQUENCES = {
    "duplicates_under_two_labels": "so one of the labels is wrong, or they show nothing",
    "duplicates_across_splits": "which inflates the scores",
    "blanks": "so nothing can be learnt from them",
}
"""Why it matters what is found when images are read (`FINDINGS`)."""
_NEAR_COPIES = (
    ("values", "shapley_val", "so that labels are judged by copies of the image"),
    ("probes", "val", "which inflates the scores"),
)
"""Steps that compare features, the split compared with train, and why it matters."""
_MEANING = {
    "all": "On this evidence, do not clean for these models.",
    "random": "For these models the values are no better than random.",
    "clean": "The clean images carry the gain: train on shapley_val, or on both together.",
}
_NO_TRAINING = (
    "No model was trained on the kept images, so it is not known yet whether dropping helps. To "
    "find out, provide a val split with correct labels and use dcai-ray run (or dcai-ray retrain)."
)
_SELF = (
    "The values are a self-valuation (validation self): each image is judged by its neighbours in "
    "the training set. This finds labels that are wrong at random. It fails where wrong labels "
    "follow a pattern (one class often mistaken for another, one source labelled badly): there "
    "the neighbours are wrong as well, and right labels look harmful. A few hundred checked "
    "images as shapley_val avoid this."
)


@dataclass(frozen=True, slots=True)
class Against:
    """The kept images compared with one baseline."""

    arm: str
    accuracy: float
    gap: float
    """Accuracy of `kept` minus the baseline's."""
    noise: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """What cleaning gained for one model."""

    model: str
    kept: float
    """Accuracy on the kept images."""
    against: tuple[Against, ...]
    others: Mapping[str, float]
    """Accuracy of the arms that are not baselines."""

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        words: dict[Outcome, str] = {
            "better": "better than",
            "unsettled": "not clearly better than",
            "not better": "NOT better than",
        }
        parts = []
        for outcome, phrase in words.items():
            names = [
                f"{BASELINES[a.arm]} ({a.accuracy:.3f}, {signed(a.gap)})"
                for a in self.against
                if a.outcome == outcome
            ]
            if names:
                parts.append(f"{phrase} {_listed(names)}")
        text = (
            f"accuracy {self.kept:.3f} on the kept images: "
            f"{'; '.join(parts) or 'no baseline was trained'}"
        )
        rest = [f"{_OTHERS[arm]}: {accuracy:.3f}." for arm, accuracy in self.others.items()]
        return " ".join([f"{text}.", *rest])


def signed(difference: float, digits: int = 3) -> str:
    """A difference with its sign, a true minus; a dash for NaN."""
    if not math.isfinite(difference):
        return "–"
    rounded = round(difference, digits) + 0.0  # avoids a minus before a zero
    return f"{rounded:+.{digits}f}".replace("-", "−")


def verdicts(rows: Sequence[Row], num_val: int) -> list[Verdict]:
    """What cleaning gained for each model; models without the arm `kept` are omitted.

    Args:
        rows: the before/after table.
        num_val: number of images in val; 0 if unknown.
    """
    found = []
    for model in dict.fromkeys(row.model for row in rows):
        arms = {row.arm: row for row in rows if row.model == model}
        if "kept" not in arms:
            continue
        kept = arms["kept"]
        against = [_against(kept, arms[arm], num_val) for arm in BASELINES if arm in arms]
        others = {arm: row.accuracy for arm, row in arms.items() if arm in _OTHERS}
        found.append(Verdict(model, kept.accuracy, tuple(against), others))
    return found


def _against(kept: Row, baseline: Row, num_val: int) -> Against:
    gap = kept.accuracy - baseline.accuracy
    noise = [spread for spread in (kept.spread, baseline.spread) if math.isfinite(spread)]
    if num_val:
        noise.append(math.sqrt(baseline.accuracy * (1 - baseline.accuracy) / num_val))
    within = max(noise, default=0.0)
    outcome: Outcome = "better" if gap > within else "unsettled"
    if gap <= 1e-9:  # equal accuracies may differ in the last bit
        outcome = "not better"
    return Against(baseline.arm, baseline.accuracy, gap, within, outcome)


def warnings(findings: Findings, found: Sequence[Verdict]) -> list[str]:
    """Reasons not to trust the result, most important first; then what was not tried."""
    lines = concerns(findings, found)
    if findings.settings.get("value", {}).get("validation") == "self":
        lines.append(_SELF)
    if findings.values is not None and not found:
        lines.append(_NO_TRAINING)
    return lines


def concerns(findings: Findings, found: Sequence[Verdict]) -> list[str]:
    """What speaks against this very result, most important first."""
    lines = [_sentence(text) for text in label_doubts(findings.record)]
    lines += _picture_warnings(findings)
    if findings.values is not None and findings.num_dropped == 0:
        what = "flags" if findings.dropped == "flagged" else "drops"
        lines.append(f"The rule {what} nothing, so the kept images are all images.")
    else:
        lines += _baseline_warnings(found)
    return [*lines, *(_sentence(text) for text in mistrust(findings))]


def _picture_warnings(findings: Findings) -> list[str]:
    """What is wrong with the pictures themselves, with the first of each kind."""
    steps = findings.record.get("steps", {})
    read = steps.get("images", {})
    lines = []
    for key, consequence in _CONSEQUENCES.items():
        groups = read.get(key, [])
        if groups:
            line = f"{found_in(len(groups), FINDINGS[key])}, {consequence}. The first: {groups[0]}"
            lines.append(line + ("; the others are listed at the end." if groups[1:] else "."))
    for step, split, consequence in _NEAR_COPIES:
        near = steps.get(step, {}).get("near_copies_across_splits", [])
        if near:
            what = found_in(len(near), NEAR_ACROSS).format(split=split)
            line = f"{what}, {consequence}. The first: {near[0]}"
            lines.append(line + ("; the others are listed in run.json." if near[1:] else "."))
    return lines


def _baseline_warnings(found: Sequence[Verdict]) -> list[str]:
    lines = []
    for arm, name in BASELINES.items():
        by_outcome: dict[Outcome, list[str]] = {"not better": [], "unsettled": []}
        for verdict in found:
            for a in verdict.against:
                if a.arm == arm and a.outcome != "better":
                    by_outcome[a.outcome].append(f"{verdict.model} {signed(a.gap)}")
        if by_outcome["not better"]:
            models = _listed(by_outcome["not better"])
            lines.append(f"Cleaning does not beat {name} ({models}). {_MEANING[arm]}")
        if by_outcome["unsettled"]:
            models = _listed(by_outcome["unsettled"])
            lines.append(f"The gain over {name} is within the noise ({models}).")
    return lines


def lead(findings: Findings, found: Sequence[Verdict]) -> list[str]:
    """The summary: how much was dropped by which rule, how accurately, and what that gained."""
    if findings.values is None:
        return _without_values(findings)
    lines = [_how_many(findings)]
    undecided = trust.undecided(findings.values)
    if undecided:
        lines.append(f"{undecided}.")
    lines.append(_labels_found(findings))
    against = [a for verdict in found for a in verdict.against]
    if against and all(a.outcome == "better" for a in against):
        lines.append("Training on the kept images beats every baseline that was tried.")
    return [line for line in lines if line]


def _how_many(findings: Findings) -> str:
    """How much was dropped by which rule."""
    assert findings.values is not None
    n, dropped = len(findings.values), findings.num_dropped
    if findings.keeping_is_better:
        return (
            f"None of the {n:,} training {findings.unit} is dropped: {NOT_CLEANING}. There, a "
            "quick classifier does not clearly do better without any share of the lowest (rule "
            "validated)."
        )
    share = percent(dropped / n)
    text = f"Of {n:,} training {findings.unit}, {dropped:,} are {findings.dropped} ({share})"
    if findings.choice is None:
        return f"{text}."
    choice = findings.choice
    text = f"{text}: {rules.explain(choice)}"
    if choice.share and not choice.per_class and dropped < round(choice.share * n):
        text += (
            " They are fewer, since images that are undecided, or whose suggested label is their "
            "own, are kept."
        )
    return text


def _labels_found(findings: Findings) -> str:
    """How many of the dropped images are mislabelled, as far as that is known."""
    found, truth = findings.detection, findings.truth
    if found is not None and findings.ranking is not None:
        name = findings.ranking.name
        score = "Low values separate" if name == "value" else f"{_capital(name)} separates"
        return (
            f"{found.wrong:,} labels are known to be wrong; {found.dropped_wrong:,} of them are "
            f"among the {findings.dropped} (precision {percent(found.precision)}, recall "
            f"{percent(found.recall)}). {score} wrong labels from right ones with an AUC of "
            f"{found.auc:.3f} (chance is 0.5)."
        )
    if truth is not None and truth.known.any():
        what = "All" if truth.wrong.any() else "None"
        return f"{what} of the {truth.known.sum():,} labels whose truth is known are wrong."
    if not findings.num_dropped:
        return ""
    expected = trust.expected_wrong(findings.values) if findings.values is not None else None
    if expected is not None:
        return (
            f"By their estimated probabilities, about {expected:,.0f} of the {findings.dropped} "
            "are mislabelled (no truth.csv lists true labels)."
        )
    return (
        f"It is not known how many of the {findings.dropped} are mislabelled (no truth.csv "
        "lists them); look at the list below before you trust the number."
    )


def false_discovery(bound: float) -> str:
    """What the e-values say about the dropped images, in one sentence."""
    if bound >= 1:
        return (
            "No guarantee can be given for the dropped images as a whole, since some of them are "
            "too close to zero (the rule certain drops only what is certain)."
        )
    return (
        f"At most {percent(bound)} of the dropped images are expected to have a value that is not "
        "below the threshold (false-discovery rate from e-values, anytime-valid)."
    )


def cross_check(check: Check, num_dropped: int) -> str:
    """How a second utility values the dropped images."""
    correlation = "no rank correlation (one of the two is constant)"
    if math.isfinite(check.rank_correlation):
        correlation = f"a rank correlation of {check.rank_correlation:.2f}"
    text = (
        f"The utility {check.sampled.record['utility']} was sampled as a cross-check. Its values "
        f"have {correlation} with those above; among the {num_dropped:,} dropped images, they find "
        f"{check.below:,} harmful with certainty and {check.above:,} useful."
    )
    if check.auc is not None:
        text += (
            f" Its low values separate wrong labels from right ones with an AUC of {check.auc:.3f}."
        )
    return text


def percent(share: float) -> str:
    """A share in whole per cent, with a non-breaking space before the sign; a dash for NaN."""
    return f"{100 * share:.0f}\u00a0%" if math.isfinite(share) else "–"


def chance(probability: float) -> str:
    """A probability in per cent, which is never rounded to certainty; a dash for NaN."""
    if probability >= 0.995:
        return ">99\u00a0%"
    if probability < 0.005:
        return "<1\u00a0%"
    return percent(probability)


def number(value: float, digits: int = 2) -> str:
    """A small number with a few significant digits and a true minus; a dash for NaN."""
    return f"{value:.{digits}g}".replace("-", "−") if math.isfinite(value) else "–"


def _without_values(findings: Findings) -> list[str]:
    lines = [
        f"{row.model}, trained on {ARMS[row.arm]}: accuracy {row.accuracy:.3f} on val."
        for row in findings.table
    ]
    return [*lines, "No image has a value yet; use dcai-ray run, or its steps extract and value."]


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _sentence(text: str) -> str:
    return _capital(text) + ("" if text.endswith("?") else ".")
