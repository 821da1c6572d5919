"""How suspicious each label is to published methods of other packages.

    python detect.py GIVEN.npz MADE.npz     (called by ../detection.py --peers)

GIVEN holds x and y of the training images, x_clean and y_clean, out-of-fold `probabilities` of a
logistic probe with the clean images and without (", alone"), and a seed. MADE receives scores (n,),
higher for a label that is more likely wrong, and the `issues` that confident learning would drop,
each with the clean images and without. The script runs in its own environment
(requirements-detection.txt).

cleanlab    self-confidence, and confident learning: its issues first, then by self-confidence
Data-OOB    pyDVL's DataOOBValuation of a random forest of 400 trees (Kwon and Zou 2023)
AUM         area under the margin (Pleiss et al. 2020) of a linear softmax probe trained by SGD;
            the formula is written out here
"""

import sys
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from pydvl.valuation.dataset import Dataset
from pydvl.valuation.methods.data_oob import DataOOBValuation
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import StandardScaler

_TREES = 400
# The best mean AUC of 17 settings on two sets of photos, one with human errors: chosen by their
# true labels, in favour of this rival.
_EPOCHS, _BATCH, _RATE, _MOMENTUM, _DECAY = 20, 64, 0.3, 0.9, 1e-4


def data_oob(x: NDArray[Any], y: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """(n,) the share of the trees that did not see an image and predict its label."""
    forest = RandomForestClassifier(_TREES, random_state=seed, n_jobs=1).fit(x, y)
    valuation = DataOOBValuation(forest).fit(Dataset(x, y))
    result = valuation.result
    found = np.zeros(len(y))
    found[result.indices] = result.values
    return found


def area_under_margin(x: NDArray[Any], y: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """(n,) the logit of the given class minus that of the best other, mean over epochs of SGD."""
    rng = np.random.default_rng(seed)
    # Of length 1 on average, so that one learning rate serves every number of features.
    x = StandardScaler().fit_transform(x.astype(np.float64)) / np.sqrt(x.shape[1])
    x = np.column_stack([x, np.ones(len(x))])
    classes, rows = int(y.max()) + 1, np.arange(len(y))
    targets, w = np.eye(classes)[y], np.zeros((x.shape[1], classes))
    speed, area = np.zeros_like(w), np.zeros(len(y))
    for _ in range(_EPOCHS):
        for batch in np.array_split(rng.permutation(len(y)), -(-len(y) // _BATCH)):
            logits = x[batch] @ w
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            slope = x[batch].T @ (p - targets[batch]) / len(batch) + _DECAY * w
            speed = _MOMENTUM * speed - _RATE * slope
            w += speed
        logits = x @ w
        own = logits[rows, y]
        logits[rows, y] = -np.inf
        area += own - logits.max(axis=1)
    return area / _EPOCHS


def main() -> None:
    """Score every training label."""
    given = np.load(sys.argv[1])
    y, seed, n = given["y"], int(given["seed"]), len(given["y"])
    made = {}
    for ending, splits in (("", ("", "_clean")), (", alone", ("",))):
        p = given[f"probabilities{ending}"]
        confidence = get_label_quality_scores(y, p, method="self_confidence")
        made[f"issues{ending}"] = issues = find_label_issues(y, p, n_jobs=1)
        made[f"cleanlab self-confidence{ending}"] = 1 - confidence
        made[f"confident learning{ending}"] = issues + 1 - confidence
        x_all, y_all = (np.concatenate([given[name + split] for split in splits]) for name in "xy")
        made[f"Data-OOB{ending}"] = -data_oob(x_all, y_all, seed)[:n]
        made[f"AUM{ending}"] = -area_under_margin(x_all, y_all, seed)[:n]
    np.savez(sys.argv[2], **made)


if __name__ == "__main__":
    main()
