"""The Python API for notebooks; no knowledge of Ray is needed.

values = dcai_ray.shapley_values(utility)
values.value, values.stderr, values.low, values.high, values.decision
values.to_pandas()
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.features import Features, read_split
from dcai_ray.storage.location import Location
from dcai_ray.storage.values import Estimates
from dcai_ray.valuation.aggregator import Aggregator, Interval
from dcai_ray.valuation.arrays import texts, whole_number
from dcai_ray.valuation.plan import Plan, new_plan
from dcai_ray.valuation.samplers import SamplerName
from dcai_ray.valuation.sampling import new_aggregator, sample
from dcai_ray.valuation.semivalues import Semivalue
from dcai_ray.valuation.stopping import Progress, StopRule
from dcai_ray.valuation.utilities import Utility

_SHOWN = 5  # rows of a printed table, from each end


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """One value per training point, with its error."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    """Class names; empty strings where none were given."""
    value: NDArray[np.float64]  # (n,)
    stderr: NDArray[np.float64]  # (n,) over rounds
    low: NDArray[np.float64]  # (n,)
    high: NDArray[np.float64]  # (n,) bounds, valid at any time
    rounds: int
    """Observations of every point."""
    evaluated: NDArray[np.int64]  # (n,) marginals computed
    decision: NDArray[np.str_]  # (n,) keep, drop or undecided
    semivalue: str
    sampler: str
    stop: str
    """The rule that ended it."""
    confidence: float
    imputed: int = 0
    """Marginals that truncation replaced by zero; the values are biased unless this is 0."""
    trace: tuple[Progress, ...] = ()

    def __len__(self) -> int:
        return len(self.value)

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[np.float64]:
        """The values alone, as NumPy takes them: `np.asarray(values)[:10]`."""
        return np.array(self.value, dtype=dtype)

    def to_arrow(self) -> pa.Table:
        """As the columns of `values.parquet`, without those of other steps."""
        return Estimates(
            id=self.ids,
            label=self.labels,
            value=self.value,
            stderr=self.stderr,
            low=self.low,
            high=self.high,
            rounds=np.full(len(self), self.rounds),
            evaluated=self.evaluated,
            decision=self.decision,
        ).table()

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame.

        Raises:
            UserError: pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise UserError("to_pandas needs pandas: pip install pandas; or use to_arrow")
        return self.to_arrow().to_pandas()

    def write(self, uri: str) -> None:
        """Write the table as Parquet, to a path or URI."""
        fingerprint = parquet.new_fingerprint(
            "values", self.semivalue, self.sampler, self.rounds, self.value.tolist()
        )
        parquet.write_table(Location(uri), self.to_arrow(), fingerprint)

    def __repr__(self) -> str:
        lines = [self._headline()]
        order = np.argsort(self.value, kind="stable")
        width = max([2, *(len(self.ids[i]) for i in order)]) if len(self) else 2
        for i in self._shown(order):
            if i is None:
                lines.append("  ...")
                continue
            lines.append(
                f"  {self.ids[i]:<{width}}  {self.value[i]: .3e}  "
                f"[{self.low[i]: .3e}, {self.high[i]: .3e}]  {self.decision[i]}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        order = np.argsort(self.value, kind="stable")
        head = "<tr><th>id</th><th>value</th><th>low</th><th>high</th><th>decision</th></tr>"
        rows = []
        for i in self._shown(order):
            if i is None:
                rows.append("<tr><td colspan=5>&hellip;</td></tr>")
                continue
            cells = (f"{x:.3e}" for x in (self.value[i], self.low[i], self.high[i]))
            figures = "".join(f"<td>{cell}</td>" for cell in cells)
            rows.append(
                f"<tr><td>{escape(self.ids[i])}</td>{figures}<td>{self.decision[i]}</td></tr>"
            )
        return f"<p>{escape(self._headline())}</p><table>{head}{''.join(rows)}</table>"

    def _headline(self) -> str:
        counts = {name: int((self.decision == name).sum()) for name in ("keep", "drop")}
        biased = f", {self.imputed} marginals imputed: biased" if self.imputed else ""
        return (
            f"{self.semivalue} values of {len(self)} points after {self.rounds} rounds "
            f"({self.sampler}): {counts['keep']} keep, {counts['drop']} drop, "
            f"{len(self) - sum(counts.values())} undecided at {100 * self.confidence:g} %{biased}"
        )

    def _shown(self, order: NDArray[np.intp]) -> Sequence[int | None]:
        """Lowest and highest, None for those between."""
        if len(order) <= 2 * _SHOWN:
            return order.tolist()
        return [*order[:_SHOWN].tolist(), None, *order[-_SHOWN:].tolist()]


def shapley_values(
    utility: Utility,
    *,
    semivalue: Semivalue = "shapley",
    beta: tuple[float, float] = (4.0, 1.0),
    sampler: SamplerName = "multilevel",
    stop: StopRule | None = None,
    seed: int = 0,
    num_chains: int = 8,
    confidence: float = 0.95,
    interval: Interval = "asymptotic",
    ray: bool = False,
    num_workers: int | None = None,
    ids: Iterable[Any] | None = None,
    labels: Iterable[Any] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Values:
    """Values of the training points under any utility, from sampled orders.

    A function of the utility, the settings and the seed: bitwise the same with or without Ray, on
    one core or many.

    Args:
        utility: any object with the members of `Utility`.
        semivalue: shapley, banzhaf, beta or leave-one-out.
        beta: (a, b) of Beta Shapley.
        sampler: multilevel, permutation or antithetic; all are unbiased.
        stop: the stopping rule; by default 95 % of the points are settled.
        seed: random seed.
        num_chains: independent sequences of rounds; affects where sampling stops.
        confidence: of the anytime-valid intervals.
        interval: asymptotic, or bernstein where the utility has a `marginal_range`.
        ray: compute on the Ray cluster of RAY_ADDRESS, or on all cores of this machine.
        num_workers: number of actors; by default one per core.
        ids: names of the points: text, whole numbers or paths; by default their numbers.
        labels: class names, or class numbers.
        report: called after each wave of blocks, to show progress.
    Raises:
        UserError: for settings out of range, or not exactly one id and one label per point.
        ModelError: a model fails; the message names the coalition.
        Exception: what else the utility raises; with Ray, a RuntimeError caused by it.
    """
    _check_utility(utility)
    n = utility.num_players
    names = texts("ids", range(n) if ids is None else ids, n)
    classes = texts("labels", [""] * n if labels is None else labels, n)
    seed = whole_number("seed", seed, minimum=0)
    num_chains = whole_number("num_chains", num_chains)
    if num_workers is not None:
        num_workers = whole_number("num_workers", num_workers)
    plan = new_plan(utility, sampler=sampler, semivalues=(semivalue,), beta=beta, seed=seed)
    aggregator = new_aggregator(
        plan, num_chains=num_chains, confidence=confidence, interval=interval, stop=stop
    )
    show = report or (lambda progress: None)
    if ray:
        _on_ray(plan, utility, aggregator, num_workers, show)
    else:
        for progress in sample(plan, utility, aggregator):
            show(progress)
    return _values_of(
        aggregator,
        ids=names,
        labels=classes,
        semivalue=semivalue,
        sampler=plan.name,
        confidence=confidence,
    )


def _check_utility(utility: Any) -> None:
    """Refuse what is no utility before anything is computed."""
    members = ("num_players", "components", "score", "marginals")
    if isinstance(utility, type) or not all(hasattr(utility, name) for name in members):
        raise UserError(
            f"utility must be an object with {', '.join(members)}, got {utility!r:.40}; for "
            "example dcai_ray.KnnAccuracy(x_train, y_train, x_val, y_val)"
        )


def _values_of(
    aggregator: Aggregator,
    *,
    ids: Sequence[str],
    labels: Sequence[str],
    semivalue: str,
    sampler: str,
    confidence: float,
) -> Values:
    """The main semivalue of an aggregator as a table, with one id and one label per point."""
    low, high = aggregator.interval()
    return Values(
        ids=tuple(ids),
        labels=tuple(labels),
        value=aggregator.value[0],
        stderr=aggregator.stderr[0],
        low=low,
        high=high,
        rounds=aggregator.rounds,
        evaluated=aggregator.evaluated,
        decision=aggregator.decisions(),
        semivalue=semivalue,
        sampler=sampler,
        stop=aggregator.stop.describe(),
        confidence=confidence,
        imputed=aggregator.imputed,
        trace=tuple(aggregator.trace),
    )


def _on_ray(
    plan: Plan,
    utility: Utility,
    aggregator: Aggregator,
    num_workers: int | None,
    show: Callable[[Progress], None],
) -> None:
    from dcai_ray.cluster.chains import stream_chains
    from dcai_ray.config import ResourcesConfig

    seen = 0

    def after(_: Any) -> bool:
        nonlocal seen
        if aggregator.next_index > seen:
            seen = aggregator.next_index
            show(aggregator.trace[-1])
        return False

    stream_chains(plan, utility, aggregator, ResourcesConfig(num_workers=num_workers), after)


def read_values(uri: str, as_: Literal["arrow", "pandas", "polars", "ray"] = "arrow") -> Any:
    """The values of a run, a row per training example.

    Args:
        uri: a run's folder, or the Parquet file itself.
        as_: what to return: a pyarrow table, a DataFrame of pandas or polars, or a dataset of Ray.
    Raises:
        OSError: there are none.
        UserError: the file is damaged, or the package of `as_` is not installed.
    """
    location = Location(uri)
    if location.is_folder():
        location = RunDirectory(location).values
    return _as(parquet.read_table(location), as_)


def _as(table: pa.Table, kind: str) -> Any:
    if kind == "arrow":
        return table
    if kind not in ("pandas", "polars", "ray"):
        raise UserError(f"as_ must be arrow, pandas, polars or ray, got {kind!r}")
    if find_spec(kind) is None:
        raise UserError(f"as_={kind!r} needs {kind}: pip install {kind}; or use arrow")
    if kind == "pandas":
        return table.to_pandas()
    if kind == "polars":
        return import_module("polars").from_arrow(table)
    from dcai_ray.cluster.datasets import dataset_of

    return dataset_of(table)


def read_features(uri: str, split: str = "train") -> Features:
    """The features of one split: ids, labels and x (k, d) float32.

    Args:
        uri: a run's folder, the folder of its features, or that of one split.
        split: train, shapley_val or val; not used for the folder of one split.
    Raises:
        UserError: the set is incomplete or damaged; the message names the file.
    """
    location = Location(uri)
    for folder in (location / "features" / split, location / split):
        if folder.is_folder():
            return read_split(folder)
    return read_split(location)
