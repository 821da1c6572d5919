"""The training sets whose models are compared."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Arm(NamedTuple):
    """What is learnt from, of n training images, and with which labels."""

    chosen: NDArray[np.bool_]  # (n,) whether an image is used
    labels: NDArray[np.int64]  # (n,) class numbers of the images that are used


def random_choice(kept: NDArray[np.bool_], y: NDArray[np.integer], seed: int) -> NDArray[np.bool_]:
    """The control arm: drops as many images as `kept`, at random, without emptying a class."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x5EED,)))
    chosen = np.zeros(len(kept), dtype=bool)
    order = rng.permutation(len(kept))
    first = [order[np.argmax(y[order] == c)] for c in np.unique(y)]  # one of each class stays
    rest = order[~np.isin(order, first)]
    chosen[first] = True
    chosen[rest[: max(int(kept.sum()) - len(first), 0)]] = True
    return chosen


def new_labels(
    kept: NDArray[np.bool_],
    y: NDArray[np.integer],
    suggested: NDArray[np.integer],
    probability: NDArray[np.float64],
    above: float,
) -> NDArray[np.int64]:
    """(n,) the labels in the arm `relabelled`; -1 for images that are left out.

    A dropped image whose suggested label is its own is left out: it is not dropped for its label.

    Args:
        kept: (n,) whether the rule keeps an image.
        y: (n,) class numbers as given.
        suggested: (n,) class numbers.
        probability: (n,) of the suggested labels; NaN where unknown.
        above: the probability above which an image is relabelled.
    """
    sure = ~kept & (suggested != y) & (probability > above)
    return np.where(kept, y, np.where(sure, suggested, -1)).astype(np.int64)


def arms_of(
    kept: NDArray[np.bool_],
    y: NDArray[np.integer],
    wrong: NDArray[np.bool_] | None,
    *,
    has_clean: bool,
    seeds: Sequence[int],
    relabelled: NDArray[np.int64] | None = None,
    reviewed: NDArray[np.int64] | None = None,
) -> dict[str, dict[int, Arm]]:
    """The training sets that are compared, by arm and seed.

    Args:
        kept: (n,) whether the rule keeps an image.
        y: (n,) class numbers.
        wrong: (n,) whether a label is known to be wrong; None if no true label is known.
        has_clean: whether there is a clean shapley_val; the arms with `clean` in their name add it.
        seeds: one draw of the random arm per seed; the other arms are the same for all seeds.
        relabelled: (n,) of `new_labels`; None where no label is suggested. Where nothing is
            relabelled there is no such arm.
        reviewed: (n,) labels with what people decided, -1 for images that are left out; None where
            nobody decided anything.
    """
    given = y.astype(np.int64)
    arms = {"all": Arm(np.ones_like(kept), given), "kept": Arm(kept, given)}
    if relabelled is not None and (relabelled[~kept] >= 0).any():
        arms["relabelled"] = Arm(relabelled >= 0, relabelled)
    if reviewed is not None and (reviewed >= 0).any():
        arms["reviewed"] = Arm(reviewed >= 0, reviewed)
    arms["random"] = arms["kept"]
    if has_clean:
        arms |= {"clean": Arm(np.zeros_like(kept), given), "kept+clean": arms["kept"]}
    # If all labels of a class are wrong, nothing of it is left to train on.
    if wrong is not None and wrong.any() and np.isin(y, y[~wrong]).all():
        arms["truth"] = Arm(~wrong, given)
    return {
        name: {
            seed: Arm(random_choice(kept, y, seed), given) if name == "random" else arm
            for seed in seeds
        }
        for name, arm in arms.items()
    }


ARMS = {
    "all": "every training image",
    "kept": "the images that the rule keeps",
    "relabelled": "the kept images, and dropped ones with a likely label instead",
    "reviewed": "the kept images, changed as people decided",
    "random": "as many images dropped at random",
    "clean": "shapley_val alone",
    "kept+clean": "the kept images and shapley_val",
    "truth": "only the wrong labels dropped",
}
