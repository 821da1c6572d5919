"""The results of a run so far, read from its folder, for the report and for the summary lines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dcai_ray.cleaning import rules
from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.evaluation import Detection, Row, comparison, detection
from dcai_ray.cleaning.planted import MIN_CLEAN
from dcai_ray.cleaning.ranking import Ranking, ranking
from dcai_ray.cleaning.rules import Validated
from dcai_ray.errors import UserError
from dcai_ray.images.image_set import read_image_set
from dcai_ray.images.truth import Truth, read_truth
from dcai_ray.report import trust
from dcai_ray.report.sampling_summary import Check, Sampled, read_check, read_sampled
from dcai_ray.report.trust import Trust, read_trust
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location
from dcai_ray.storage.values import kept_digest, kept_mask
from dcai_ray.valuation.moments import rank_correlation


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of a run so far; those that do not exist yet are None or empty."""

    run: RunDirectory
    settings: dict[str, Any]
    record: dict[str, Any]
    values: pa.Table | None
    choice: Choice | None
    """What the rule decided; None also if the values do not record how."""
    ranking: Ranking | None
    """The order in which a person should look at the images."""
    trust: Trust | None
    """What is known about the list of dropped images without any truth."""
    truth: Truth | None
    detection: Detection | None
    """How well the scores of the ranking find the wrong labels."""
    table: list[Row]
    """The before/after table of networks and probes."""
    removal: list[dict[str, Any]]
    """Rows of `schemas.REMOVAL`."""
    groups: list[dict[str, Any]]
    """Rows of `schemas.GROUP_VALUES`."""
    curves: list[dict[str, Any]]
    """Rows of both metrics.parquet."""
    agreement: float | None
    """Rank correlation of the values by the clean set with the self-valuation."""
    sampled: Sampled | None
    """How the values were sampled; None if they are exact."""
    check: Check | None
    """The cross-check: a second utility, sampled for comparison."""
    outdated: tuple[str, ...] = ()
    """Steps whose models were trained on what another rule kept; their scores are left out."""

    @property
    def unit(self) -> str:
        """What is valued, in the plural: images or examples."""
        return self.run.unit

    @property
    def num_dropped(self) -> int:
        """Training images that the rule drops."""
        assert self.values is not None
        return int((~kept_mask(self.values)).sum())

    @property
    def conflicts(self) -> list[str]:
        """(n,) the conflict of each training image with a copy, in words; empty for none."""
        assert self.values is not None
        if "conflict" not in self.values.column_names:
            return [""] * len(self.values)
        return [conflict or "" for conflict in self.values["conflict"].to_pylist()]

    @property
    def dropped(self) -> str:
        """The word for what the rule drops: an audit only flags."""
        by_itself = self.settings.get("value", {}).get("validation") == "self"
        return "flagged" if by_itself and "retrain" not in self.settings else "dropped"

    @property
    def keeping_is_better(self) -> bool:
        """Whether the rule tried what to drop, and found nothing that is known to help."""
        choice = self.choice
        return choice is not None and choice.rule == Validated.name and choice.share == 0


def read_findings(run: RunDirectory) -> Findings:
    """Read all results that exist.

    Raises:
        UserError: a table is damaged, or truth.csv does not fit.
    """
    settings = run.settings()
    values = parquet.read_table(run.values) if run.values.exists() else None
    record = run.record()
    ranked = ranking(values) if values is not None else None
    truth = _truth(run, values)
    outdated = _outdated(record, values)
    curves = [
        row
        for step in ("baseline", "cleaned")
        if step not in outdated and run.metrics(step).exists()
        for row in parquet.read_table(run.metrics(step)).to_pylist()
    ]
    return Findings(
        run=run,
        settings=settings,
        record=record,
        values=values,
        choice=_choice(run, values),
        ranking=ranked,
        trust=read_trust(record, len(values)) if values is not None else None,
        truth=truth,
        detection=_detection(values, ranked, truth),
        table=comparison(
            _network_scores(run, curves, values, truth)
            + ([] if "probes" in outdated else _probe_scores(run))
        ),
        removal=_rows(run.removal),
        groups=_rows(run.group_values),
        curves=curves,
        agreement=_agreement(values),
        sampled=read_sampled(run) if values is not None else None,
        check=read_check(run, values, truth),
        outdated=outdated,
    )


