"""Numba kernels of `count_values`: sums over coalitions whose members join with probability q.

All nodes q are walked side by side, the innermost index, in ascending order; a coin toss a rank is
a product and a sum (no library function whose last bit a processor could decide). Arguments, alike
in both kernels:

    order               (m, n) int32, training indices nearest first
    y_train, y_val      (n,), (m,) labels
    nodes, weights      (Q,) q, ascending, and what each counts
    total, squares      (n,) float64, values and their squares are added to in place
"""

import numba
import numpy as np

_NOTHING = 1e-25
"""A chance of fewer than K nearer members below which a node adds nothing that a sum would keep."""
STEP = 16
"""Nodes that are left out together: as many as a processor's widest loop takes at once."""


@numba.njit(cache=True, nogil=True)
def add_two_counts(  # type: ignore[no-untyped-def]
    order, y_train, y_val, scores, nodes, weights, total, squares
):
    """Values in games that depend on the numbers of matches and of others alone.

    Args:
        scores: (C, K + 1, K + 1) V(matches, others) for each label of a validation point.
    """
    num_ranks, k, num_nodes = order.shape[1], scores.shape[1] - 1, len(nodes)
    # Chances of so many members among the nearer ranks, and the same with one of them left out:
    # [0] of others, [1] of matches, [2] of both.
    now = np.zeros((3, k, num_nodes))
    less = np.zeros((3, k, num_nodes))
    gain, few = np.zeros(num_nodes), np.zeros((2, num_nodes))
    gains = np.zeros(num_ranks)  # what the other side gains by keeping this rank out
    for row in range(order.shape[0]):
        score = scores[y_val[row]]
        active = num_nodes
        now[:] = 0.0
        less[:] = 0.0
        now[:, 0] = 1.0
        for rank in range(num_ranks):
            side = 1 if y_train[order[row, rank]] == y_val[row] else 0
            matches, others = (now[1], less[0]) if side else (less[1], now[0])
            gain[:active] = 0.0
            for t in range(k):
                change = score[t + 1, k - 1 - t] - score[t, k - t]
                if change != 0.0:
                    change = -change if side else change
                    for q in range(active):
                        gain[q] += change * matches[t, q] * others[k - 1 - t, q]
            gains[rank] = 0.0
            for q in range(active):
                gains[rank] += weights[q] * nodes[q] * gain[q]
            _toss(now[side], less[side], nodes, active)
            _toss(now[2], less[2], nodes, active)
            active = _still_active(now[2], less[2], active)
        few[:] = 0.0  # what is gained while there are fewer than K members
        for t in range(k):
            for u in range(k - t):
                up, beside = score[t + 1, u] - score[t, u], score[t, u + 1] - score[t, u]
                for q in range(active):
                    few[1, q] += up * less[1, t, q] * now[0, u, q]
                    few[0, q] += beside * now[1, t, q] * less[0, u, q]
        values = _integrals(few, weights)
        for rank in range(num_ranks - 1, -1, -1):
            player = order[row, rank]
            side = 1 if y_train[player] == y_val[row] else 0
            total[player] += values[side]
            squares[player] += values[side] * values[side]
            values[1 - side] += gains[rank]


@numba.njit(cache=True, nogil=True)
def _integrals(found, weights):  # type: ignore[no-untyped-def]
    """The sum over the nodes for each row of `found`."""
    sums = np.zeros(len(found))
    for row in range(len(found)):
        for q in range(len(weights)):
            sums[row] += weights[q] * found[row, q]
    return sums


@numba.njit(cache=True, nogil=True)
def _toss(now, less, nodes, active):  # type: ignore[no-untyped-def]
    """One more rank of this class, which is in the coalition with probability q."""
    for t in range(len(now) - 1, -1, -1):
        for q in range(active):
            less[t, q] = now[t, q]
        if t:
            for q in range(active):
                now[t, q] = (1.0 - nodes[q]) * now[t, q] + nodes[q] * now[t - 1, q]
        else:
            for q in range(active):
                now[0, q] *= 1.0 - nodes[q]


@numba.njit(cache=True, nogil=True)
def _still_active(now, less, active):  # type: ignore[no-untyped-def]
    """How many nodes are left: the larger q, the sooner K nearer members are as good as certain.

    Args:
        now: (k, Q) the chance of so many members among all nearer ranks.
        less: the same with one of these ranks left out.
    """
    while active:
        nearest = max(0, active - STEP)  # the smallest q of the last step
        chance = 0.0
        for t in range(len(now)):
            chance = max(chance, now[t, nearest], less[t, nearest])
        if chance > _NOTHING:
            break
        active = nearest
    return active


