"""The tables of detection.py, one per question: labels as given first, then noise on purpose."""

from collections.abc import Iterable, Sequence

import numpy as np
from cleaning_gains import ALONE
from detection_findings import UNKNOWN, Column, Findings, Measured
from detection_measures import BINS, mean_and_error
from detection_sets import AS_GIVEN, NOISE, RATIOS
from detectors import AUDIT, OURS
from rivals import LIMIT

_MARGIN = 0.005
_MEASURES = {"AUC": "AUC", "AP": "average precision", "P": "precision of as many as are wrong"}


def tables(measured: Sequence[Measured]) -> str:
    """All tables, as Markdown."""
    found = Findings(measured)
    sets = found.sets
    given, made = found.columns(sets, (AS_GIVEN,)), found.columns(sets, (*NOISE, *RATIOS))
    groups = [
        (f"{s}, {title}", columns)
        for s in sets
        for title, kinds in (
            ("noise made on the true labels", NOISE),
            ("class ratios, 15% flips", [kind for kind in RATIOS if "right" not in kind]),
            ("class ratios, all labels right", [kind for kind in RATIOS if "right" in kind]),
        )
        if (columns := found.columns((s,), kinds))
    ]
    parts = ["# Finding wrong labels", _about(found)]
    for question, title in (
        ("clean", "Which labels are wrong, with a clean set"),
        ("audit", "Which labels are wrong, without a clean set"),
    ):
        parts.append(_ranking(found, question, f"{title}: labels as given", given))
        parts += [_ranking(found, question, f"{title}: {name}", each) for name, each in groups]
    parts += [
        _calibration(found, given + made),
        _reliability(found, given, made),
        _estimates(found, given + made),
        _dropping(found, given + made),
        _rare(found, made),
    ]
    parts += [_gains(found, column) for column in given]
    parts += [_gains_by_kind(found, name, columns) for name, columns in groups]
    parts.append(_failures(found))
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(found: Findings) -> str:
    seeds = len({each.seed for each in found.all})
    rows = []
    for s in found.sets:
        first = next(each for each in found.all if each.column[0] == s)
        rows.append([s, *map(str, first.sizes)])
    return (
        "A seed redraws the noise, and which clean images are shapley_val and which val; number of "
        f"seeds: {seeds}. Figures are means over seeds, ± is the standard error of a paired "
        "difference. Labels as given have one training set for all seeds: what another would "
        "change is not in that error. **Bold**: a rival that is better than ours by more than "
        f"{_MARGIN}, or measured where ours was refused. (limit): knows the true labels. "
        "The product's settings, the probes' penalties and AUM's learning rate and epochs were "
        "chosen on development sets with known errors: only other sets are an independent "
        "test.\n\n" + _table(("set", "train", "clean", "val", "features", "classes"), rows)
    )


def _ranking(found: Findings, question: str, title: str, columns: Sequence[Column]) -> str:
    """How well each method's scores find wrong labels."""
    columns = [column for column in columns if found.methods([column], question)]
    methods = sorted(found.methods(columns, question), key=lambda method: method == LIMIT)
    best = ("probability", "suspicion", "value")
    usual = [f"{OURS} {name}" for name in best if f"{OURS} {name}" in methods]
    if not columns or not usual:
        return ""
    measures = ("AUC", "AP", "P") if columns[0][1] == AS_GIVEN else ("AUC", "AP")

    def cell(column: Column, method: str) -> str:
        figures = []
        for measure in measures:
            figure = found.mean(column, question, method, measure)
            ours = found.mean(column, question, usual[0], measure)
            figures.append(_marked(figure, ours if _is_rival(method) else np.inf))
        return " / ".join(figures)

    rows = [[_named(method), *(cell(column, method) for column in columns)] for method in methods]
    about = f"{' / '.join(_MEASURES[measure] for measure in measures)}; ours is {usual[0]}."
    return _section(title, about, ("method", *_heads(columns)), rows)


