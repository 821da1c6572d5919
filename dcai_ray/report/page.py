"""The report of a run: one self-contained HTML file, without network access.

It shows the results that exist, however far the run has come. Its head carries a fingerprint of
all that it is made from; a report that is up to date is not written again.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

import dcai_ray
from dcai_ray.cleaning.arms import ARMS
from dcai_ray.cleaning.choices import ORDERINGS
from dcai_ray.images.shown import FINDINGS, found_in
from dcai_ray.report import assets, figures, trust, verdicts, wording
from dcai_ray.report.findings import Findings, biased
from dcai_ray.report.gallery import most_suspicious
from dcai_ray.report.sampling_summary import Sampled
from dcai_ray.report.suspects import suspects
from dcai_ray.storage import parquet
from dcai_ray.storage.features import has_features
from dcai_ray.storage.values import kept_mask
from dcai_ray.valuation.removal import HIGHEST, LOWEST, RANDOM

logger = logging.getLogger(__name__)

GALLERY = 40
"""Number of images listed without the page's script."""
_SHOWN = 10  # lines of a list of duplicates
_GROUPS = 100  # rows of the table of groups
_CLASSES = 20  # rows of a table of classes
_PAIRS = 10  # rows of the table of pairs of classes
_TEMPLATES = ("page.html.jinja", "suspects.html.jinja")
_TRAININGS = ("baseline", "cleaned")
_HEAD_BYTES = 1000  # searched for the fingerprint


def write_report(findings: Findings) -> None:
    """Write report.html, unless it is up to date.

    Args:
        findings: the results of a run so far.
    """
    wanted = _fingerprint(findings)
    report = findings.run.report
    if report.exists() and f'content="{wanted}"'.encode() in report.read_bytes(_HEAD_BYTES):
        return
    template = _compiled(findings.unit)
    report.write_bytes(template.render(fingerprint=wanted, **_content(findings)).encode())
    logger.info("report: %s", report, extra={"work": True})


def _fingerprint(findings: Findings) -> str:
    run, truth = findings.run, findings.truth
    steps = findings.record.get("steps", {})
    made = (run.images, run.values, run.probes, run.removal, *map(run.metrics, _TRAININGS))
    return parquet.new_fingerprint(
        "report",
        dcai_ray.__version__,
        [assets.source(name) for name in _TEMPLATES],
        assets.policy(),
        findings.settings,
        findings.record.get("versions", {}),
        {name: step["fingerprint"] for name, step in steps.items()},
        [parquet.fingerprint_of(table) for table in made],
        [has_features(run.features / split) for split in ("train", "shapley_val")],
        [parquet.fingerprint_of(table) for table in (run.trace, run.check)],
        None if truth is None else [truth.true_labels, truth.wrong.tolist()],
    )


