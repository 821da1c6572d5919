"""One permutation of pyDVL: KNeighborsClassifier(10) fitted and scored on every prefix.

    python pydvl_step.py GIVEN.npz MADE.npz     (called by ../marginals.py --pydvl)

GIVEN holds x, y, x_val, y_val and the order; MADE receives the scores of the prefixes, the seconds
that they took and pyDVL's version. The script runs in its own environment (requirements.txt).
"""

import sys
import time
import warnings
from importlib.metadata import version

import numpy as np
from pydvl.valuation.dataset import Dataset
from pydvl.valuation.scorers import SupervisedScorer
from pydvl.valuation.types import Sample
from pydvl.valuation.utility import ModelUtility
from sklearn.neighbors import KNeighborsClassifier


def main() -> None:
    """Score every prefix."""
    given = np.load(sys.argv[1])
    train, test = Dataset(given["x"], given["y"]), Dataset(given["x_val"], given["y_val"])
    model = KNeighborsClassifier(10, algorithm="brute")
    scorer = SupervisedScorer("accuracy", test, default=0.0, range=(0, 1))
    utility = ModelUtility(model, scorer).with_dataset(train)
    order, scores = given["order"], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about every prefix shorter than 10
        utility(Sample(None, order[:20]))
        start = time.perf_counter()
        for size in range(1, len(order) + 1):
            scores.append(utility(Sample(None, np.sort(order[:size]))))
        seconds = time.perf_counter() - start
    np.savez(sys.argv[2], scores=scores, seconds=seconds, version=version("pyDVL"))


if __name__ == "__main__":
    main()
