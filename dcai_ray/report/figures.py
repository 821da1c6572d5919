"""The plots of the report: arrays in, an SVG picture as data URI out.

The same input gives the same bytes: matplotlib's defaults rather than the user's, no date, fixed
ids. Text is drawn as outlines, so that a picture looks the same everywhere. matplotlib is imported
when the first plot is drawn, so the command line starts without it.
"""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.arms import ARMS
from dcai_ray.cleaning.evaluation import Detection
from dcai_ray.valuation.removal import HIGHEST, LOWEST, RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, distinguishable with any colour vision; the same in tables and plots.
COLOURS = {
    "all": "#333333",
    "kept": "#0072b2",
    "relabelled": "#56b4e9",
    "reviewed": "#d55e00",
    "random": "#8a8a8a",
    "clean": "#e69f00",
    "kept+clean": "#009e73",
    "truth": "#cc79a7",
}
RIGHT, WRONG, UNKNOWN = "#0072b2", "#d55e00", "#9a9a9a"
_DASHES = {
    "all": "-",
    "kept": "-",
    "relabelled": "-.",
    "reviewed": "-",
    "random": "--",
    "clean": ":",
    "kept+clean": "-.",
    "truth": ":",
}
_BINS = 60
_STYLE = {
    "svg.hashsalt": "dcai_ray",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "legend.frameon": False,
    "axes.formatter.limits": (-3, 4),
}


def histogram(
    groups: Mapping[str, NDArray[np.float64]],
    cut: float | None,
    players: str = "images",
    unit: str = "accuracy on the validation set",
) -> str:
    """The distribution of the values, stacked by group; the outer bars hold the outermost 0.1 %.

    Args:
        groups: values by name; `wrong label`, `dropped`, `flagged` and `unknown` have colours.
        cut: the cut-off above which images are kept; None if there is no single one.
        players: what is valued, in the plural.
        unit: unit of the values.
    """
    everything = np.concatenate(list(groups.values()))
    low, high = np.quantile(everything, [0.001, 0.999])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = _edges(low, high, low if cut is None else cut)

    def draw(axes: "Axes") -> None:
        bottom = np.zeros(len(edges) - 1)
        for name, value in groups.items():
            heights, _ = np.histogram(value.clip(edges[0], edges[-1]), edges)
            axes.bar(
                edges[:-1], heights, np.diff(edges), bottom, align="edge", label=_plain(name),
                color=_group_colour(name), edgecolor="white", linewidth=0.3,
            )  # fmt: skip
            bottom += heights
        if cut is not None and low <= cut <= high:
            axes.axvline(cut, color="black", linewidth=1.2, linestyle="--", label="cut-off")
        axes.set(xlabel=f"value (in {unit})", ylabel=f"training {players}")
        axes.grid(axis="x", visible=False)
        axes.legend()

    return _picture(draw)


