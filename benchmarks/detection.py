"""How well each method finds wrong labels, and what cleaning by it gains.

    python benchmarks/detection.py --set NAME=FOLDER            # minutes per kind of noise and seed
    python benchmarks/detection.py --set NAME=FOLDER --set ... --study FOLDER --digits
        --peers PYTHON --seeds 5 --work DIR --out TABLES.md     # hours; a second call goes on

FOLDER of a set holds train, shapley_val, val and truth.csv, as `dcai-ray run` takes it; --study is
the published study's folder of pickles, of which only the accuracy after cleaning can be measured;
--digits are those of scikit-learn. Besides the labels as given, noise is made on the true labels
(label_noise.py); --noise chooses kinds of it. Seeds redraw the noise and which clean images are
shapley_val and which val. The product runs through its own command line. PYTHON belongs to an
environment with peers/requirements-detection.txt. Features and all that was measured stay in DIR.
Tables are printed as Markdown, or written to --out.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import rivals
from cleaning_gains import ALONE, accuracies, arms, kept_by_order
from detection_findings import Measured
from detection_measures import Figures, brier, ranking, reliability, shares
from detection_sets import (
    AS_GIVEN,
    MADE,
    Case,
    Source,
    cases,
    digits_source,
    folder_source,
    study_source,
)
from detection_tables import tables
from detectors import (
    AUDIT,
    HERE,
    OURS,
    PRODUCT,
    Arrays,
    Kept,
    closed_form,
    code,
    evidence,
    fingerprint,
    ours,
    peers,
)
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

_AUDIT_FLAGS = ("--validation", "self")
_PROBE = "probe, C = 0.001"


def detection(case: Case, by_clean: Arrays, by_self: Arrays, others: Arrays) -> Figures:
    """How each method's scores find wrong labels, with the clean set and without."""
    wrong, figures = case.wrong, Figures()
    if wrong is None or not wrong.any():
        return figures
    form = closed_form(case)
    methods = {
        "clean": evidence(by_clean, len(case.y_clean))
        | {f"closed form, {how}": -value for how, value in form.items()}
        | rivals.with_clean(others),
        "audit": evidence(by_self, 0)
        | {"closed form, by self": -form["by self"]}
        | rivals.alone(others),
    }
    for question, scores in methods.items():
        for name, score in scores.items():
            for measure, figure in zip(("AUC", "AP", "P"), ranking(score, wrong), strict=True):
                figures[question, name, measure] = figure
    return figures


def probability(case: Case, found: Arrays, name: str) -> Figures:
    """How well the probability of a wrong label is calibrated."""
    wrong, figures = case.wrong, Figures()
    if wrong is None or "wrong_probability" not in found:
        return figures
    p = found["wrong_probability"]
    figures["calibration", name, "Brier"], figures["calibration", name, "base"] = brier(p, wrong)
    for i, row in enumerate(reliability(p, wrong)):
        for measure, figure in zip(("images", "sum", "wrong"), row, strict=True):
            figures["reliability", name, f"{measure} {i}"] = float(figure)
    return figures


def dropping(case: Case, dropped: NDArray[np.bool_], name: str) -> Figures:
    """What a method drops, over all images and in rare and common classes."""
    wrong, figures = case.wrong, Figures()
    if wrong is None:
        return figures
    figures["dropping", name, "dropped"] = shares(dropped, np.ones_like(wrong))
    figures["dropping", name, "wrong"] = float(wrong.mean())
    figures["dropping", name, "precision"] = shares(wrong, dropped)
    groups = {"": np.ones_like(wrong)}
    if case.rare is not None:
        groups |= {", rare": case.rare, ", common": ~case.rare}
    for ending, group in groups.items():
        figures["dropping", name, f"recall{ending}"] = shares(dropped, group & wrong)
        figures["dropping", name, f"right dropped{ending}"] = shares(dropped, group & ~wrong)
    return figures


def suggestions(case: Case, found: Arrays, name: str) -> Figures:
    """How often the suggested label of a dropped wrong label is the true one."""
    if case.wrong is None or "suggested" not in found:
        return Figures()
    right = found["suggested"] == case.truth
    return {("dropping", name, "suggestion right"): shares(right, found["dropped"] & case.wrong)}


def estimates(found: Arrays, name: str) -> Figures:
    """What the product estimates by planted errors."""
    return {
        ("planted", name, key.removeprefix("planted ")): float(figure)
        for key, figure in found.items()
        if key.startswith("planted ")
    }