def _rows(table: Location) -> list[dict[str, Any]]:
    """The rows of a table that may not be there."""
    return parquet.read_table(table).to_pylist() if table.exists() else []


def summary(findings: Findings) -> list[str]:
    """The results in a few lines; warnings begin with that word."""
    lines = _dropping(findings) if findings.values is not None else []
    if findings.trust is not None:
        settings = findings.settings.get("value", {})
        lines.append(trust.line(findings.trust, findings.num_dropped, settings))
    doubts = label_doubts(findings.record)
    lines += [f"warning: {text}" for text in (*doubts, *mistrust(findings))]
    if findings.detection is not None and findings.ranking is not None:
        d = findings.detection
        lines.append(
            f"wrong labels: detection AUC {d.auc:.3f} (by {findings.ranking.name}); "
            f"{d.dropped_wrong} of the {d.dropped} {findings.dropped} are wrong "
            f"(precision {d.precision:.2f}, recall {d.recall:.2f})"
        )
    for model in dict.fromkeys(row.model for row in findings.table):
        arms = {row.arm: row.accuracy for row in findings.table if row.model == model}
        if "kept" in arms and len(lines) < _LINES:
            rest = ", ".join(f"{arm} {accuracy:.3f}" for arm, accuracy in arms.items())
            lines.append(f"accuracy, {model}: {rest}")
    return lines


def _dropping(findings: Findings) -> list[str]:
    """How many images are dropped, by which rule, and how many are undecided."""
    assert findings.values is not None
    n, dropped = len(findings.values), findings.num_dropped
    lines = [
        f"{dropped} of {n} training {findings.unit} {findings.dropped} ({100 * dropped / n:.0f} %)"
        + (f", rule {rules.describe(findings.choice)}" if findings.choice else "")
    ]
    lines += in_conflict(sum(map(bool, findings.conflicts)))
    if findings.keeping_is_better:
        lines.append(NOT_CLEANING)
    undecided = trust.undecided(findings.values)
    return [*lines, undecided] if undecided else lines


def mistrust(findings: Findings) -> list[str]:
    """Reasons not to trust the values, as sentences without their full stops."""
    lines = []
    if findings.outdated:
        lines.append(OUTDATED)
    if findings.trust is not None and findings.trust.differ:
        lines.append(trust.difference(findings.trust))
    if findings.sampled is not None and findings.sampled.imputed_share > 0:
        lines.append(biased(findings.sampled.imputed_share))
    too_few = findings.trust is not None and 0 < findings.trust.num_clean < MIN_CLEAN
    if findings.agreement is not None and findings.agreement < LOW_AGREEMENT and not too_few:
        lines.append(disagreement(findings.agreement))
    return lines


def label_doubts(record: dict[str, Any]) -> list[str]:
    """What is wrong with the labels of whole splits, as sentences without their full stops.

    Args:
        record: the content of run.json.
    """
    steps = record.get("steps", {})
    found = [steps.get(step, {}).get("label_doubts", ()) for step in ("values", "probes")]
    return list(dict.fromkeys(line for lines in found for line in lines))


def in_conflict(count: int) -> list[str]:
    """How many training images are in conflict with a copy; no line for none."""
    if not count:
        return []
    what = "1 training image has a copy" if count == 1 else f"{count} training images have a copy"
    return [f"{what} with another label (column conflict of values.parquet)"]


_LINES = 5  # of a summary, beyond which no accuracies are added; they are in the table as well
NOT_CLEANING = "as far as shapley_val can tell, not cleaning is the better choice"
"""What it means that the rule finds nothing to drop, as a sentence without its full stop."""
OUTDATED = (
    "the rule has changed since models were trained on what it kept, so their scores are left out; "
    "use dcai-ray retrain to train them again"
)
"""What it means that `cleaned/` was made with other decisions."""
LOW_AGREEMENT = 0.3
"""Rank correlation with the self-valuation below which the report warns."""


