"""Features and labels in, decisions out, for notebooks: the steps of a run in one call.

found = dcai_ray.clean(x, labels, clean=(x_checked, labels_checked))
found.to_pandas().head(10)            # the most suspicious first
x[found.kept], labels[found.kept]
found.report()                        # a page; found.run is a folder that every command takes
"""

import html
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from dcai_ray.config import parse_config
from dcai_ray.errors import UserError
from dcai_ray.report.findings import read_findings
from dcai_ray.report.page import write_report
from dcai_ray.report.suspect_list import write_suspects
from dcai_ray.report.terminal import summary
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.feature_import import write_features
from dcai_ray.storage.location import Location
from dcai_ray.valuation.arrays import class_labels, feature_matrix, texts

_SHOWN = 10  # rows in a notebook
_COLUMNS = ("id", "label", "suggested_label", "wrong_probability", "value", "decision", "reason")


@dataclass(frozen=True, slots=True, eq=False)
class Cleaned:
    """What is known of n training examples, in their order."""

    run: str
    """The run's folder: `dcai-ray review`, `report`, `value --rule` and others take it."""
    table: pa.Table
    """values.parquet: a row an example, in the order in which they were given."""
    _temporary: Any = field(repr=False, default=None)

    @property
    def value(self) -> NDArray[np.float64]:
        """(n,) Shapley values, in units of accuracy."""
        return np.asarray(self.table["value"].to_numpy())

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(n,) whether an example is kept, or undecided."""
        return np.array(self.table["decision"].to_pylist()) != "drop"

    @property
    def decision(self) -> NDArray[np.str_]:
        """(n,) keep, drop or undecided."""
        return np.array(self.table["decision"].to_pylist())

    @property
    def suggested_label(self) -> NDArray[np.object_]:
        """(n,) the likeliest class of each, as text."""
        return np.array(self.table["suggested_label"].to_pylist(), dtype=object)

    @property
    def wrong_probability(self) -> NDArray[np.float64] | None:
        """(n,) P(label is wrong); None without at least 30 clean examples."""
        if "wrong_probability" not in self.table.column_names:
            return None
        return np.asarray(self.table["wrong_probability"].to_numpy())

    def suspects(self) -> pa.Table:
        """The table, the most suspicious first."""
        found = read_findings(RunDirectory(Location(self.run)))
        assert found.ranking is not None
        return self.table.take(found.ranking.order)

    def summary(self) -> str:
        """The verdict, the warnings, and how far to trust the list."""
        lines = summary(read_findings(RunDirectory(Location(self.run))))
        return "\n".join(line for line in lines if not line.startswith("report: "))

    def report(self) -> str:
        """Write the page and the list of suspects; the path of the page."""
        run = RunDirectory(Location(self.run))
        findings = read_findings(run)
        write_report(findings)
        write_suspects(findings)
        return run.report.uri

    def to_arrow(self) -> pa.Table:
        """The most suspicious first."""
        return self.suspects()

    def to_pandas(self) -> Any:
        """The most suspicious first, as a data frame."""
        return self.suspects().to_pandas()

    def to_polars(self) -> Any:
        """The most suspicious first, as a polars frame."""
        import polars

        return polars.from_arrow(self.suspects())

    def _repr_html_(self) -> str:
        """How many are dropped, and the most suspicious ten."""
        names = [name for name in _COLUMNS if name in self.table.column_names]
        rows = self.suspects().slice(0, _SHOWN).select(names).to_pylist()
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(row[name])}</td>" for name in names) + "</tr>"
            for row in rows
        )
        said = f"{int((~self.kept).sum()):,} of {len(self.table):,} examples dropped"
        return f"<p>{said}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(entry: Any) -> str:
    if entry is None:
        return ""
    return f"{entry:.4g}" if isinstance(entry, float) else html.escape(str(entry))


def clean(
    x: ArrayLike,
    labels: ArrayLike,
    *,
    clean: tuple[ArrayLike, ArrayLike] | None = None,
    ids: Sequence[Any] | None = None,
    run: str | None = None,
    **settings: Any,
) -> Cleaned:
    """Value examples, estimate which labels are wrong, and decide which to drop.

    The computation is that of `dcai-ray value`, by Ray tasks: on the cluster that Ray is connected
    to, or else on this machine.

    Args:
        x: (n, d) features, such as embeddings: arrays, lists, data frames, tensors.
        labels: (n,) whole numbers, booleans or text.
        clean: features (m, d) and labels (m,) that are checked; without, the examples judge each
            other, which finds labels that are wrong at random only.
        ids: (n,) what the examples are called; by default their numbers.
        run: a new folder or URI to keep the results in; by default a temporary one, which lasts as
            long as the result.
        settings: of the section value of a YAML file, such as rule="wrong" or k=20.
    Raises:
        UserError: sizes do not fit, features are not finite, labels are soft or missing, a setting
            is unknown, or the folder holds another run.
    """
    from dcai_ray.steps.pipeline import run_valuation  # here: it loads Ray

    temporary = None if run else tempfile.TemporaryDirectory(prefix="dcai-ray-")
    folder = run or temporary.name  # type: ignore[union-attr]
    directory = RunDirectory(Location(folder))
    if run and directory.values.exists():
        raise UserError(f"{run}: holds the values of another run; give a new folder")
    if clean is None:
        settings = {"validation": "self", **settings}
    config = parse_config({"value": settings}, "clean")
    features = directory.features.uri
    names = _split(features, "train", x, labels, ids)
    if clean is not None:
        if not isinstance(clean, tuple | list) or len(clean) != 2:
            raise UserError("clean must be a pair: features (m, d) and labels (m,)")
        _split(features, "shapley_val", *clean, None)
    run_valuation(directory, config)
    table = directory.read_values()
    assert table["id"].to_pylist() == names
    return Cleaned(run=folder, table=table, _temporary=temporary)


def _split(
    features: str, split: str, x: ArrayLike, labels: ArrayLike, ids: Sequence[Any] | None
) -> list[str]:
    """Write the features of a split; the ids of its rows."""
    what = "x" if split == "train" else "clean[0]"
    matrix = feature_matrix(what, x)
    y = class_labels("labels" if split == "train" else "clean[1]", labels)
    if len(y) != len(matrix):
        raise UserError(f"{what} has {len(matrix)} rows, but there are {len(y)} labels")
    names = [str(i) for i in range(len(y))] if ids is None else texts("ids", ids, len(y))
    columns = {"id": names, "label": np.asarray(y), "features": matrix}
    write_features(columns, features, split=split, backbone="given")
    return names