def scored(case: Case, kept: Kept, python: str | None) -> tuple[Arrays, Arrays, Arrays]:
    """What the product finds with the clean set and without, and what its rivals find."""
    case_is, product = fingerprint(case), code(PRODUCT, HERE / "detectors.py")
    by_clean = kept.arrays(lambda: ours(case), "ours", case_is, product)
    by_self = kept.arrays(lambda: ours(case, *_AUDIT_FLAGS), "audit", case_is, product)
    own = HERE / "rivals.py"
    others = kept.arrays(lambda: rivals.scores(case), "rivals", case_is, code(own))
    if python:
        script = code(own, HERE / "peers" / "detect.py")
        others |= kept.arrays(lambda: peers(case, python, others), "peers", case_is, script)
    return by_clean, by_self, others


def cleaned(
    case: Case,
    kept: Kept,
    drops: Mapping[str, NDArray[np.bool_]],
    orders: Mapping[str, NDArray[np.float64]],
) -> Figures:
    """The accuracy of every training set.

    Args:
        case: the case.
        kept: the folder of what was measured before.
        drops: (n,) what each method drops by itself.
        orders: (n,) scores, of which the rule `validated` drops the highest.
    """
    case_is, rule = fingerprint(case), code(PRODUCT / "cleaning", HERE / "cleaning_gains.py")
    keeps = {name: ~dropped for name, dropped in drops.items()}
    for name, score in orders.items():
        made_of = ("validated", case_is, rule, score.tobytes().hex())
        found = kept.arrays(partial(_validated, case, score), *made_of)
        keeps[f"validated by {name}"] = found["kept"]
    training, figures = arms(case, keeps, OURS), Figures()
    masks = [f"{name} {mask.tobytes().hex()}" for name, (mask, _) in training.items()]
    gains = kept.arrays(lambda: accuracies(case, training), "accuracies", case_is, rule, *masks)
    for name, (mask, with_clean) in training.items():
        images = int(mask.sum()) + with_clean * len(case.y_clean)
        figures["cleaning", name, "images"] = float(images)
        figures["cleaning", name, "accuracy"] = float(gains[name])
    return figures


def measured(case: Case, kept: Kept, python: str | None) -> Figures:
    """All figures of a case."""
    by_clean, by_self, others = scored(case, kept, python)
    figures = detection(case, by_clean, by_self, others)
    drops = {}
    for name, found in ((OURS, by_clean), (AUDIT, by_self)):
        figures |= probability(case, found, name) | estimates(found, name)
        if "dropped" in found:
            drops[name] = found["dropped"]
        else:
            figures["failed", name, ""] = 1.0
    if "issues" in others:
        drops["confident learning"] = others["issues"]
        drops[f"confident learning{ALONE}"] = others["issues, alone"]
    for name, dropped in drops.items():
        figures |= dropping(case, dropped, name)
    figures |= suggestions(case, by_clean, OURS) | suggestions(case, by_self, AUDIT)
    orders = evidence(by_clean, len(case.y_clean)) | {_PROBE: others[_PROBE]}
    orders.pop(f"{OURS} margin", None)
    return figures | cleaned(case, kept, drops, orders)


def _validated(case: Case, score: NDArray[np.float64]) -> Arrays:
    return {"kept": kept_by_order(case, score)}


def sources(args: argparse.Namespace) -> list[Source]:
    """The sets of the command line, in its order."""
    found = []
    for entry in args.set:
        name, _, folder = entry.partition("=")
        if not folder:
            raise SystemExit(f"--set must be NAME=FOLDER, got {entry}")
        work = args.work / "sets"
        found.append(folder_source(name, folder, work, args.backbone, args.size_px))
    if args.study:
        found.append(study_source(args.study))
    if args.digits:
        found.append(digits_source())
    if not found:
        raise SystemExit("no set: give --set NAME=FOLDER, --study FOLDER or --digits")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--study", metavar="FOLDER", help="folder of feature_dump_*.pkl")
    parser.add_argument("--digits", action="store_true", help="the digits of scikit-learn too")
    parser.add_argument("--noise", nargs="+", choices=(AS_GIVEN, *MADE), metavar="KIND")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("outputs/detection"))
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size-px", type=int, default=96)
    parser.add_argument("--peers", metavar="PYTHON", help="of peers/requirements-detection.txt")
    parser.add_argument("--out", type=Path, help="file for the tables; stdout by default")
    args = parser.parse_args()
    found = []
    # Probes are fitted side by side; with several threads each they would wait for each other.
    with threadpool_limits(1):
        for source in sources(args):
            for case in cases(source, args.noise or (AS_GIVEN, *MADE), args.seeds):
                start = time.monotonic()
                figures = measured(case, Kept(args.work / "measured"), args.peers)
                seconds = time.monotonic() - start
                print(f"{case.set}, {case.noise}, {case.seed}: {seconds:.0f} s", file=sys.stderr)
                found.append(Measured.of(case, figures))
    text = tables(found)
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
