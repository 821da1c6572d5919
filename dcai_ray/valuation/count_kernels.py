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
            gains[rank] = 0.0
            for t in range(k):
                change = score[t + 1, k - 1 - t] - score[t, k - t]
                if change != 0.0:
                    found = 0.0
                    for q in range(active):
                        found += weights[q] * nodes[q] * matches[t, q] * others[k - 1 - t, q]
                    gains[rank] += -change * found if side else change * found
            _toss(now[side], less[side], nodes, active)
            _toss(now[2], less[2], nodes, active)
            active = _still_active(now[2], less[2], active)
        few = np.zeros(2)  # what is gained while there are fewer than K members
        for t in range(k):
            for u in range(k - t):
                up, beside = score[t + 1, u] - score[t, u], score[t, u + 1] - score[t, u]
                for q in range(active):
                    few[1] += up * weights[q] * less[1, t, q] * now[0, u, q]
                    few[0] += beside * weights[q] * now[1, t, q] * less[0, u, q]
        for rank in range(num_ranks - 1, -1, -1):
            player = order[row, rank]
            side = 1 if y_train[player] == y_val[row] else 0
            total[player] += few[side]
            squares[player] += few[side] * few[side]
            few[1 - side] += gains[rank]


@numba.njit(cache=True, nogil=True)
def _toss(now, less, nodes, active):  # type: ignore[no-untyped-def]
    """One more rank of this class, which is in the coalition with probability q."""
    for t in range(len(now) - 1, -1, -1):
        for q in range(active):
            less[t, q] = now[t, q]
            stays = (1.0 - nodes[q]) * now[t, q]
            now[t, q] = stays + nodes[q] * now[t - 1, q] if t else stays


@numba.njit(cache=True, nogil=True)
def _still_active(now, less, active):  # type: ignore[no-untyped-def]
    """How many nodes are left: the larger q, the sooner K nearer members are as good as certain.

    Args:
        now: (k, Q) the chance of so many members among all nearer ranks.
        less: the same with one of these ranks left out.
    """
    while active:
        chance = 0.0
        for t in range(len(now)):
            chance = max(chance, now[t, active - 1], less[t, active - 1])
        if chance > _NOTHING:
            break
        active -= 1
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
    now = np.zeros((num_classes + 1, k, num_nodes))  # chances by class, and in all, as above
    less = np.zeros((num_classes + 1, k, num_nodes))
    before = np.zeros((num_classes + 1, k, num_nodes))  # products of the first classes' chances
    after = np.zeros((num_classes + 1, k, num_nodes))  # and of the last ones'
    between = np.zeros((k, num_nodes))
    gains = np.zeros((num_ranks, num_classes))  # of members of a class by keeping this rank out
    for row in range(order.shape[0]):
        own = y_val[row]
        active = num_nodes
        now[:] = 0.0
        less[:] = 0.0
        now[:, 0] = 1.0
        gains[:] = 0.0
        seen = np.zeros(num_classes, np.bool_)
        for rank in range(num_ranks):
            label = y_train[order[row, rank]]
            if active:
                _gains_of_keeping_out(
                    label, own, seen, k, now, less, before, after, between, nodes, weights, active,
                    gains[rank],
                )  # fmt: skip
            seen[label] = True
            _toss(now[label], less[label], nodes, active)
            _toss(now[-1], less[-1], nodes, active)
            active = _still_active(now[-1], less[-1], active)
        few = _gains_of_few(
            own, seen, k, quorum, empty, now, less, before, after, between, weights, active
        )
        for rank in range(num_ranks - 1, -1, -1):
            player = order[row, rank]
            value = few[y_train[player]]
            total[player] += value
            squares[player] += value * value
            for label in range(num_classes):
                few[label] += gains[rank, label]


@numba.njit(cache=True, nogil=True)
def _cap(label, own, votes):  # type: ignore[no-untyped-def]
    """The most votes that another class may have for the own one to win with its `votes`."""
    return votes if label > own else votes - 1


@numba.njit(cache=True, nogil=True)
def _multiply(x, y, cap, degree, out, active):  # type: ignore[no-untyped-def]
    """out = x * y up to a degree, as polynomials in the number of members; y up to `cap`."""
    for d in range(degree + 1):
        for q in range(active):
            out[d, q] = x[d, q] * y[0, q]
        for i in range(1, min(cap, d) + 1):
            for q in range(active):
                out[d, q] += x[d - i, q] * y[i, q]


@numba.njit(cache=True, nogil=True)
def _products(  # type: ignore[no-untyped-def]
    votes, own, label, seen, degree, now, before, after, backwards, active
):
    """`before[i]`: the product over the classes below i, without the own one and `label`, each up
    to its cap; `after[i]` over those from i on, if asked for."""
    num_classes = len(before) - 1
    before[0, : degree + 1, :active] = 0.0
    before[0, 0, :active] = 1.0
    for i in range(num_classes):
        if i in (own, label) or not seen[i]:
            before[i + 1, : degree + 1, :active] = before[i, : degree + 1, :active]
        else:
            cap = _cap(i, own, votes)
            _multiply(before[i], now[i], cap, degree, before[i + 1], active)
    if backwards:
        after[num_classes, : degree + 1, :active] = 0.0
        after[num_classes, 0, :active] = 1.0
        for i in range(num_classes - 1, -1, -1):
            if i in (own, label) or not seen[i]:
                after[i, : degree + 1, :active] = after[i + 1, : degree + 1, :active]
            else:
                cap = _cap(i, own, votes)
                _multiply(after[i + 1], now[i], cap, degree, after[i], active)


