"""Training points ranked by distance from validation points, bitwise the same on every machine.

Distances come from one matrix product of centred float64 features. Those that agree to 2^-30 of
their range are ties, broken by the lowest training index, so neither BLAS nor the kind of CPU
decides a rank.

A few points *far* from all others (a sentinel such as 1e6 in one row) count neither for the centre
nor for the range: they would make ties of all other distances. Their cells lie outside of it.
"""

from collections.abc import Iterator
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError

Metric = Literal["euclidean", "cosine"]
ClassWeights = Literal["balanced", "none"]
"""How validation points weigh: each class alike (balanced accuracy), or each point alike."""

# Rounding error does not count as a range, so the range is at least 2^-10 of the largest distance.
_DISTANCE_BITS = 30
_DIGIT_BITS, _DIGITS = 11, 3  # of the radix sort; together more than _DISTANCE_BITS
_MIN_RANGE = 2.0**-10
_BYTES_PER_ENTRY = 12  # of a tile: distance and rank
_FAR = 2.0**10  # times the squared distance from the middle that nine tenths of the points have
_BULK = 0.9
_MIDDLE_ROWS, _ROWS_AT_ONCE = 256, 4096
_LAST_CELL = 2.0**62


def aligned(
    x_train: NDArray[np.floating], x_val: NDArray[np.floating] | None, metric: Metric
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Features whose products rank as the metric does; without `x_val` the training points' own.

    Returns:
        Training (n, d) and validation (m, d) features and offsets (n,): offset - val @ train.T
        orders the training points as the metric does. And (f,) the far training points.
    Raises:
        UserError: for an unknown metric.
    """
    if metric not in ("euclidean", "cosine"):
        raise UserError(f"metric must be euclidean or cosine, got {metric!r}")
    far = far_points(x_train)
    near = np.delete(x_train, far, axis=0) if len(far) else x_train
    centre = near.mean(axis=0, dtype=np.float64)
    train = x_train - centre
    if metric == "euclidean":
        val = train if x_val is None else x_val - centre
    else:
        train = _unit(train)
        val = train if x_val is None else _unit(x_val - centre)
    # Directions have no far points.
    return train, val, offsets(train, metric), far if metric == "euclidean" else far[:0]


def far_points(x: NDArray[np.floating]) -> NDArray[np.intp]:
    """(f,) indices of the points (n, d) that are far from all others; at most a tenth of them."""
    n = len(x)
    rows = np.unique(np.linspace(0, n - 1, min(n, _MIDDLE_ROWS)).astype(np.intp))
    middle = np.median(x[rows].astype(np.float64), axis=0)
    squares = np.empty(n)
    for start in range(0, n, _ROWS_AT_ONCE):
        apart = x[start : start + _ROWS_AT_ONCE] - middle
        squares[start : start + _ROWS_AT_ONCE] = np.einsum("nd,nd->n", apart, apart)
    bulk = np.partition(squares, int(_BULK * (n - 1)))[int(_BULK * (n - 1))]
    return np.flatnonzero(squares > _FAR * bulk) if bulk > 0 else np.arange(0)


def offsets(x: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """(n,) the offsets of aligned points (n, d): what a product is subtracted from."""
    return np.ones(len(x)) if metric == "cosine" else np.einsum("nd,nd->n", x, x) / 2


def distances(
    x: NDArray[np.float64], val: NDArray[np.float64], offset: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(m, n) distances of aligned points (n, d) with their offsets (n,) from others (m, d)."""
    distance = val @ x.T
    return np.subtract(offset, distance, out=distance)


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1, in place; a row of zeros stays."""
    norms = np.sqrt(np.einsum("nd,nd->n", x, x))[:, np.newaxis]
    x /= np.where(norms > 0, norms, 1.0)
    return x


def ranked(
    train: NDArray[np.float64],
    val: NDArray[np.float64],
    offset: NDArray[np.float64],
    left_out: NDArray[np.intp] | None = None,
    far: NDArray[np.intp] | None = None,
) -> NDArray[np.int32]:
    """Training indices by distance from each validation point, nearest first.

    Args:
        train: (n, d), as `offset` from `aligned`.
        val: (m, d) some of the aligned validation points.
        offset: (n,).
        left_out: as in `neighbour_order`, like `far`.
        far: (f,) from `aligned`.
    Returns:
        As `neighbour_order`.
    """
    return neighbour_order(distances(train, val, offset), left_out, far)


def neighbour_order(
    distance: NDArray[np.float64],
    left_out: NDArray[np.intp] | None = None,
    far: NDArray[np.intp] | None = None,
) -> NDArray[np.int32]:
    """Training indices by distance, nearest first, ties by lowest index.

    Args:
        distance: (m, n).
        left_out: (m,) per row one training index that is not ranked; -1 for none.
        far: (f,) training points that do not count for the range of distances.
    Returns:
        (m, n) int32, or (m, n - 1) with `left_out`, where a row with -1 lacks its farthest point.
    """
    num_rows, num_players = distance.shape
    lowest, scale = _grid(distance, far)
    if far is not None and len(far):
        return _order_with_far(_cells(distance, lowest, scale), left_out)
    order = np.empty((num_rows, num_players - (left_out is not None)), dtype=np.int32)
    skipped = np.full(num_rows, -1) if left_out is None else left_out
    _radix_order(distance, lowest, scale, skipped, order)
    return order


def newcomer_places(
    distance: NDArray[np.float64],
    order: NDArray[np.int32],
    newcomer_distance: NDArray[np.float64],
    far: NDArray[np.intp] | None = None,
) -> NDArray[np.int32]:
    """(m, r) how many ranked training points are at least as near as each of r further points.

    A further point comes after those that tie with it, as if it had the highest index; ties are
    those of `neighbour_order`, so no machine moves a point.

    Args:
        distance: (m, n) as ranked.
        order: what `neighbour_order` returned for it.
        newcomer_distance: (m, r), in the same unit.
        far: as it was given to `neighbour_order`.
    """
    lowest, scale = _grid(distance, far)
    places = np.empty(newcomer_distance.shape, dtype=np.int32)
    _search(distance, order, lowest, scale, newcomer_distance, places)
    return places


def _grid(
    distance: NDArray[np.float64], far: NDArray[np.intp] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per row the lowest distance, and cells per unit of distance; of those that are not far."""
    if far is not None and len(far):
        near = np.ones(distance.shape[1], dtype=bool)
        near[far] = False
        lowest = distance.min(axis=1, where=near, initial=np.inf)
        highest = distance.max(axis=1, where=near, initial=-np.inf)
    else:
        lowest, highest = distance.min(axis=1), distance.max(axis=1)
    size = np.maximum(np.abs(lowest), np.abs(highest))
    span = np.maximum(highest - lowest, _MIN_RANGE * size)
    return lowest, 2.0**_DISTANCE_BITS / np.where(span > 0, span, 1.0)


def _cells(
    distance: NDArray[np.float64], lowest: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(m, n) what `_cell` gives, bounded where a point is too far for a whole number."""
    cells = (distance - lowest[:, np.newaxis]) * scale[:, np.newaxis]
    return np.clip(np.floor(cells + 0.5), -_LAST_CELL, _LAST_CELL).astype(np.int64)


def _order_with_far(
    cells: NDArray[np.int64], left_out: NDArray[np.intp] | None
) -> NDArray[np.int32]:
    """`neighbour_order` for cells that need more digits than the radix sort has."""
    order = np.argsort(cells, axis=1, kind="stable").astype(np.int32)
    if left_out is None:
        return order
    skipped = np.where(left_out < 0, order[:, -1], left_out)
    kept = order != skipped[:, np.newaxis]
    return order[kept].reshape(len(order), -1)


@numba.njit(cache=True, nogil=True)
def _cell(distance, lowest, scale):  # type: ignore[no-untyped-def]
    """Rounded to nearest: truncation would separate equal distances at a cell's border."""
    return np.int64(np.floor((distance - lowest) * scale + 0.5))


@numba.njit(cache=True, nogil=True)
def _bounded_cell(distance, lowest, scale):  # type: ignore[no-untyped-def]
    """As `_cells`."""
    cell = np.floor((distance - lowest) * scale + 0.5)
    return np.int64(min(max(cell, -_LAST_CELL), _LAST_CELL))


@numba.njit(cache=True, nogil=True)
def _search(distance, order, lowest, scale, newcomer_distance, places):  # type: ignore[no-untyped-def]
    """Fill `places` by binary search in the order of each row."""
    for row in range(order.shape[0]):
        for newcomer in range(newcomer_distance.shape[1]):
            own = _bounded_cell(newcomer_distance[row, newcomer], lowest[row], scale[row])
            low, high = 0, order.shape[1]
            while low < high:
                middle = (low + high) // 2
                ranked = distance[row, order[row, middle]]
                if _bounded_cell(ranked, lowest[row], scale[row]) <= own:
                    low = middle + 1
                else:
                    high = middle
            places[row, newcomer] = low


@numba.njit(cache=True, nogil=True)
def _radix_order(distance, lowest, scale, skipped, order):  # type: ignore[no-untyped-def]
    """Fill `order` (m, n or n - 1): each row's distances, rounded to whole numbers, are sorted
    digit by digit from the last, which keeps the order of equals: several times faster than
    argsort, which does not."""
    num_players = distance.shape[1]
    base = 1 << _DIGIT_BITS
    keys, sorted_keys = np.empty(num_players, np.int64), np.empty(num_players, np.int64)
    ends = np.empty((_DIGITS, base), np.int64)
    for row in range(distance.shape[0]):
        ends[:] = 0
        count = 0
        for player in range(num_players):
            if player == skipped[row]:
                continue
            cell = _cell(distance[row, player], lowest[row], scale[row])
            keys[count] = cell << 32 | player
            for digit in range(_DIGITS):
                ends[digit, cell >> digit * _DIGIT_BITS & base - 1] += 1
            count += 1
        for digit in range(_DIGITS):
            place = 0  # where each value of the digit begins
            for value in range(base):
                ends[digit, value], place = place, place + ends[digit, value]
            for i in range(count):
                value = keys[i] >> 32 + digit * _DIGIT_BITS & base - 1
                sorted_keys[ends[digit, value]] = keys[i]
                ends[digit, value] += 1
            keys, sorted_keys = sorted_keys, keys
        for rank in range(order.shape[1]):
            order[row, rank] = keys[rank] & 0xFFFFFFFF


def tiles(rows: slice, num_columns: int, tile_bytes: int) -> Iterator[slice]:
    """Slices of `rows` whose distances, keys and ranks fit into `tile_bytes`."""
    height = max(1, tile_bytes // (_BYTES_PER_ENTRY * num_columns))
    for start in range(rows.start, rows.stop, height):
        yield slice(start, min(start + height, rows.stop))