def _calibration(found: Findings, columns: Sequence[Column]) -> str:
    """Brier scores."""
    rows = [
        [
            *column,
            method,
            _number(found.mean(column, "calibration", method, "Brier")),
            _number(found.mean(column, "calibration", method, "base")),
        ]
        for column in columns
        for method in found.methods([column], "calibration")
    ]
    head = ("set", "noise", "method", "Brier score", "of the true share for every image")
    return _section("Is the probability of a wrong label calibrated?", "", head, rows)


def _reliability(found: Findings, given: Sequence[Column], made: Sequence[Column]) -> str:
    """Mean probability and share of wrong labels, by bins of the probability."""
    groups = [(column, [column]) for column in given]
    for s in found.sets:
        groups.append(((s, "all made"), [column for column in made if column[0] == s]))
    rows = []
    for head, columns in groups:
        for method in found.methods(columns, "reliability"):
            cells = []
            for i in range(BINS):
                images, sums, wrong = (
                    np.nansum(
                        [
                            found.over_seeds(column, "reliability", method, f"{part} {i}")
                            for column in columns
                        ]
                    )
                    for part in ("images", "sum", "wrong")
                )
                seen = f"{sums / images:.2f} → {wrong / images:.2f} ({images:.0f})"
                cells.append(seen if images else UNKNOWN)
            rows.append([*head, method, *cells])
    edges = [f"{i / BINS:.1f} to {(i + 1) / BINS:.1f}" for i in range(BINS)]
    about = "Mean probability → share of wrong labels (images of all seeds), by probability."
    head_row = ("set", "noise", "method", *edges)
    return _section("How often is a label wrong at a given probability?", about, head_row, rows)


def _estimates(found: Findings, columns: Sequence[Column]) -> str:
    """What the product says of its own list, beside the truth."""
    truths = {"recall": "recall", "false_alarms": "right dropped", "share": "wrong"}
    rows = []
    for column in columns:
        for method in found.methods([column], "planted"):
            cells = []
            for name, truth in truths.items():
                low, high = (
                    found.over_seeds(column, "planted", method, f"{name}_{end}")
                    for end in ("low", "high")
                )
                actual = found.over_seeds(column, "dropping", method, truth)
                inside = np.mean([a <= b <= c for a, b, c in zip(low, actual, high, strict=True)])
                span = f" ({np.mean(low):.3f} to {np.mean(high):.3f}, right in {inside:.0%})"
                estimate = _number(found.mean(column, "planted", method, name))
                cells.append(estimate + ("" if np.isnan(low + high + actual).any() else span))
                cells.append(_number(mean_and_error(actual)[0]))
            rows.append([*column, method, *cells])
    head = (
        *("set", "noise", "method", "wrong labels caught, estimate", "truth"),
        *("right labels dropped, estimate", "truth", "wrong labels, estimate", "truth"),
    )
    about = (
        "Shares of the wrong labels, of the right ones and of all images; in brackets the interval "
        "and how often, over seeds, it holds the truth."
    )
    return _section("Does it know how many wrong labels it finds?", about, head, rows)


def _dropping(found: Findings, columns: Sequence[Column]) -> str:
    """What is dropped."""
    measures = ("wrong", "dropped", "precision", "recall", "right dropped", "suggestion right")
    rows = [
        [
            *column,
            method,
            *(_number(found.mean(column, "dropping", method, measure)) for measure in measures),
        ]
        for column in columns
        for method in found.methods([column], "dropping")
    ]
    head = (
        *("set", "noise", "method", "wrong", "dropped", "of these wrong"),
        *("wrong labels caught", "right labels dropped", "their suggested label right"),
    )
    about = (
        "Shares: of all images; of the dropped; of the wrong labels; of the right; of the caught."
    )
    return _section("What is dropped, and how much of it is right?", about, head, rows)