@numba.njit(cache=True, nogil=True)
def _gains_of_keeping_out(  # type: ignore[no-untyped-def]
    label, own, seen, k, now, less, before, after, between, nodes, weights, active, gains
):
    """For a member of each class nearer than this rank: how much oftener the own class wins with
    K - 1 others nearer if the member votes than if this rank, of class `label`, does."""
    num_classes = len(now) - 1
    for votes in range(1, k + 1):
        short = k - votes - 1  # votes of others beside `votes` and the one that is swapped
        others_differ = label != own and votes < k and short >= _cap(num_classes, own, votes) - 1
        backwards = label == own or others_differ
        _products(votes, own, label, seen, k - votes, now, before, after, backwards, active)
        every = before[num_classes]
        if label != own and seen[own]:
            # The member brings the own class to `votes`, and this rank is kept out.
            for i in range(min(_cap(label, own, votes), k - votes) + 1):
                for q in range(active):
                    gains[own] += (
                        weights[q] * nodes[q] * less[own, votes - 1, q] * now[label, i, q]
                        * every[k - votes - i, q]
                    )  # fmt: skip
            # Against: the own class has `votes` without it, and wins though this rank votes.
            for i in range(min(_cap(label, own, votes) - 1, short) + 1):
                for q in range(active):
                    gains[own] -= (
                        weights[q] * nodes[q] * less[own, votes, q] * now[label, i, q]
                        * every[short - i, q]
                    )  # fmt: skip
        if not backwards:
            continue
        for player in range(num_classes):
            if player in (own, label) or not seen[player]:
                continue
            cap = _cap(player, own, votes)
            if label == own:
                # This rank would bring the own class to `votes`; the member votes for its own.
                degree = k - votes
                _multiply(before[player], after[player + 1], degree, degree, between, active)
                for i in range(min(cap, k - votes) + 1):
                    for q in range(active):
                        gains[player] -= (
                            weights[q] * nodes[q] * now[own, votes - 1, q] * less[player, i, q]
                            * between[k - votes - i, q]
                        )  # fmt: skip
                for i in range(min(cap - 1, short) + 1):
                    for q in range(active):
                        gains[player] += (
                            weights[q] * nodes[q] * now[own, votes, q] * less[player, i, q]
                            * between[short - i, q]
                        )  # fmt: skip
                continue
            # Of this rank and the member, the one whose class is at its cap would defeat the own.
            limit = _cap(label, own, votes)
            left = short - min(cap, limit)
            if left < 0:
                continue
            _multiply(before[player], after[player + 1], left, left, between, active)
            for i in range(min(cap - 1, short - limit) + 1):
                for q in range(active):
                    gains[player] += (
                        weights[q] * nodes[q] * now[own, votes, q] * now[label, limit, q]
                        * less[player, i, q] * between[short - limit - i, q]
                    )  # fmt: skip
            for i in range(min(limit - 1, short - cap) + 1):
                for q in range(active):
                    gains[player] -= (
                        weights[q] * nodes[q] * now[own, votes, q] * less[player, cap, q]
                        * now[label, i, q] * between[short - cap - i, q]
                    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _gains_of_few(  # type: ignore[no-untyped-def]
    own, seen, k, quorum, empty, now, less, before, after, between, weights, active
):
    """(C,) what a member of each class gains while there are fewer than K others."""
    num_classes = len(now) - 1
    few = np.zeros(num_classes)
    for votes in range(1, k + 1):
        _products(votes, own, num_classes, seen, k - 1, now, before, after, True, active)
        every, left = before[num_classes], k - 1 - votes
        # The member brings the own class to `votes`; without it, it has them already.
        for m in range(max(0, quorum - votes), left + 2):
            for q in range(active):
                few[own] += weights[q] * less[own, votes - 1, q] * every[m, q]
        for m in range(max(0, quorum - votes), left + 1):
            for q in range(active):
                few[own] -= weights[q] * less[own, votes, q] * every[m, q]
        for player in range(num_classes):
            if player == own or not seen[player] or left < 0:
                continue
            cap = _cap(player, own, votes)
            _multiply(before[player], after[player + 1], left, left, between, active)
            for i in range(min(cap, left) + 1):
                for m in range(max(0, quorum - votes - i), left - i + 1):
                    for q in range(active):
                        few[player] -= (
                            weights[q] * now[own, votes, q] * less[player, i, q] * between[m, q]
                        )
                if i == cap:
                    break  # with one more it would defeat the own class
                for m in range(max(0, quorum - 1 - votes - i), left - i + 1):
                    for q in range(active):
                        few[player] += (
                            weights[q] * now[own, votes, q] * less[player, i, q] * between[m, q]
                        )
    # What a coalition that lacks one member to the quorum had before.
    lacking = quorum - 1
    _products(k + 1, own, num_classes, seen, lacking, now, before, after, True, active)
    for t in range(lacking + 1):
        for q in range(active):
            few[own] -= empty * weights[q] * less[own, t, q] * before[num_classes, lacking - t, q]
    for player in range(num_classes):
        if player == own or not seen[player]:
            continue
        _multiply(before[player], after[player + 1], lacking, lacking, between, active)
        for t in range(lacking + 1):
            for i in range(lacking - t + 1):
                for q in range(active):
                    few[player] -= (
                        empty * weights[q] * now[own, t, q] * less[player, i, q]
                        * between[lacking - t - i, q]
                    )  # fmt: skip
    return few