def disagreement(agreement: float) -> str:
    """What a low agreement with the self-valuation means, as a sentence without its full stop."""
    return (
        "the values by the clean set disagree with the self-valuation (rank correlation "
        f"{agreement:.2f}): the wrong labels may follow a pattern; trust the clean set"
    )


def biased(imputed_share: float) -> str:
    """What truncation does to the values, as a sentence without its full stop."""
    return (
        f"{100 * imputed_share:.0f} % of the marginals were not computed but set to zero "
        "(truncation): the values are biased, and the intervals do not account for it"
    )


def _choice(run: RunDirectory, values: pa.Table | None) -> Choice | None:
    """The choice that was written with the values.

    Raises:
        UserError: the choice is damaged, or its rule is unknown.
    """
    note = json.loads(parquet.read_note(values, "choice") or "{}") if values is not None else {}
    if values is None or not note:
        return None
    try:
        rules.rule_named(note.get("rule", ""))
        return Choice.restore(note, np.array(values["decision"].to_pylist()))
    except UserError as error:
        raise UserError(f"{run.values}: {error}; was it written by another version?") from None


def _outdated(record: dict[str, Any], values: pa.Table | None) -> tuple[str, ...]:
    """Steps that recorded that they learnt from other images than are kept now."""
    steps = record.get("steps", {})
    noted = {step: steps.get(step, {}).get("kept_digest") for step in ("probes", "cleaned")}
    if values is None or not any(noted.values()):
        return ()
    now = kept_digest(values)
    return tuple(step for step, kept in noted.items() if kept and kept != now)


def _truth(run: RunDirectory, values: pa.Table | None) -> Truth | None:
    images = None if values is None else read_image_set(run)
    if values is None or images is None:
        return None
    truth = read_truth(images)
    return truth if truth and list(truth.ids) == values["id"].to_pylist() else None


def _detection(
    values: pa.Table | None, ranked: Ranking | None, truth: Truth | None
) -> Detection | None:
    if values is None or ranked is None or truth is None or not truth.known.any():
        return None
    known = truth.known
    return detection(ranked.score[known], kept_mask(values)[known], truth.wrong[known])


def _network_scores(
    run: RunDirectory,
    curves: Sequence[dict[str, Any]],
    values: pa.Table | None,
    truth: Truth | None,
) -> list[dict[str, Any]]:
    """The last epoch of each training on val; the epoch is not chosen on val."""
    last: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in curves:
        if row["split"] == "val":
            last[row["backbone"], row["arm"], row["seed"]] = row
    sizes = _arm_sizes(run, values, truth)
    return [
        {
            **row,
            "model": f"{row['backbone']} fine-tuned",
            "images": sizes.get(row["arm"], float("nan")),
        }
        for row in last.values()
    ]


def _probe_scores(run: RunDirectory) -> list[dict[str, Any]]:
    if not run.probes.exists():
        return []
    rows = parquet.read_table(run.probes).to_pylist()
    return [{**row, "model": f"{row['probe']} probe"} for row in rows]


def _arm_sizes(run: RunDirectory, values: pa.Table | None, truth: Truth | None) -> dict[str, float]:
    splits = run.record().get("steps", {}).get("images", {}).get("images", {})
    sizes = {"all": splits.get("train", float("nan"))}
    if values is not None:
        kept = values["decision"].to_pylist().count("keep")
        clean = splits.get("shapley_val", 0)
        sizes |= {"kept": kept, "random": kept, "clean": clean, "kept+clean": kept + clean}
    if truth is not None:
        sizes["truth"] = int((~truth.wrong).sum())
    return {**sizes, **run.record().get("steps", {}).get("cleaned", {}).get("images", {})}


def _agreement(values: pa.Table | None) -> float | None:
    if values is None or "value_self" not in values.column_names:
        return None
    found = rank_correlation(values["value"].to_numpy(), values["value_self"].to_numpy())
    return found if np.isfinite(found) else None  # equal values have no ranks
