"""The training sets whose models are compared."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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


def arms_of(
    kept: NDArray[np.bool_],
    y: NDArray[np.integer],
    wrong: NDArray[np.bool_] | None,
    *,
    has_clean: bool,
    seeds: Sequence[int],
) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """The training sets that are compared: by arm and seed, an (n,) mask of the training images.

    Args:
        kept: (n,) whether the rule keeps an image.
        y: (n,) class numbers.
        wrong: (n,) whether a label is known to be wrong; None if no true label is known.
        has_clean: whether there is a clean shapley_val; the arms with `clean` in their name add it.
        seeds: one draw of the random arm per seed; the other arms are the same for all seeds.
    """
    masks = {"all": np.ones_like(kept), "kept": kept, "random": kept}
    if has_clean:
        masks |= {"clean": np.zeros_like(kept), "kept+clean": kept}
    # If all labels of a class are wrong, nothing of it is left to train on.
    if wrong is not None and wrong.any() and np.isin(y, y[~wrong]).all():
        masks["truth"] = ~wrong
    return {
        arm: {seed: random_choice(kept, y, seed) if arm == "random" else mask for seed in seeds}
        for arm, mask in masks.items()
    }


ARMS = {
    "all": "every training image",
    "kept": "the images that the rule keeps",
    "random": "as many images dropped at random",
    "clean": "shapley_val alone",
    "kept+clean": "the kept images and shapley_val",
    "truth": "only the wrong labels dropped",
}
