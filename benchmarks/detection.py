"""How well each method finds wrong labels.

    python benchmarks/detection.py --set NAME=FOLDER --work DIR

FOLDER holds train, shapley_val, val and truth.csv. Its features are extracted once into DIR.
"""

import argparse
from pathlib import Path

import rivals
from detection_measures import ranking
from detection_sets import AS_GIVEN, cases, folder_source
from detectors import closed_form


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--work", type=Path, default=Path("outputs/detection"))
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size-px", type=int, default=96)
    args = parser.parse_args()
    for entry in args.set:
        name, _, folder = entry.partition("=")
        source = folder_source(name, folder, args.work / "sets", args.backbone, args.size_px)
        for case in cases(source, (AS_GIVEN,), 1):
            assert case.wrong is not None
            print(f"\n## {name}, labels as given\n\n| method | AUC | AP |\n|---|---|---|")
            values = closed_form(case)
            scores = {f"closed form, {how}": -value for how, value in values.items()}
            for method, score in (scores | rivals.with_clean(rivals.scores(case))).items():
                auc, precision, _ = ranking(score, case.wrong)
                print(f"| {method} | {auc:.3f} | {precision:.3f} |")


if __name__ == "__main__":
    main()