def learning_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy on val by epoch for one backbone: a thin line per seed, a thick one for the mean.

    Args:
        rows: rows of metrics.parquet of one backbone and split val.
    """
    from matplotlib.ticker import MaxNLocator

    def draw(axes: "Axes") -> None:
        for arm in (name for name in ARMS if any(row["arm"] == name for row in rows)):
            colour, dash = COLOURS[arm], _DASHES[arm]
            seeds = sorted({row["seed"] for row in rows if row["arm"] == arm})
            by_epoch: dict[int, list[float]] = {}
            for seed in seeds:
                mine = sorted(
                    (row["epoch"], row["accuracy"])
                    for row in rows
                    if row["arm"] == arm and row["seed"] == seed
                )
                for epoch, accuracy in mine:
                    by_epoch.setdefault(epoch, []).append(accuracy)
                if len(seeds) > 1:
                    axes.plot(*zip(*mine, strict=True), color=colour, linewidth=0.6, alpha=0.45)
            epochs = sorted(by_epoch)
            mean = [float(np.mean(by_epoch[epoch])) for epoch in epochs]
            axes.plot(
                epochs, mean, dash, color=colour, linewidth=2.4 if arm == "kept" else 1.6,
                label=arm, marker="o", markersize=3.5 if len(epochs) < 8 else 0,
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel="accuracy on val")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside lower center", ncols=6, handlelength=2.4, columnspacing=1.2)

    return _picture(draw)


def roc(found: Detection, num_right: int, sign: str, dropped: str) -> str:
    """The ROC curve of a sign of wrong labels, with the rule marked on it.

    Args:
        found: the curve and the counts of the rule.
        num_right: number of images whose label is known to be right; at least one.
        sign: the sign in words, such as "low value".
        dropped: the word for what the rule drops.
    """

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--", label="chance")
        axes.plot(
            found.false_positive_rate, found.true_positive_rate, color=COLOURS["kept"],
            linewidth=2, label=f"{sign} (AUC {found.auc:.3f})",
        )  # fmt: skip
        axes.plot(
            (found.dropped - found.dropped_wrong) / num_right, found.recall, "o", color=WRONG,
            markersize=8, label=f"{dropped} by the rule",
        )  # fmt: skip
        axes.set(
            xlabel=f"share of right labels {dropped}", ylabel=f"share of wrong labels {dropped}",
            xlim=(-0.01, 1.01), ylim=(-0.01, 1.01),
        )  # fmt: skip
        axes.legend(loc="lower right")

    return _picture(draw)


def share_losses(log_loss: Mapping[float, float | None], chosen: float) -> str:
    """Log loss on shapley_val by the share dropped, with the chosen share marked.

    Args:
        log_loss: log loss by share, in nats; None where that share would empty a class.
        chosen: the chosen share.
    """
    pairs = sorted(log_loss.items())
    shares = [100 * share for share, _ in pairs]
    losses = [float("nan") if loss is None else loss for _, loss in pairs]

    def draw(axes: "Axes") -> None:
        axes.plot(shares, losses, color=COLOURS["kept"], linewidth=1.8, marker="o", markersize=3.5)
        for share, loss in zip(shares, losses, strict=True):
            if abs(share - 100 * chosen) < 1e-6:
                axes.plot(
                    share, loss, "o", color=WRONG, markersize=9, label=f"chosen: {share:.0f} %"
                )
        axes.set(xlabel="dropped (%)", ylabel="log loss on shapley_val (nats)")
        axes.set_xlim(-2, max(shares) + 2)
        axes.legend()

    return _picture(draw)


def removals(rows: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy on val by the share removed, a line per order.

    Args:
        rows: as `schemas.REMOVAL`.
    """
    styles = {
        LOWEST: (COLOURS["kept"], "-"),
        HIGHEST: (WRONG, "--"),
        RANDOM: ("#888888", ":"),
    }

    def draw(axes: "Axes") -> None:
        for order in dict.fromkeys(row["order"] for row in rows):
            mine = [row for row in rows if row["order"] == order]
            colour, dash = styles.get(order, (COLOURS["kept+clean"], "-."))
            axes.plot(
                [100 * row["share"] for row in mine], [row["accuracy"] for row in mine], dash,
                color=colour, linewidth=1.8, label=f"{order} first" if order != RANDOM else order,
            )  # fmt: skip
        axes.set(xlabel="removed (%)", ylabel="accuracy on val", xlim=(-2, 97))
        axes.legend(loc="lower left")

    return _picture(draw)


def convergence(trace: Sequence[Mapping[str, Any]]) -> str:
    """Convergence of a sampling: share of the images decided and largest standard error over time.

    Args:
        trace: rows as `schemas.TRACE`.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = [row for row in trace if row["seconds"] is not None]
    seconds = [row["seconds"] for row in rows]

    def draw(above: "Axes", below: "Axes") -> None:
        settled = [100 * row["settled"] for row in rows]
        above.plot(seconds, settled, color=COLOURS["kept"], linewidth=1.8, marker=".")
        above.set(ylabel="decided (%)", ylim=(-3, 103))
        errors = [row["max_stderr"] for row in rows]
        below.plot(seconds, errors, color=COLOURS["kept"], linewidth=1.8, marker=".")
        below.set(xlabel="seconds", ylabel="largest\nstandard error", yscale="log")
        plain = FuncFormatter(lambda error, _: f"{error:g}")  # formulas take half a plot's time
        low, high = below.get_ylim()
        below.yaxis.set_major_formatter(plain)
        below.yaxis.set_minor_formatter(plain if high < 10 * low else NullFormatter())

    return _picture(draw, panels=2)


def _picture(draw: Callable[..., None], panels: int = 1) -> str:
    """A figure, 5.6 x 3.3 inches, as SVG in a data URI; `panels` plots one above the other."""
    import matplotlib.style
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(5.6, 3.3), layout="constrained")
        draw(*figure.subplots(panels, sharex=True, squeeze=False)[:, 0])
        figure.savefig(content, format="svg", metadata={"Date": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(content.getvalue()).decode()


def _edges(low: float, high: float, at: float) -> NDArray[np.float64]:
    """Edges of bins from low to high; one edge is `at`, so that no bar spans a cut-off."""
    width = (high - low) / _BINS
    first, last = math.floor((low - at) / width), math.ceil((high - at) / width)
    return np.asarray(at + width * np.arange(first, last + 1), dtype=np.float64)


def _group_colour(name: str) -> str:
    return {"wrong label": WRONG, "dropped": WRONG, "flagged": WRONG, "unknown": UNKNOWN}.get(
        name, RIGHT
    )


def _plain(text: str) -> str:
    """The text, escaped so that matplotlib does not read it as a formula."""
    return text.replace("$", r"\$")
