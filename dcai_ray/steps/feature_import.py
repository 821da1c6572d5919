"""Features and labels among the arrays of a user's file.

    features    the only matrix; in a table without one, all columns of numbers, in their order
    labels      `label`, `labels` or `y`, or else the only other array; or in a file of their own
    ids         `id` or `ids`; without them a row is called `<label>/<its number>`

A row's label is text, so class 3 is called "3". What is shown of a row is found in `rows`.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcai_ray import progress
from dcai_ray.errors import UserError
from dcai_ray.images.listing import SPLITS
from dcai_ray.progress import counted
from dcai_ray.steps.rows import Scaling, lines, row_columns, take_shown, unlike_scales
from dcai_ray.steps.user_files import read_arrays
from dcai_ray.storage.array_files import ONLY
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.valuation.arrays import class_labels, feature_matrix, texts
from dcai_ray.valuation.neighbours import far_points

FORMAT = 1
"""Raise this when a reader gives other features for the same file: imports are then made again."""

_LABELS = ("label", "labels", "y")
_IDS = ("id", "ids")

Arrays = Mapping[str, NDArray[Any]]


def features_among(
    file: Location | str, arrays: Arrays, labels: tuple[Location, Arrays] | None = None
) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """Ids, labels and features (k, d), in the order of the rows.

    Args:
        file: what messages call it.
        arrays: the arrays of the file.
        labels: a file of labels and its arrays; they are matched by id where both have ids, or else
            by their order.
    Raises:
        UserError: an array is missing, ambiguous, damaged or of another length.
    """
    rest = dict(arrays)
    ids = _named(file, rest, _IDS)
    own = _named(file, rest, _LABELS)
    matrices = [name for name, array in rest.items() if array.ndim == 2]
    if labels is not None:
        own = None
    elif own is None and len(matrices) == 1:
        own = _only_other(rest)
    if own is None and labels is None:
        raise UserError(
            f"{file}: no labels among {_shapes(arrays)}; call them label, or give --labels FILE"
        )
    x = _features(file, rest, matrices)
    names = None if ids is None else _unique(file, texts(f"{file}: ids", ids, len(x)))
    y = _own_labels(file, own, len(x)) if labels is None else _labels_of(*labels, names, len(x))
    return names or [f"{label}/{row:06d}" for row, label in enumerate(y)], y, x


def read_feature_file(
    file: Location, labels: Location | None = None
) -> tuple[list[str], list[str], NDArray[np.float32], str]:
    """Ids, labels and features (k, d) of a user's file, and the SHA-256 of what was read.

    Args:
        file: the features, with labels unless these have a file of their own.
        labels: that file, or None.
    Raises:
        UserError: as `read_arrays` or `features_among`.
        OSError: a file cannot be read.
    """
    arrays, digest = read_arrays(file)
    if labels is None:
        return (*features_among(file, arrays), digest)
    further, of_labels = read_arrays(labels)
    return (*features_among(file, arrays, (labels, further)), f"{digest} {of_labels}")


def import_features(
    file: Location,
    labels: Location | None,
    folder: Location,
    backbone: str,
    *,
    show: Sequence[str] = (),
    standardize: bool = False,
) -> tuple[int, ...]:
    """Write the features of a user's file as a split of a run; returns their number and width.

    Args:
        file: as in `read_feature_file`, like `labels`.
        labels: a file or None.
        folder: the folder of the split.
        backbone: name of the network that computed the features.
        show: columns that a reader is shown of each row; by default all of a table of numbers.
        standardize: give every column the mean 0 and standard deviation 1 of train, which must be
            imported first.
    Raises:
        UserError, OSError: as `read_feature_file`; or the columns to show or the scales of train
            are missing.
    """
    arrays, digest = read_arrays(file)
    arrays, shown = take_shown(file, arrays, show, (*_LABELS, *_IDS))
    columns = row_columns(arrays, (*_LABELS, *_IDS))
    of_labels = None
    if labels is not None:
        further, digest_of_labels = read_arrays(labels)
        of_labels, digest = (labels, further), f"{digest} {digest_of_labels}"
    ids, y, x = features_among(file, arrays, of_labels)
    if not show:
        shown = lines({name: arrays[name] for name in columns})
    oddities = oddities_of(ids, x)
    if columns and not standardize and (unlike := unlike_scales(columns, x)):
        oddities.append(unlike)
    if oddities:
        progress.warn(f"{file}: {'; '.join(oddities)}")
    notes = {"backbone": backbone, "source_sha256": digest}
    made_of = ["imported", FORMAT, backbone, digest]
    if standardize:
        is_train = folder.name == "train"
        scaling = Scaling.of(x) if is_train else Scaling.of_train(folder.parent / "train")
        x = scaling.apply(file, x)
        notes |= {"backbone": f"{backbone}, {scaling.name}", "scaling": scaling.as_note()}
        made_of.append(scaling.name)
    if shown:  # other files keep the fingerprints that they had before rows were shown
        made_of += ["shown", new_fingerprint(shown)]
    write_split(folder, ids, y, x, notes, new_fingerprint(*made_of), shown=shown)
    return x.shape


def write_features(
    data: Any, folder: str, *, split: str, backbone: str = "imported"
) -> tuple[int, int]:
    """Write features that are at hand as a split of a run; returns their number and width.

    `dcai-ray value --features FOLDER` and the steps after it read them.

    Args:
        data: columns by name: a mapping, a data frame, an Arrow table, or a `ray.data.Dataset`,
            which must have ids, as its rows come in no order. They are called as in files: `label`,
            `id` unless the rows have none, and the features, a column of (d,) arrays or all
            columns of numbers.
        folder: path or URI that collects the splits.
        split: train, shapley_val or val.
        backbone: name of the network that computed the features.
    Raises:
        UserError: the split is unknown, or the columns make no sense.
    """
    if split not in SPLITS:
        raise UserError(f"split must be {', '.join(SPLITS)}, got {split!r}")
    name = f"{split} features"
    arrays = _columns_of(data)
    if hasattr(data, "iter_batches") and not set(_IDS) & set(arrays):
        raise UserError("a dataset of ray.data has rows in no order: give it a column id")
    ids, y, x = features_among(name, arrays)
    if hasattr(data, "iter_batches"):
        order = sorted(range(len(ids)), key=ids.__getitem__)
        ids, y, x = [ids[i] for i in order], [y[i] for i in order], x[order]
    if oddities := oddities_of(ids, x):
        progress.warn(f"{name}: {'; '.join(oddities)}")
    digest = new_fingerprint(ids, y, hashlib.sha256(x.tobytes()).hexdigest(), x.shape)
    notes = {"backbone": backbone, "source_sha256": digest}
    target = Location(folder) / split
    write_split(target, ids, y, x, notes, new_fingerprint("imported", FORMAT, backbone, digest))
    return x.shape[0], x.shape[1]


def _columns_of(data: Any) -> dict[str, NDArray[Any]]:
    """The columns of a table of any kind as arrays."""
    if hasattr(data, "iter_batches"):  # ray.data
        batches = list(data.iter_batches(batch_format="numpy", batch_size=None))
        if not batches:
            raise UserError("the dataset of ray.data has no rows")
        return {str(n): np.concatenate([_stacked(b[n]) for b in batches]) for n in batches[0]}
    if hasattr(data, "to_pydict"):  # Arrow
        data = data.to_pydict()
    try:
        return {str(name): _stacked(data[name]) for name in data}
    except (TypeError, KeyError, IndexError):
        raise UserError(
            "features must come as columns by name (a mapping, data frame, Arrow table or "
            f"ray.data.Dataset), got {type(data).__name__}"
        ) from None


def _stacked(column: Any) -> NDArray[Any]:
    """A column as an array; one of arrays or lists becomes a matrix."""
    entries = column if isinstance(column, np.ndarray) else np.asarray(list(column), dtype=object)
    if entries.dtype != object:
        return entries
    if entries.ndim > 1:  # lists of one length
        return np.array(entries.tolist())
    return np.array(list(entries))


def oddities_of(ids: list[str], x: NDArray[np.float32]) -> list[str]:
    """What may be a mistake in features (k, d): sentinels, constant and repeated columns."""
    found = []
    far = far_points(x)
    if len(far):
        found.append(f"{counted(len(far), 'rows')} far from all others (first {ids[far[0]]})")
    is_constant = (x == x[0]).all(axis=0)
    if is_constant.any() and len(x) > 1:
        found.append(f"{counted(int(is_constant.sum()), 'columns')} constant")
    columns = np.ascontiguousarray(x[:, ~is_constant].T)
    repeated = len(columns) - len({column.tobytes() for column in columns})
    if repeated:
        found.append(f"{counted(repeated, 'columns')} equal to another")
    return found


def _named(
    file: Location | str, rest: dict[str, NDArray[Any]], names: tuple[str, ...]
) -> NDArray[Any] | None:
    """The array of one of these names, taken out of the rest."""
    there = [name for name in names if name in rest]
    if len(there) > 1:
        raise UserError(f"{file}: has both {there[0]!r} and {there[1]!r}; leave one out")
    return rest.pop(there[0]) if there else None


def _only_other(rest: dict[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The only array with one entry per row, as in a pickle that calls its labels `target_all`."""
    others = [name for name, a in rest.items() if a.ndim == 1 and a.dtype.kind in "biufSUO"]
    return rest.pop(others[0]) if len(others) == 1 else None