@numba.njit(cache=True, nogil=True)
def add_plurality(  # type: ignore[no-untyped-def]
    order, y_train, y_val, k, num_classes, quorum, empty, nodes, weights, total, squares
):
    """Values in the game of the majority vote; of equally many votes, the smallest class wins.

    Args:
        k: neighbours that vote.
        quorum: members below which the utility is `empty`.
        empty: the utility without a vote.
    """
    num_ranks, num_nodes = order.shape[1], len(nodes)
    # Chances by class, as above; then of all classes but the own one, and of all.
    now = np.zeros((num_classes + 2, k, num_nodes))
    less = np.zeros((num_classes + 2, k, num_nodes))
    before = np.zeros((num_classes + 1, k, num_nodes))  # products of the first classes' chances
    after = np.zeros((num_classes + 1, k, num_nodes))  # and of the last ones'
    between = np.zeros((k, num_nodes))
    gain = np.zeros((num_classes, num_nodes))
    gains = np.zeros((num_ranks, num_classes))  # of members of a class by keeping this rank out
    measure = weights * nodes  # this rank is a member
    for row in range(order.shape[0]):
        own = y_val[row]
        active = num_nodes
        now[:] = 0.0
        less[:] = 0.0
        now[:, 0] = 1.0
        seen = np.zeros(num_classes, np.bool_)
        for rank in range(num_ranks):
            label = y_train[order[row, rank]]
            gain[:] = 0.0
            if active:
                _keep_out(label, own, seen, k, now, less, before, after, between, active, gain)
            gains[rank] = _integrals(gain, measure)
            seen[label] = True
            _toss(now[label], less[label], nodes, active)
            if label != own:
                _toss(now[num_classes], less[num_classes], nodes, active)
            _toss(now[num_classes + 1], less[num_classes + 1], nodes, active)
            active = _still_active(now[num_classes + 1], less[num_classes + 1], active)
        gain[:] = 0.0
        _join_few(own, seen, k, quorum, empty, now, less, before, after, between, active, gain)
        values = _integrals(gain, weights)
        for rank in range(num_ranks - 1, -1, -1):
            player = order[row, rank]
            value = values[y_train[player]]
            total[player] += value
            squares[player] += value * value
            for label in range(num_classes):
                values[label] += gains[rank, label]


@numba.njit(cache=True, nogil=True)
def _cap(label, own, votes):  # type: ignore[no-untyped-def]
    """The most votes that another class may have for the own one to win with its `votes`."""
    return votes if label > own else votes - 1


@numba.njit(cache=True, nogil=True)
def _multiply(x, y, cap, lowest, degree, out, active):  # type: ignore[no-untyped-def]
    """out = x * y from one degree to another, as polynomials in the number of members; y up to
    `cap`."""
    for d in range(lowest, degree + 1):
        for q in range(active):
            out[d, q] = x[d, q] * y[0, q]
        for i in range(1, min(cap, d) + 1):
            for q in range(active):
                out[d, q] += x[d - i, q] * y[i, q]


@numba.njit(cache=True, nogil=True)
def _coefficient(x, y, cap, degree, out, active):  # type: ignore[no-untyped-def]
    """out = the coefficient of a degree in x * y, x up to `cap`; 0 where there is none."""
    out[:active] = 0.0
    for i in range(min(cap, degree) + 1):
        for q in range(active):
            out[q] += x[i, q] * y[degree - i, q]


@numba.njit(cache=True, nogil=True)
def _add(out, sign, x, y, active):  # type: ignore[no-untyped-def]
    """out += sign * x * y."""
    for q in range(active):
        out[q] += sign * x[q] * y[q]


@numba.njit(cache=True, nogil=True)
def _add_triple(out, sign, x, y, z, active):  # type: ignore[no-untyped-def]
    """out += sign * x * y * z."""
    for q in range(active):
        out[q] += sign * x[q] * y[q] * z[q]


@numba.njit(cache=True, nogil=True)
def _products(  # type: ignore[no-untyped-def]
    votes, own, label, seen, degree, backwards, now, before, after, active
):
    """`before[i]`: the product over the classes below i but the own one and `label`, each up to its
    cap, up to a degree; `after[i]` over those from i on, up to the degree `backwards`."""
    num_classes = len(before) - 1
    before[0, : degree + 1, :active] = 0.0
    before[0, 0, :active] = 1.0
    for i in range(num_classes):
        if i in (own, label) or not seen[i]:
            before[i + 1, : degree + 1, :active] = before[i, : degree + 1, :active]
        else:
            cap = _cap(i, own, votes)
            _multiply(before[i], now[i], cap, 0, degree, before[i + 1], active)
    if backwards < 0:
        return
    after[num_classes, : backwards + 1, :active] = 0.0
    after[num_classes, 0, :active] = 1.0
    for i in range(num_classes - 1, -1, -1):
        if i in (own, label) or not seen[i]:
            after[i, : backwards + 1, :active] = after[i + 1, : backwards + 1, :active]
        else:
            cap = _cap(i, own, votes)
            _multiply(after[i + 1], now[i], cap, 0, backwards, after[i], active)


