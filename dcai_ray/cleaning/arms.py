"""The training sets whose models are compared."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def random_choice(kept: NDArray[np.bool_], y: NDArray[np.integer], seed: int) -> NDArray[np.bool_]:
    """The control arm: as many dropped as `kept` drops, at random, no class emptied."""
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
    """The training sets that are compared: by arm and seed, (n,) which training images are in.

    Args:
        kept: (n,) what the rule keeps.
        y: (n,) class numbers.
        wrong: (n,) known wrong labels; None where nothing is known.
        has_clean: whether there is a clean shapley_val; the arms with `clean` in their name add it.
        seeds: one draw of the random arm each; the other arms are alike for all.
    """
    masks = {"all": np.ones_like(kept), "kept": kept, "random": kept}
    if has_clean:
        masks |= {"clean": np.zeros_like(kept), "kept+clean": kept}
    # Where all labels of a class are wrong, what is left of it cannot be trained on.
    if wrong is not None and wrong.any() and np.isin(y, y[~wrong]).all():
        masks["truth"] = ~wrong
    return {
        arm: {seed: random_choice(kept, y, seed) if arm == "random" else mask for seed in seeds}
        for arm, mask in masks.items()
    }


ARMS = {
    "all": "every training image",
    "kept": "what the rule keeps",
    "random": "as many dropped at random",
    "clean": "shapley_val alone",
    "kept+clean": "what the rule keeps and shapley_val",
    "truth": "only the wrong labels dropped",
}