def _features(
    file: Location | str, rest: dict[str, NDArray[Any]], matrices: list[str]
) -> NDArray[np.float32]:
    if ONLY in rest:
        x = rest[ONLY]
    elif not matrices and rest and all(array.ndim == 1 for array in rest.values()):
        for name, array in rest.items():
            if not name or name.startswith("Unnamed:"):
                raise UserError(
                    f"{file}: a column without a name, perhaps an index; write the table without "
                    "it (pandas: index=False)"
                )
            if array.dtype.kind not in "biuf":
                raise UserError(
                    f"{file}: column {name!r} does not hold numbers; show it with --show "
                    f"{name}, leave it out, or call it id or label"
                )
        x = np.stack([array.astype(np.float64) for array in rest.values()], axis=1)
    elif len(matrices) == 1 and len(rest) == 1:
        x = rest[matrices[0]]
    else:
        raise UserError(
            f"{file}: expected one (k, d) array of features and one (k,) array of labels, "
            f"got {_shapes(rest)}"
        )
    feature_matrix(f"{file}: features", x)  # before the cast, which turns 1e300 into infinity
    with np.errstate(over="ignore"):
        return feature_matrix(f"{file}: features as float32", x.astype(np.float32)).astype(
            np.float32, copy=False
        )


def _own_labels(file: Location | str, labels: NDArray[Any] | None, count: int) -> list[str]:
    y = class_labels(f"{file}: labels", labels)
    if labels is not None and labels.dtype.kind == "b":
        y = labels.astype(str)  # classes called True and False rather than 1 and 0
    if len(y) != count:
        raise UserError(f"{file}: {count} rows of features, but {len(y)} labels")
    named = [str(label) for label in y.tolist()]
    if "" in named:
        raise UserError(f"{file}: labels: row {named.index('')} has an empty one")
    try:
        "".join(named).encode()  # NumPy's strings may hold lone surrogates, which no file can
    except UnicodeError as error:
        raise UserError(f"{file}: labels must be UTF-8 ({error})") from None
    return named


