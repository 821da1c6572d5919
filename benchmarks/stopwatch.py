"""What a person's minutes buy: labels corrected in several orders, and the accuracy after them.

    python benchmarks/stopwatch.py --set NAME=FOLDER --set ... --peers PYTHON

FOLDER, PYTHON and the scores are those of detection.py. A simulated reviewer looks at the training
images in the order of a list, two seconds each, and gives 95 % of them their true label and the
rest another class. After some minutes a probe is trained on the labels as they are by then: what he
said of the images that he has seen, and the given labels of the others. Nothing is dropped, so that
it is the order that counts; in the rows that end in "dropping", the images that the rule drops and
that he has not seen are left out, as in the arm `reviewed` of a run.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from cleaning_gains import accuracies
from detection import scored
from detection_measures import mean_and_error
from detection_sets import AS_GIVEN, Case, cases, folder_source
from detectors import OURS, Arrays, Kept, closed_form
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

SECONDS, RIGHT = 2.0, 0.95
"""For an image, and the share of images that get their true label."""
MINUTES = (0, 2, 5, 10, 15, 30)
LEFT, ACCURACY = "wrong labels left", "accuracy on val"

_PROBE = "probe, C = 0.01"
_PEERS = {
    "cleanlab": "cleanlab self-confidence",
    "cleanlab, issues first": "confident learning",
    "margin of a probe": _PROBE,
    "random": "random",
}
_DROPPING = ", dropping"

Labels = NDArray[np.int64]
Figures = dict[tuple[str, str, int], float]


def orders(case: Case, found: Arrays, others: Arrays) -> dict[str, NDArray[np.intp]]:
    """(n,) the images in the order in which each list shows them.

    Args:
        case: the case.
        found: what the product found.
        others: the scores of its rivals.
    """
    scores = {
        f"{OURS}, P(wrong)": found["wrong_probability"],
        f"{OURS}, expected gain": -found["wrong_probability"] * found["value"],
        "value": -closed_form(case)["by clean"],
    }
    scores |= {name: others[key] for name, key in _PEERS.items() if key in others}
    return {name: np.argsort(-score, kind="stable") for name, score in scores.items()}


def answers(case: Case) -> Labels:
    """(n,) what the reviewer would say of each image; the number of classes for none of them."""
    assert case.truth is not None
    rng, classes = np.random.default_rng([case.seed, 3]), len(case.classes)
    other = (case.truth + rng.integers(1, classes, len(case.truth))) % classes
    return np.where(rng.random(len(case.truth)) < RIGHT, case.truth, other)


def watched(case: Case, found: Arrays, others: Arrays) -> Figures:
    """Wrong labels left in what a model is trained on and its accuracy; by order and minutes."""
    said, figures, lists = answers(case), Figures(), orders(case, found, others)
    ours = [name for name in lists if name.startswith(OURS)]
    kept = {name: np.ones(len(case.y), dtype=bool) for name in lists}
    kept |= {f"{name}{_DROPPING}": ~found["dropped"] for name in ours}
    for minutes in MINUTES:
        num_seen = min(len(said), int(minutes * 60 / SECONDS))
        for name, mask in kept.items():
            seen = np.zeros(len(said), dtype=bool)
            seen[lists[name.removesuffix(_DROPPING)][:num_seen]] = True
            y = np.where(seen, said, case.y)
            used = (mask | seen) & (y < len(case.classes))
            figures[name, LEFT, minutes] = float((used & (y != case.truth)).sum())
            after = replace(case, y=y)
            figures[name, ACCURACY, minutes] = accuracies(after, {"": (used, False)})[""]
    return figures


def table(measured: list[Figures], what: str) -> str:
    """A row an order, a column a number of minutes; the mean and its error over seeds."""
    head = f"| {what} | {' | '.join(f'{m} min' for m in MINUTES)} |"
    lines = [head, "|---" * (len(MINUTES) + 1) + "|"]
    digits = 0 if what == LEFT else 3
    for name in dict.fromkeys(name for name, _, _ in measured[0]):
        cells = []
        for minutes in MINUTES:
            mean, error = mean_and_error([each[name, what, minutes] for each in measured])
            cells.append(
                f"{mean:.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(measured: list[Figures]) -> str:
    """Whether our quarter of an hour is worth everyone else's half hour."""
    mean = {key: np.mean([each[key] for each in measured]) for key in measured[0]}
    names = dict.fromkeys(name for name, _, _ in measured[0])
    first = f"{OURS}, P(wrong){_DROPPING}"
    ours = mean[first, ACCURACY, 15]
    others = {n: mean[n, ACCURACY, 30] for n in names if not n.startswith(OURS)}
    best = max(others, key=lambda name: others[name])
    word = "above" if ours > others[best] else "not above"
    return (
        f"{first} after 15 minutes: {ours:.3f}, {word} the best of the others after 30 minutes "
        f"({best}: {others[best]:.3f})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("outputs/detection"))
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size-px", type=int, default=96)
    parser.add_argument("--peers", metavar="PYTHON", help="of peers/requirements-detection.txt")
    args = parser.parse_args()
    print("# Minutes of a reviewer")
    with threadpool_limits(1):
        for entry in args.set:
            name, _, folder = entry.partition("=")
            source = folder_source(name, folder, args.work / "sets", args.backbone, args.size_px)
            measured = []
            for case in cases(source, (AS_GIVEN,), args.seeds):
                if case.wrong is None:
                    raise SystemExit(f"{folder}: has no truth.csv")
                by_clean, _, others = scored(case, Kept(args.work / "measured"), args.peers)
                measured.append(watched(case, by_clean, others))
            n = len(case.y)
            print(f"\n## {name}\n\n{n:,} images, {int(case.wrong.sum()):,} wrong labels.")
            for what in (LEFT, ACCURACY):
                print(f"\n{table(measured, what)}")
            print(f"\n{verdict(measured)}", flush=True)


if __name__ == "__main__":
    main()