@lru_cache(maxsize=2)
def _compiled(unit: str) -> Any:
    """The template, speaking of images or examples."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    environment = Environment(
        loader=DictLoader({name: assets.source(name) for name in _TEMPLATES}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[] if unit == "images" else [wording.Examples],
    )
    environment.filters |= {
        "chance": verdicts.chance,
        "bounds": trust.bounds,
        "number": verdicts.number,
        "percent": verdicts.percent,
        "worded": partial(wording.worded, unit=unit),
        "signed": verdicts.signed,
    }
    return environment.get_template(_TEMPLATES[0])


def _content(findings: Findings) -> dict[str, Any]:
    """What the template shows; missing parts are None or empty."""
    steps = findings.record.get("steps", {})
    num_val = steps.get("images", {}).get("images", {}).get("val", 0)
    found = verdicts.verdicts(findings.table, num_val)
    gallery = most_suspicious(findings, GALLERY)
    listed = suspects(findings, GALLERY)
    return {
        "policy": Markup(assets.policy()),  # of our own files alone
        "style": Markup(assets.style()),  # our own file
        "scripts": Markup(assets.scripts(listed)),  # escaped there
        "suspects": len(listed.data["columns"]["id"]) if listed else 0,
        "name": findings.run.location.name,
        "version": dcai_ray.__version__,
        "tiles": _tiles(findings, found),
        "lead": verdicts.lead(findings, found),
        "verdicts": found,
        "warnings": verdicts.warnings(findings, found),
        "arms": ARMS,
        "rows": findings.table,
        "models": list(dict.fromkeys(row.model for row in findings.table)),
        "num_val": num_val,
        "values": _values(findings),
        "classes": _classes(findings),
        "dropped": findings.dropped,
        "trust": _trust(findings),
        "ranking": findings.ranking,
        "unit": findings.unit,
        "gallery": gallery,
        "with_images": any(entry.thumbnail is not None for entry in gallery),
        "with_cards": any(entry.thumbnail is not None or entry.shown for entry in gallery),
        "value_settings": findings.settings.get("value", {}),
        "sampled": _sampled(findings),
        "check": _check(findings),
        "curves": _curves(findings),
        "detection": _detection(findings),
        "shares": _shares(findings),
        "removal": _removal(findings),
        "groups": _groups(findings),
        "settings": yaml.safe_dump(
            without_secrets(findings.settings), sort_keys=False, allow_unicode=True
        ),
        "versions": findings.record.get("versions", {}),
        "steps": {name: step["seconds"] for name, step in steps.items()},
        "images": _images(steps.get("images", {})),
        "colours": figures.COLOURS,
    }


def _tiles(findings: Findings, found: Sequence[verdicts.Verdict]) -> list[tuple[str, str, str]]:
    """The key numbers, each as figure, name and context."""
    tiles = []
    if findings.values is not None:
        n, dropped = len(findings.values), findings.num_dropped
        beside = f"{verdicts.percent(dropped / n)} of {n:,}"
        tiles.append((f"{dropped:,}", f"{findings.unit} {findings.dropped}", beside))
    d = findings.detection
    if d is not None:
        precise = verdicts.percent(d.precision)
        beside = f"of {d.wrong:,}; {precise} of the {findings.dropped} are wrong"
        tiles.append((f"{d.dropped_wrong:,}", f"wrong labels {findings.dropped}", beside))
    for verdict in found[:1]:
        baselines = ", ".join(f"{a.arm} {a.accuracy:.3f}" for a in verdict.against)
        tiles.append(
            (
                f"{verdict.kept:.3f}",
                f"accuracy on the kept images, {verdict.model}",
                f"baselines: {baselines}",
            )
        )
    if findings.agreement is not None:
        beside = "rank correlation of the values with those by the training set (leave-one-out)"
        tiles.append((f"{findings.agreement:.2f}", "agreement with self-valuation", beside))
    return tiles


def _values(findings: Findings) -> dict[str, Any] | None:
    """The histogram and its cut-off."""
    if findings.values is None or not len(findings.values):
        return None
    value = findings.values["value"].to_numpy()
    choice, truth = findings.choice, findings.truth
    if truth is not None and truth.known.any():
        groups = {
            "wrong label": value[truth.wrong],
            "right label": value[truth.known & ~truth.wrong],
            "unknown": value[~truth.known],
        }
    else:
        kept = kept_mask(findings.values)
        groups = {findings.dropped: value[~kept], "kept": value[kept]}
    groups = {name: entries for name, entries in groups.items() if len(entries)}
    cut = None if choice is None else choice.cut(value)
    return {
        "plot": figures.histogram(groups, cut, findings.unit, *_unit(findings)),
        "cut": cut,
        "per_class": choice is not None and choice.per_class,
        "other_order": choice is not None and choice.ordering != "value",
        "utility": _utility(findings),
        "negative": int((value < 0).sum()),
        "lowest": float(value.min()),
        "median": float(np.median(value)),
        "highest": float(value.max()),
    }


def _unit(findings: Findings) -> tuple[str, ...]:
    """The unit of the values; empty if it is accuracy, as of the utility `knn`."""
    utility = _utility(findings)
    return (f"units of {utility}",) if utility else ()


def _utility(findings: Findings) -> str:
    """The utility, unless it is `knn`."""
    if findings.sampled is not None:
        return str(findings.sampled.record["utility"])
    utility = findings.settings.get("value", {}).get("utility", "knn")
    return "" if utility == "knn" else str(utility)


def _classes(findings: Findings) -> dict[str, Any] | None:
    """What was dropped by class and which labels it resembles, largest share dropped first."""
    if findings.values is None:
        return None
    rows = findings.values.select(["label", "suggested_label", "decision"]).to_pylist()
    count = Counter(row["label"] for row in rows)
    dropped = Counter(row["label"] for row in rows if row["decision"] == "drop")
    looks: dict[str, Counter[str]] = {label: Counter() for label in count}
    for row in rows:
        if row["decision"] == "drop" and row["suggested_label"] not in (None, row["label"]):
            looks[row["label"]][row["suggested_label"]] += 1
    order = sorted(count, key=lambda label: (-dropped[label] / count[label], label))
    table = [
        {
            "label": label,
            "images": count[label],
            "dropped": dropped[label],
            "looks": sorted(looks[label].items(), key=lambda pair: (-pair[1], pair[0]))[:3],
        }
        for label in order
    ]
    return {"rows": table[:_CLASSES], "more": len(table[_CLASSES:])}


def _trust(findings: Findings) -> dict[str, Any] | None:
    """How far to trust the list: sentences, classes and pairs of classes."""
    found, values = findings.trust, findings.values
    if found is None or values is None:
        return None
    settings = findings.settings.get("value", {})
    rows = trust.class_rows(found, values)
    return {
        "sentences": trust.sentences(found, findings.choice, findings.num_dropped, settings),
        "rows": rows[:_CLASSES],
        "more": len(rows[_CLASSES:]),
        "pairs": trust.class_pairs(values, _PAIRS),
    }


def _sampling(sampled: Sampled, confidence: float) -> dict[str, Any]:
    """What the report says about one sampling."""
    record = sampled.record
    notes = [
        "R-hat is shown because it is widely known. As rounds are independent, it reflects their "
        "number rather than the error, and no decision depends on it."
    ]
    if sampled.imputed_share > 0:
        notes.insert(0, f"{biased(sampled.imputed_share)}.")
    r_hat = record["r_hat"]
    return {
        "plot": figures.convergence(sampled.trace),
        "utility": record["utility"],
        "confidence": confidence,
        "settled": record["settled"],
        "rows": [
            ("rounds", f"{record['rounds']:,} in {record['chains']} chains: {record['sampler']}"),
            ("marginals", f"{record['insertions']:,}"),
            ("stopped by", record["stop"]),
            ("decided", f"{verdicts.percent(record['settled'])} of the images"),
            ("largest standard error", verdicts.number(record["max_stderr"])),
            ("R-hat", "unknown" if r_hat is None else f"{r_hat:.3f}"),
            (
                "time",
                f"{record['seconds']:,.0f} s of sampling, "
                f"{record['compute_seconds']:,.0f} s of compute",
            ),
            ("workers lost and replaced", f"{record['workers_lost']:,}"),
        ],
        "notes": notes,
    }


def _sampled(findings: Findings) -> dict[str, Any] | None:
    if findings.sampled is None:
        return None
    confidence = float(findings.settings.get("sample", {}).get("confidence", 0.95))
    found = _sampling(findings.sampled, confidence)
    bound = None if findings.choice is None else findings.choice.false_discovery
    if bound is not None and findings.num_dropped:
        found["notes"].insert(0, verdicts.false_discovery(bound))
    return found


def _check(findings: Findings) -> dict[str, Any] | None:
    if findings.check is None:
        return None
    confidence = float(findings.settings.get("sample", {}).get("confidence", 0.95))
    found = _sampling(findings.check.sampled, confidence)
    found["sentence"] = verdicts.cross_check(findings.check, findings.num_dropped)
    return found


def _curves(findings: Findings) -> list[tuple[str, str]]:
    """(backbone, plot) of every backbone that was fine-tuned."""
    rows = [row for row in findings.curves if row["split"] == "val"]
    backbones = dict.fromkeys(row["backbone"] for row in rows)
    return [
        (name, figures.learning_curves([row for row in rows if row["backbone"] == name]))
        for name in backbones
    ]


def _detection(findings: Findings) -> dict[str, Any] | None:
    """How wrong labels were found: the ROC curve, and precision and recall by images reviewed."""
    found, truth = findings.detection, findings.truth
    if found is None or truth is None or findings.ranking is None:
        return None
    wrong = truth.wrong[truth.known]
    order = findings.ranking.order
    hits = np.cumsum(truth.wrong[order[truth.known[order]]])
    counts = sorted({max(round(share * len(wrong)), 1) for share in (0.01, 0.05, 0.1, 0.2, 0.3)})
    looked = [
        {"count": c, "wrong": int(hits[c - 1]), "precision": hits[c - 1] / c,
         "recall": hits[c - 1] / found.wrong}
        for c in counts
    ]  # fmt: skip
    return {
        "plot": figures.roc(
            found, len(wrong) - found.wrong, findings.ranking.sign, findings.dropped
        ),
        "found": found,
        "known": len(wrong),
        "looked": looked,
    }


def _shares(findings: Findings) -> dict[str, Any] | None:
    """The losses of the shares tried; None if the rule tried none."""
    choice = findings.choice
    if choice is None or choice.share is None or not choice.log_loss:
        return None
    share, losses = choice.share, choice.log_loss
    edge = share == max(tried for tried, loss in losses.items() if loss is not None)
    others = [
        f"{ORDERINGS[name]} {loss:.3f}"
        for name, loss in (choice.orderings or {}).items()
        if name != choice.ordering
    ]
    return {
        "plot": figures.share_losses(losses, share),
        "share": share,
        "edge": edge,
        "ordering": ORDERINGS[choice.ordering],
        "loss": losses[share],
        "others": "; ".join(others),
        # Sampled values are not computed anew without the images that they are judged on.
        "optimistic": findings.sampled is not None and choice.ordering == "value",
    }


def _removal(findings: Findings) -> dict[str, Any] | None:
    """What the accuracy does while images are removed; None before it is known."""
    rows = findings.removal
    if not rows:
        return None
    at = {(row["order"], round(row["share"], 2)): row["accuracy"] for row in rows}
    return {
        "plot": figures.removals(rows),
        "all": at[RANDOM, 0.0],
        "low": at[LOWEST, 0.2],
        "high": at[HIGHEST, 0.2],
        "random": at[RANDOM, 0.2],
        "k": findings.settings.get("value", {}).get("k", 10),
    }


def _groups(findings: Findings) -> dict[str, Any] | None:
    """What groups are worth; None where it was not asked for."""
    rows = findings.groups
    if not rows:
        return None
    return {
        "rows": rows[:_GROUPS],
        "count": len(rows),
        "sampled": any(row["rounds"] for row in rows),
        "wrong": any(row["wrong_share"] == row["wrong_share"] for row in rows),
    }


def _images(step: dict[str, Any]) -> dict[str, Any] | None:
    """What reading the images found; long lists are truncated."""
    if not step:
        return None
    lists = []
    for key, finding in FINDINGS.items():
        groups = step.get(key, [])
        if groups:
            lists.append((found_in(len(groups), finding), len(groups), groups[:_SHOWN]))
    return {
        "counts": step.get("images", {}),
        "unreadable": step.get("unreadable", 0),
        "notes": step.get("notes", []),
        "lists": lists,
    }


def without_secrets(settings: Any) -> Any:
    """Settings without the users, keys and options in URIs, since reports are passed on."""
    if isinstance(settings, dict):
        return {key: without_secrets(entry) for key, entry in settings.items()}
    if isinstance(settings, list):
        return [without_secrets(entry) for entry in settings]
    if isinstance(settings, str) and "://" in settings:
        return re.sub(r"(?<=://)[^/@]*@", "", settings.partition("?")[0])
    return settings
