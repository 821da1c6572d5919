"""The rule `validated` for one ordering, in this process; its losses are not cross-validated."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import Choice, Valued
from dcai_ray.cleaning.probes import principal_features, share_losses
from dcai_ray.cleaning.rules import Validated

Points = tuple[NDArray[np.floating], NDArray[np.integer]]


def validated(value: NDArray[np.float64], train: Points, clean: Points) -> Choice:
    """What the rule decides if images are ordered by value (n,), the lowest to be dropped first."""
    (x, y), (x_clean, y_clean) = train, clean
    x, x_clean = principal_features(x, x_clean)

    def losses(shares: Sequence[float]) -> dict[str, list[NDArray[np.float64] | None]]:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return {
                "value": list(
                    threads.map(lambda s: share_losses(value, s, x, y, x_clean, y_clean), shares)
                )
            }

    return Validated().choose(Valued(value=value, y=y, losses=losses))