def _labels_of(
    file: Location | str, arrays: Arrays, ids: list[str] | None, count: int
) -> list[str]:
    """The labels of a file of their own, for rows with these ids or in this order."""
    rest = dict(arrays)
    there = _named(file, rest, _IDS)
    labels = _named(file, rest, _LABELS)
    labels = _only_other(rest) if labels is None else labels
    if labels is None:
        raise UserError(f"{file}: no labels among {_shapes(arrays)}; call them label")
    if there is None or ids is None:
        return _own_labels(file, labels, count)
    names = _unique(file, texts(f"{file}: ids", there, len(labels)))
    label = dict(zip(names, _own_labels(file, labels, len(names)), strict=True))
    missing = [name for name in ids if name not in label]
    if missing:
        raise UserError(
            f"{file}: no label for {len(missing)} of {count} ids, the first {missing[0]}"
        )
    return [label[name] for name in ids]


def _unique(file: Location | str, ids: list[str]) -> list[str]:
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{file}: {len(twice)} ids occur more than once, the first {twice[0]}")
    return ids


def _shapes(arrays: Arrays) -> str:
    shown = [f"{name} {array.dtype} {array.shape}" for name, array in arrays.items()]
    return ", ".join(shown[:6] + ["..."] * (len(shown) > 6)) or "nothing"
