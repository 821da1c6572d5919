"""A run in a terminal of 79 columns: the worst suspects, accuracies, a summary of twelve lines.

The summary begins with the verdict and the warnings, and ends with what to do next. What does not
fit is left to the report and to `--json`, the least important first.
"""

import re
import shlex
import textwrap
from collections.abc import Sequence

from dcai_ray.progress import counted
from dcai_ray.report import trust, verdicts
from dcai_ray.report.findings import NOT_CLEANING, Findings, in_conflict
from dcai_ray.report.suspect_list import Suspect, count_by_tier, suspects
from dcai_ray.report.wording import worded

WIDTH = 79
MAX_LINES = 12
"""Of the summary."""
NUM_WORST = 10


def worst(findings: Findings) -> list[str]:
    """The most suspicious images as a table; no line without suspects."""
    listed = suspects(findings)
    if not listed:
        return []
    rows = [("", "tier", "P(wrong)", "label -> looks like", findings.unit[:-1])]
    for suspect in listed[:NUM_WORST]:
        rows.append((str(suspect.rank), suspect.tier, *_evidence(suspect), suspect.path))
    if all(not row[2] for row in rows[1:]):
        rows = [(row[0], row[1], "", *row[3:]) for row in rows]
    lines = _aligned(rows, right=(0, 2))
    title = f"{min(len(listed), NUM_WORST)} of {len(listed)} suspects (all in suspects.csv)"
    return [title, *lines]


def accuracies(findings: Findings) -> list[str]:
    """Accuracy on val by training set (rows) and model (columns); no line without any."""
    arms = list(dict.fromkeys(row.arm for row in findings.table))
    models = list(dict.fromkeys(row.model for row in findings.table))
    if not models:
        return []
    found = {(row.arm, row.model): row for row in findings.table}
    shown = list(models)
    while len(shown) > 1 and _table_width(("accuracy", *arms), findings.unit, shown) > WIDTH:
        shown.pop()
    rows = [("accuracy", findings.unit, *shown)]
    for arm in arms:
        cells = [found.get((arm, model)) for model in shown]
        images = next((f"{row.images:.0f}" for row in cells if row), "")
        rows.append((arm, images, *("" if row is None else f"{row.accuracy:.3f}" for row in cells)))
    lines = _aligned(rows, right=range(1, len(rows[0])))
    left = len(models) - len(shown)
    return [*lines, f"{counted(left, 'models')} more in the report"] if left else lines


def summary(findings: Findings) -> list[str]:
    """At most `MAX_LINES` lines: verdict, warnings, figures, what to do next."""
    after = [f"report: {findings.run.report}", *next_steps(findings)]
    lines = _wrapped(verdict(findings))
    figures = [_wrapped(text) for text in _figures(findings)]
    first = figures[0] if figures else []  # how much is dropped: it has its place in any case
    left = MAX_LINES - len(after) - len(first)
    lines += _warnings(findings, left - len(lines))
    lines += first
    return [*lines, *_fitting(figures[1:], left + len(first) - len(lines)), *after]


def verdict(findings: Findings) -> str:
    """What the run comes to, in one sentence."""
    if findings.values is None:
        return "no image has a value yet; use dcai-ray run, or its steps extract and value"
    found = _verdicts(findings)
    if not found:
        return _suspected(findings)
    if findings.num_dropped == 0:
        return f"nothing is dropped: {NOT_CLEANING}"
    first = found[0]
    gaps = [f"{against.gap:+.3f} over {against.arm}" for against in first.against]
    better = all(against.outcome == "better" for each in found for against in each.against)
    word = "cleaning helps" if better else "cleaning does not clearly beat every baseline"
    return f"{word}: accuracy {first.kept:.3f} ({first.model}), {', '.join(gaps)}"


def warnings(findings: Findings) -> list[str]:
    """Reasons not to trust the result, most important first."""
    return verdicts.concerns(findings, _verdicts(findings))


def next_steps(findings: Findings) -> list[str]:
    """The commands that people need next, with a heading."""
    run = shlex.quote(findings.run.location.uri)
    if findings.values is None:
        return ["next:", f"  dcai-ray status {run}"]
    steps = [f"dcai-ray review {run}"]
    settings = findings.settings.get("value", {})
    if settings.get("method") == "exact":
        is_zero = findings.choice is not None and findings.choice.rule == "zero"
        other = "share --drop-share 0.1" if is_zero else "zero"
        steps.append(f"dcai-ray value --run {run} --rule {other}")
    if findings.run.images.exists():
        steps.append(f"dcai-ray export {run} --to cleaned")
    steps.append(f"dcai-ray status {run}")
    return ["next:", *(f"  {step}" for step in steps[:3])]