@numba.njit(cache=True, nogil=True)
def _keep_out(  # type: ignore[no-untyped-def]
    label, own, seen, k, now, less, before, after, between, active, gain
):
    """For a member of each class nearer than this rank: how much oftener the own class wins with
    K - 1 others nearer if the member votes than if this rank, of class `label`, does."""
    num_classes = len(gain)
    rivals, fewer = now[num_classes], less[num_classes]
    term = np.empty(now.shape[2])
    # With more than half of the votes the own class wins, however the others are divided: of all
    # such numbers of votes only the change of the least one is left.
    most = k // 2 + 1
    if label != own:
        _add(gain[own], 1.0, less[own, most - 1], rivals[k - most], active)
    else:
        for player in range(num_classes):
            if player != own and seen[player]:
                _add(gain[player], -1.0, now[own, most - 1], fewer[k - most], active)
    for votes in range(1, most):
        # Votes of others: beside one less than `votes`, and beside `votes` and the one at stake.
        many, short = k - votes, k - votes - 1
        limit = _cap(label, own, votes)
        backwards = many if label == own else short - votes + 1
        _products(votes, own, label, seen, many, backwards, now, before, after, active)
        if label != own:
            # The member brings the own class to `votes`, and this rank is kept out. Against it: the
            # own class has them without the member, and this rank votes.
            every = before[num_classes]
            _coefficient(now[label], every, limit, many, term, active)
            _add(gain[own], 1.0, less[own, votes - 1], term, active)
            _coefficient(now[label], every, limit - 1, short, term, active)
            _add(gain[own], -1.0, less[own, votes], term, active)
        for player in range(num_classes):
            if player in (own, label) or not seen[player]:
                continue
            cap = _cap(player, own, votes)
            first, last = before[player], after[player + 1]
            if label == own:
                # This rank would bring the own class to `votes`; the member votes for its own.
                _multiply(first, last, many, max(0, many - cap), many, between, active)
                _coefficient(less[player], between, cap, many, term, active)
                _add(gain[player], -1.0, now[own, votes - 1], term, active)
                _coefficient(less[player], between, cap - 1, short, term, active)
                _add(gain[player], 1.0, now[own, votes], term, active)
            elif short >= min(cap, limit):
                # Of this rank and the member, the one whose class is at its cap would win instead.
                least, left = max(0, short - limit - cap + 1), short - min(cap, limit)
                _multiply(first, last, left, least, left, between, active)
                _coefficient(less[player], between, cap - 1, short - limit, term, active)
                _add_triple(gain[player], 1.0, now[own, votes], now[label, limit], term, active)
                _coefficient(now[label], between, limit - 1, short - cap, term, active)
                _add_triple(gain[player], -1.0, now[own, votes], less[player, cap], term, active)


@numba.njit(cache=True, nogil=True)
def _join_few(  # type: ignore[no-untyped-def]
    own, seen, k, quorum, empty, now, less, before, after, between, active, gain
):
    """What a member of each class gains while there are fewer than K others."""
    num_classes = len(gain)
    term = np.empty(now.shape[2])
    for votes in range(1, k + 1):
        left = k - 1 - votes
        _products(votes, own, num_classes, seen, k - 1, left, now, before, after, active)
        every = before[num_classes]
        # The member brings the own class to `votes`; without it, it has them already.
        for m in range(max(0, quorum - votes), left + 2):
            _add(gain[own], 1.0, less[own, votes - 1], every[m], active)
        for m in range(max(0, quorum - votes), left + 1):
            _add(gain[own], -1.0, less[own, votes], every[m], active)
        for player in range(num_classes):
            if player == own or not seen[player] or left < 0:
                continue
            cap = _cap(player, own, votes)
            _multiply(before[player], after[player + 1], left, 0, left, between, active)
            # In a coalition that is large enough with the member, and in one that is without it;
            # with one more, a class at its cap would win instead.
            for m in range(left + 1):
                if votes + m + 1 >= quorum:
                    _coefficient(less[player], between, cap - 1, m, term, active)
                    _add(gain[player], 1.0, now[own, votes], term, active)
                if votes + m >= quorum:
                    _coefficient(less[player], between, cap, m, term, active)
                    _add(gain[player], -1.0, now[own, votes], term, active)
    # What a coalition that lacks one member to the quorum had before.
    lacking = quorum - 1
    _products(k + 1, own, num_classes, seen, lacking, lacking, now, before, after, active)
    _coefficient(less[own], before[num_classes], lacking, lacking, term, active)
    for q in range(active):
        gain[own, q] -= empty * term[q]
    for player in range(num_classes):
        if player == own or not seen[player]:
            continue
        _multiply(before[player], after[player + 1], lacking, 0, lacking, between, active)
        _multiply(between, less[player], lacking, 0, lacking, after[player], active)
        _coefficient(now[own], after[player], lacking, lacking, term, active)
        for q in range(active):
            gain[player, q] -= empty * term[q]