def _rare(found: Findings, columns: Sequence[Column]) -> str:
    """What is dropped of thinned classes and of the others."""
    measures = [f"{m}, {c}" for m in ("right dropped", "recall") for c in ("rare", "common")]
    rows = []
    for column in columns:
        for method in found.methods([column], "dropping"):
            figures = [found.mean(column, "dropping", method, measure) for measure in measures]
            if not np.isnan(figures).all():
                rows.append([*column, method, *map(_number, figures)])
    head = (
        *("set", "noise", "method", "right dropped, rare", "right dropped, common"),
        *("wrong caught, rare", "wrong caught, common"),
    )
    about = "Shares of the images whose given label is a thinned class, or one of the others."
    return _section("Who pays: rare or common classes?", about, head, rows)


def _gains(found: Findings, column: Column) -> str:
    """The accuracy of every training set of a case."""
    rows = []
    for arm in found.methods([column], "cleaning"):
        key, own = ("cleaning", arm, "accuracy"), ("cleaning", _ours_beside(arm), "accuracy")
        rows.append(
            [
                _named(arm),
                f"{found.mean(column, 'cleaning', arm, 'images'):.0f}",
                _accuracy(found, column, arm),
                found.gap(column, key, ("cleaning", "all", "accuracy")),
                "" if arm == _ours_beside(arm) else found.gap(column, key, own),
            ]
        )
    head = ("training set", "images", "accuracy on val", "minus all", "minus ours")
    return _section(f"What does cleaning gain: {column[0]}, labels as given", _GAINS, head, rows)


def _gains_by_kind(found: Findings, title: str, columns: Sequence[Column]) -> str:
    """The accuracy of every training set, by kind of noise."""

    def cell(column: Column, arm: str) -> str:
        own = _ours_beside(arm)
        text = _accuracy(found, column, arm)
        if arm == own:
            return text
        gap = found.gap(column, ("cleaning", arm, "accuracy"), ("cleaning", own, "accuracy"))
        return f"{text} ({gap})"

    arms = found.methods(columns, "cleaning")
    rows = [[_named(arm), *(cell(column, arm) for column in columns)] for arm in arms]
    about = f"{_GAINS} In brackets: minus ours."
    return _section(f"What does cleaning gain: {title}", about, ("set", *_heads(columns)), rows)


_GAINS = (
    "A logistic probe (C = .01, standardized features) scored on val. Training sets with the clean "
    f"images (+ clean) are compared with {OURS} + clean, those of methods without a clean set with "
    f"{AUDIT}."
)


def _accuracy(found: Findings, column: Column, arm: str) -> str:
    figure = found.mean(column, "cleaning", arm, "accuracy")
    own = found.mean(column, "cleaning", _ours_beside(arm), "accuracy")
    return _marked(figure, own if _is_rival(arm) else np.inf)


def _ours_beside(arm: str) -> str:
    """Our training set that an arm is compared with."""
    if arm.endswith(ALONE):
        return AUDIT
    return f"{OURS} + clean" if arm.endswith("+ clean") else OURS


def _failures(found: Findings) -> str:
    rows = [
        [*each.column, str(each.seed), method]
        for each in found.all
        for asked, method, _ in each.figures
        if asked == "failed"
    ]
    return _section("Refused by the command line", "", ("set", "noise", "seed", "method"), rows)


def _is_rival(method: str) -> bool:
    return OURS not in method and AUDIT not in method and method.split(" +")[0] not in _LIMITS


_LIMITS = (LIMIT, "truth")


def _named(method: str) -> str:
    return f"{method} (limit)" if method.split(" +")[0] in _LIMITS else method


def _heads(columns: Sequence[Column]) -> list[str]:
    return [s if kind == AS_GIVEN else kind for s, kind in columns]


def _number(figure: float) -> str:
    return UNKNOWN if np.isnan(figure) else f"{figure:.3f}"


def _marked(figure: float, ours: float) -> str:
    """Bold if it is better than ours, or if there is none of ours."""
    wins = not np.isnan(figure) and not figure <= ours + _MARGIN
    return f"**{_number(figure)}**" if wins else _number(figure)


def _section(title: str, about: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A heading with a table; empty without rows."""
    if not rows:
        return ""
    return "\n\n".join(part for part in (f"## {title}", about, _table(head, rows)) if part)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
