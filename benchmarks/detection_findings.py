"""Everything that detection.py measured, by set, noise and seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from detection_measures import Figures, mean_and_error
from detection_sets import Case

UNKNOWN = "–"
Column = tuple[str, str]  # a set and a kind of noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was measured of a case."""

    column: Column
    seed: int
    sizes: tuple[int, ...]  # train, clean, val, features, classes
    figures: Figures

    @classmethod
    def of(cls, case: Case, figures: Figures) -> "Measured":
        """The figures of a case, without its arrays."""
        n, d = case.x.shape
        sizes = (n, len(case.y_clean), len(case.y_val), d, len(case.classes))
        return cls(column=(case.set, case.noise), seed=case.seed, sizes=sizes, figures=figures)


class Findings:
    """Everything that was measured, by set and noise."""

    def __init__(self, found: Sequence[Measured]):
        self.all = found
        self._by_column: dict[Column, list[Measured]] = {}
        for each in found:
            self._by_column.setdefault(each.column, []).append(each)
        self.sets = tuple(dict.fromkeys(each.column[0] for each in found))

    def columns(self, sets: Iterable[str], kinds: Iterable[str]) -> list[Column]:
        """Those of them that were measured."""
        kinds = tuple(kinds)
        return [(s, kind) for s in sets for kind in kinds if (s, kind) in self._by_column]

    def over_seeds(self, column: Column, *key: str) -> list[float]:
        """The figure of each seed; NaN where it is missing."""
        question, method, measure = key
        cases = self._by_column[column]
        return [case.figures.get((question, method, measure), float("nan")) for case in cases]

    def mean(self, column: Column, *key: str) -> float:
        """The mean over seeds; NaN if no seed has the figure."""
        return mean_and_error(self.over_seeds(column, *key))[0]

    def gap(self, column: Column, key: tuple[str, str, str], to: tuple[str, str, str]) -> str:
        """The paired difference of two figures: mean and standard error over seeds."""
        pairs = np.subtract(self.over_seeds(column, *key), self.over_seeds(column, *to))
        mean, error = mean_and_error(pairs.tolist())
        if np.isnan(mean):
            return UNKNOWN
        return f"{mean:+.3f}" + ("" if np.isnan(error) else f" ± {error:.3f}")

    def methods(self, columns: Sequence[Column], question: str) -> list[str]:
        """The methods that have figures for a question, in order."""
        keys = (
            key for column in columns for case in self._by_column[column] for key in case.figures
        )
        return list(dict.fromkeys(method for asked, method, _ in keys if asked == question))
