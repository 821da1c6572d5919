"""Numba kernels of `neighbour_table`: the K nearest along an order, by insertion or by skyband.

A player that may get a vote is a key, its rank in the upper 32 bits and its label in the lower, so
keys sort as ranks do. Arguments, alike in both kernels:

    ranks, y_train, y_val       (m, n), (n,), (m,) of the table
    val_weights                 (m,) int64, what a change counts for each validation point
    k                           neighbours that are kept, at most n
    majority, many, quorum      what counts: see `NeighbourTable.changes` and `_standing`
    players, offsets, chosen    the orders, and the numbers of those to walk
    changes                     (t,) int64, the result, added to in place
"""

import numba
import numpy as np

_LABEL = 0xFFFFFFFF


@numba.njit(cache=True, nogil=True)
def insertion(  # type: ignore[no-untyped-def]
    ranks, y_train, y_val, val_weights, k, majority, many, quorum, players, offsets, chosen, changes
):
    """Add the changes of the chosen orders: each rank against that of the K-th nearest."""
    nearest, votes = _places(k, y_train, y_val, ranks.shape[1])
    nobody = nearest[0]
    for row in range(len(ranks)):
        own = ranks[row]
        for order in chosen:
            _clear(nearest, votes, nobody)
            standing, begin, farthest = 0, offsets[order], nobody
            for t in range(begin, offsets[order + 1]):
                player = np.uint32(players[t])  # unsigned: no look whether it counts from the end
                key = np.int64(own[player]) << 32
                if key < farthest:
                    _admit(nearest, votes, key | y_train[player])
                    farthest = nearest[k - 1]
                    if t - begin + 1 >= quorum:
                        before = standing
                        standing = _standing(nearest, votes, y_val[row], majority, many)
                        changes[t] += (standing - before) * val_weights[row]


@numba.njit(cache=True, nogil=True)
def skyband(  # type: ignore[no-untyped-def]
    ranks, y_train, y_val, val_weights, k, majority, many, quorum, by_rank, players, offsets,
    chosen, changes,
):  # fmt: skip
    """The same by the K-skyband: after the first players only those with a vote are seen."""
    num_players = ranks.shape[1]
    nearest, votes = _places(k, y_train, y_val, num_players)
    nobody = nearest[0]
    arrivals, survivors = np.empty(num_players, np.int64), np.empty(num_players, np.int64)
    for order in chosen:
        begin, length = offsets[order], offsets[order + 1] - offsets[order]
        arrivals[:] = length  # never
        for t in range(length):
            arrivals[players[begin + t]] = t
        for row in range(len(ranks)):
            _clear(nearest, votes, nobody)
            standing, t = 0, 0
            while t < length and (t < k or nearest[k - 1] >> 32 > 2 * t):
                player = players[begin + t]
                key = np.int64(ranks[row, player]) << 32
                if key < nearest[k - 1]:
                    _admit(nearest, votes, key | y_train[player])
                    if t + 1 >= quorum:
                        before = standing
                        standing = _standing(nearest, votes, y_val[row], majority, many)
                        changes[begin + t] += (standing - before) * val_weights[row]
                t += 1
            # From here on K players are held and every vote counts, whatever the quorum.
            nearer = by_rank[row, : nearest[k - 1] >> 32]
            count = _survivors(nearer, arrivals, t, length, k, survivors)
            for i in range(count):
                t, rank = survivors[i] >> 32, survivors[i] & 0xFFFFFFFF
                _admit(nearest, votes, rank << 32 | y_train[players[begin + t]])
                before = standing
                standing = _standing(nearest, votes, y_val[row], majority, many)
                changes[begin + t] += (standing - before) * val_weights[row]


@numba.njit(cache=True, nogil=True)
def _survivors(by_rank, arrivals, arrived, length, k, survivors):  # type: ignore[no-untyped-def]
    """Fill `survivors` with (place << 32 | rank) of those that get a vote after the first `arrived`
    players, in order of arrival; how many there are.

    `by_rank` has the players nearer than the K-th nearest of those that have arrived.
    """
    earliest = np.full(k, length)  # arrivals among the nearer ones, sorted
    count = 0
    for rank in range(len(by_rank)):
        place = arrivals[by_rank[rank]]
        if place >= earliest[k - 1]:
            continue  # it never arrives, or K nearer ones are there before it
        if place >= arrived:
            survivors[count] = place << 32 | rank
            count += 1
        j = k - 1
        while j > 0 and earliest[j - 1] > place:
            earliest[j] = earliest[j - 1]
            j -= 1
        earliest[j] = place
    survivors[:count].sort()
    return count


@numba.njit(cache=True, nogil=True)
def _places(k, y_train, y_val, num_players):  # type: ignore[no-untyped-def]
    """Room for the keys of the K nearest, nearest first, and for the votes of the classes and of
    nobody: a key farther than any, with a label of its own."""
    nobody = max(y_train.max(), y_val.max()) + 1
    nearest = np.full(k, np.int64(num_players) << 32 | nobody)
    return nearest, np.zeros(nobody + 1, np.int64)


@numba.njit(cache=True, nogil=True)
def _clear(nearest, votes, nobody):  # type: ignore[no-untyped-def]
    """Let all players leave."""
    for j in range(len(nearest)):  # only theirs: there may be many more classes than neighbours
        votes[nearest[j] & _LABEL] = 0
        nearest[j] = nobody


@numba.njit(cache=True, nogil=True)
def _admit(nearest, votes, key):  # type: ignore[no-untyped-def]
    """Admit a player nearer than the K-th, which leaves.

    Each place takes the middle one of its own key, its neighbour's and the newcomer's. That does
    more than a search for the place, but without branches, which no processor predicts here:
    it takes two thirds of the time, and half where orders are short.
    """
    last = len(nearest) - 1
    votes[nearest[last] & _LABEL] -= 1
    votes[key & _LABEL] += 1
    for j in range(last, 0, -1):
        nearest[j] = max(nearest[j - 1], min(key, nearest[j]))
    nearest[0] = min(key, nearest[0])


@numba.njit(cache=True, nogil=True)
def _standing(nearest, votes, own, majority, many):  # type: ignore[no-untyped-def]
    """The votes of the validation point's own label; with `majority`, whether they win.

    With more classes than neighbours, `many`, only those that have a vote are counted. It is
    None or True, so that numba compiles one of the two: a kernel with both is half as slow again.
    """
    most, nobody, beaten = votes[own], len(votes) - 1, 0
    if not majority:
        return most
    if many is None:
        for other in range(nobody):
            beaten |= (votes[other] > most) | ((votes[other] == most) & (other < own))
    else:
        for j in range(len(nearest)):
            other = nearest[j] & _LABEL
            more = (votes[other] > most) | ((votes[other] == most) & (other < own))
            beaten |= (other < nobody) & more
    return 1 if (most > 0) & (beaten == 0) else 0