def _verdicts(findings: Findings) -> list[verdicts.Verdict]:
    """What cleaning gained for each model."""
    images = findings.record.get("steps", {}).get("images", {}).get("images", {})
    return verdicts.verdicts(findings.table, images.get("val", 0))


def _figures(findings: Findings) -> list[str]:
    """How much is dropped, how many of these are wrong, what planted errors say, what is open."""
    if findings.values is None:
        return []
    n, dropped = len(findings.values), findings.num_dropped
    text = (
        f"{dropped} of {n} training {findings.unit} {findings.dropped} ({100 * dropped / n:.0f} %)"
    )
    if findings.choice is not None:
        text += f", rule {findings.choice.rule}"
    tiers = _tiers(findings)
    lines = [f"{text}; suspects: {tiers}" if _verdicts(findings) and tiers else text]
    lines += in_conflict(sum(map(bool, findings.conflicts)))
    if findings.detection is not None:
        d = findings.detection
        lines.append(
            f"wrong labels: detection AUC {d.auc:.3f}, precision {d.precision:.2f}, "
            f"recall {d.recall:.2f} of the {findings.dropped}"
        )
    if findings.trust is not None:
        settings = findings.settings.get("value", {})
        lines.append(trust.line(findings.trust, dropped, settings))
    undecided = trust.undecided(findings.values)
    lines += [undecided] if undecided else []
    return [worded(line, findings.unit) for line in lines]


def _suspected(findings: Findings) -> str:
    """How many suspects there are."""
    count, tiers = len(suspects(findings)), _tiers(findings)
    among = f"{len(findings.values or ())} training {findings.unit}"
    text = f"{counted(count, 'suspects')} among {among}"
    return f"{text}: {tiers}" if tiers else text


def _tiers(findings: Findings) -> str:
    """How many suspects each tier has; empty without tiers."""
    count = count_by_tier(suspects(findings))
    return ", ".join(f"{number} {tier}" for tier, number in count.items())


def _warnings(findings: Findings, left: int) -> list[str]:
    """The first sentence of each warning, in so many lines; how many are left to the report."""
    texts = [
        worded(re.split(r"(?<=\.) (?=[A-Z])", text)[0], findings.unit)
        for text in warnings(findings)
    ]
    lines: list[str] = []
    for number, text in enumerate(texts):
        block, others = _wrapped(f"warning: {text}"), len(texts) - number - 1
        if len(lines) + len(block) + (others > 0) > left:
            return [*lines, f"{counted(others + 1, 'more warnings')} in the report"]
        lines += block
    return lines


def _evidence(suspect: Suspect) -> tuple[str, str]:
    """P(wrong), and the labels."""
    wrong, likely = suspect.wrong_probability, suspect.suggested_probability
    labels = suspect.label
    if suspect.suggested_label:
        labels += f" -> {suspect.suggested_label}"
    if suspect.suggested_label and likely is not None:
        labels += f" {_probability(likely)}"
    return ("" if wrong is None else _probability(wrong)), labels


def _probability(share: float) -> str:
    """Never rounded to certainty."""
    return ">.99" if share >= 0.995 else f"{share:.2f}".removeprefix("0")


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """Rows as lines of at most `WIDTH` columns; empty columns are left out, the last is cut."""
    rows = [[row[c] for c in range(len(row)) if any(other[c] for other in rows)] for row in rows]
    aligned = set(right)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if c in aligned else cell.ljust(width)
            for c, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(_cut("  ".join(cells).rstrip()))
    return lines


def _table_width(first: Sequence[str], unit: str, models: Sequence[str]) -> int:
    """Of `accuracies`: its first column, the column of how many, and these models."""
    return max(map(len, first)) + 2 + len(unit) + sum(2 + max(len(m), 5) for m in models)


def _cut(line: str) -> str:
    """The line, with the middle left out where it is too long: the end names the file."""
    if len(line) <= WIDTH:
        return line
    kept = WIDTH - 3
    return f"{line[: kept - kept // 3]}...{line[-(kept // 3) :]}"


def _fitting(blocks: Sequence[list[str]], left: int) -> list[str]:
    """The lines of those blocks that fit into so many lines, each whole."""
    lines: list[str] = []
    for block in blocks:
        if len(lines) + len(block) <= left:
            lines += block
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
