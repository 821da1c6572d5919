"""The aggregator merges blocks in the order of their ids and decides when to stop.

Blocks come from workers late, twice and in any order. A *wave* is the blocks of one index, one of
every chain. Waves are merged whole, in the order of their index, and within a wave in the order of
the chains; after each the stopping rule is judged. Blocks that come early wait, repeated ones are
dropped. So the result is a function of the blocks, not of how or when they arrived.

Per chain it keeps the moments of whole rounds; merged over chains they give values, standard errors
and intervals (`intervals`), which decide; ranks and R-hat are for display only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.blocks import Block, check_block
from dcai_ray.valuation.intervals import asymptotic_half_width, bernstein_half_width
from dcai_ray.valuation.moments import Moments, gelman_rubin, merge, rank_correlation
from dcai_ray.valuation.stopping import (
    DEFAULT_INDIFFERENCE,
    MIN_ROUNDS,
    Progress,
    Settled,
    StopRule,
    estimate_rounds,
    indifference_of,
)

Interval = Literal["asymptotic", "bernstein"]


class Aggregator:
    """The state of a sampling after its complete waves; it knows no clock and no files.

    Args:
        num_players: n.
        num_chains: independent chains; a wave holds one block of each.
        num_semivalues: S, estimated from the same orders; the first one decides.
        alpha: probability that an interval ever misses its value.
        simultaneous: whether alpha is the probability that any of the n intervals does.
        interval: "asymptotic", over rounds, or "bernstein", over the means of blocks, which is
            valid at any count but needs a range.
        observation_range: for "bernstein": width of an interval that contains zero and every
            possible observation of a round; one number, or one per semivalue.
        indifference: half width below which a point is settled; None: what `stop` asks, or 0.1 / n.
        threshold: the threshold between harmful and useful points; a point whose interval excludes
            it is settled.
        min_rounds: rounds before which asymptotic intervals are infinite, as the spread of so few
            is not reliable.
        stop: the rule judged after each wave; by default `Settled()`.
    Raises:
        UserError: for numbers out of range, an unknown interval, "bernstein" without a range, or
            an indifference that contradicts the one in `stop`.
    """

    def __init__(
        self,
        num_players: int,
        num_chains: int,
        num_semivalues: int = 1,
        *,
        alpha: float = 0.05,
        simultaneous: bool = False,
        interval: Interval = "asymptotic",
        observation_range: float | Sequence[float] = np.inf,
        indifference: float | None = None,
        threshold: float = 0.0,
        min_rounds: int = MIN_ROUNDS,
        stop: StopRule | None = None,
    ) -> None:
        stop = stop or Settled()
        sizes = {"num_players": num_players, "num_chains": num_chains}
        _check_settings(sizes | {"num_semivalues": num_semivalues}, alpha, interval)
        self._shape = (num_semivalues, num_players)
        self._alpha = alpha / num_players if simultaneous else alpha
        self._method = interval
        self._range = _ranges(observation_range, num_semivalues, interval)
        self.stop, self.threshold = stop, threshold
        self._min_rounds = min_rounds
        self.indifference = _indifference(indifference, stop, num_players)

        self.next_index = 0
        """Complete waves merged; the index of the blocks that are merged next."""
        self.done = False
        """Whether the rule was met; whatever comes later is dropped."""
        self.chains = [Moments.empty(self._shape)] * num_chains
        """Per chain (S, n) moments of its rounds."""
        self.total = Moments.empty(self._shape)
        """(S, n) moments of all rounds, merged in the order of the chains."""
        self.evaluated = np.zeros(num_players, dtype=np.int64)
        self.imputed = self.orders = self.insertions = 0
        self.seconds = 0.0
        self._variation = np.zeros(self._shape)  # squared misses of block means by earlier ones
        self._block_means = np.zeros(self._shape)  # their sum
        self._waiting: dict[int, dict[int, Block]] = {}  # by index and chain
        self._kept: list[Progress] = []  # rows of the trace but perhaps the last
        self._last: Progress | None = None

    def add(self, block: Block) -> list[Progress]:
        """Take a block, and merge every wave that it completes.

        Args:
            block: of any chain, in any order; dropped if it is a repeat, or sampling has stopped.
        Returns:
            One look per wave completed, in order; empty if none was.
        Raises:
            UserError: for a chain that is not one, shapes that do not fit, no rounds, or numbers
                that are not finite.
        """
        check_block(block, len(self.chains), self._shape)
        if self.done or block.index < self.next_index:
            return []
        self._waiting.setdefault(block.index, {}).setdefault(block.chain, block)
        looks: list[Progress] = []
        while not self.done and len(self._waiting.get(self.next_index, ())) == len(self.chains):
            self._merge_wave()
            looks.append(self._look())
        if self.done:
            self._waiting.clear()
        return looks

    @property
    def buffered(self) -> int:
        """Blocks that wait for the rest of their wave."""
        return sum(len(blocks) for blocks in self._waiting.values())

    @property
    def rounds(self) -> int:
        """Rounds merged, summed over chains."""
        return self.total.count

    @property
    def trace(self) -> list[Progress]:
        """The looks, thinned: one whenever rounds have grown by 5 %, and the last."""
        if self._last is None or (self._kept and self._kept[-1].waves == self._last.waves):
            return list(self._kept)
        return [*self._kept, self._last]

    @property
    def value(self) -> NDArray[np.float64]:
        """(S, n) the estimates, in units of the utility."""
        return self.total.mean

    @property
    def stderr(self) -> NDArray[np.float64]:
        """(S, n) their standard errors over rounds; inf for fewer than two rounds."""
        return self.total.stderr

    @property
    def half_width(self) -> NDArray[np.float64]:
        """(S, n) half widths of the intervals."""
        if self._method == "asymptotic" and self.rounds < self._min_rounds:
            return np.full(self._shape, np.inf)
        return self._spread

    @property
    def _spread(self) -> NDArray[np.float64]:
        """(S, n) half widths, also before they are reliable."""
        if self._method == "asymptotic":
            return asymptotic_half_width(self.total, self._alpha)
        return bernstein_half_width(self._num_blocks, self._variation, self._range, self._alpha)

    def interval(self, semivalue: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n,) lower and upper anytime-valid bounds of a semivalue."""
        centre, half = self._centre[semivalue], self.half_width[semivalue]
        return centre - half, centre + half

    def decisions(self, semivalue: int = 0) -> NDArray[np.str_]:
        """(n,) "keep", "drop" or "undecided".

        An interval wholly above or below the threshold decides. Where it is narrower than the
        indifference, the estimate decides, and one exactly at the threshold is dropped.
        """
        low, high = self.interval(semivalue)
        narrow = self.half_width[semivalue] < self.indifference
        above = self.value[semivalue] > self.threshold
        cases = [low > self.threshold, high < self.threshold, narrow & above, narrow]
        return np.select(cases, ["keep", "drop", "keep", "drop"], "undecided")

    @property
    def main(self) -> Moments:
        """(n,) moments of the semivalue that decides."""
        return Moments(self.total.count, self.total.mean[0], self.total.m2[0])

    @property
    def r_hat(self) -> NDArray[np.float64]:
        """(n,) Gelman-Rubin statistic of the main semivalue over chains; NaN while unknown."""
        return gelman_rubin(self.chains)[0]

    @property
    def rounds_left(self) -> float | None:
        """Estimated rounds until the rule is met, for display; None while unknown."""
        if self._last is None:
            return None
        enough = np.maximum(np.abs(self._centre[0] - self.threshold), self.indifference)
        with np.errstate(divide="ignore", invalid="ignore"):
            shortfall = np.nan_to_num(self._spread[0] / enough, nan=np.inf, posinf=np.inf)
        return estimate_rounds(self._last, self.stop, shortfall)

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint: arrays, numbers, and the trace as rows.

        Blocks that wait are not part of it; they are computed again.
        """
        return {
            "count": np.array([chain.count for chain in self.chains], dtype=np.int64),  # (C,)
            "mean": np.stack([chain.mean for chain in self.chains]),  # (C, S, n)
            "m2": np.stack([chain.m2 for chain in self.chains]),  # (C, S, n)
            "evaluated": self.evaluated.copy(),
            "imputed": self.imputed,
            "orders": self.orders,
            "insertions": self.insertions,
            "seconds": self.seconds,
            "variation": self._variation.copy(),
            "block_mean_sum": self._block_means.copy(),
            "next_index": self.next_index,
            "trace": [asdict(row) for row in self._kept],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], **settings: Any) -> "Aggregator":
        """Resume from a `state` as if never interrupted.

        The last wave is judged again, so another rule may be given: a tighter one continues where
        the earlier one stopped.

        Args:
            state: from `state`.
            settings: keyword arguments of the constructor; they are not part of the state.
        """
        num_chains, num_semivalues, num_players = np.shape(state["mean"])
        self = cls(num_players, num_chains, num_semivalues, **settings)
        mean, m2 = (np.array(state[name], dtype=np.float64) for name in ("mean", "m2"))
        self.chains = [
            Moments(int(count), mean[c], m2[c]) for c, count in enumerate(state["count"])
        ]
        self.total = reduce(merge, self.chains)
        self.evaluated = np.array(state["evaluated"], dtype=np.int64)
        self.imputed, self.orders = int(state["imputed"]), int(state["orders"])
        self.insertions, self.seconds = int(state["insertions"]), float(state["seconds"])
        self._variation = np.array(state["variation"], dtype=np.float64)
        self._block_means = np.array(state["block_mean_sum"], dtype=np.float64)
        self.next_index = int(state["next_index"])
        self._kept = [Progress(**row) for row in state["trace"]]
        if self.next_index > 0:
            self._last = self._progress()
            self.done = self.stop.met(self._last)
        return self

    @property
    def _num_blocks(self) -> int:
        return self.next_index * len(self.chains)

    @property
    def _centre(self) -> NDArray[np.float64]:
        """(S, n) middles of the intervals; Bernstein's counts blocks alike, whatever their size."""
        if self._method == "asymptotic" or self._num_blocks == 0:
            return self.total.mean
        return self._block_means / self._num_blocks

    def _merge_wave(self) -> None:
        blocks = self._waiting.pop(self.next_index)
        for chain in range(len(self.chains)):
            block = blocks[chain]
            self.chains[chain] = merge(self.chains[chain], block.moments)
            self.evaluated = self.evaluated + block.evaluated
            self.imputed += block.imputed
            self.orders += block.orders
            self.insertions += block.insertions
            self.seconds += block.seconds
            # The guess at a block is the mean of those before it, at the first one zero.
            earlier = self._num_blocks + chain
            guess = self._block_means / max(earlier, 1)
            self._variation = self._variation + (block.moments.mean - guess) ** 2
            self._block_means = self._block_means + block.moments.mean
        self.total = reduce(merge, self.chains)
        self.next_index += 1

    def _look(self) -> Progress:
        self._last = self._progress()
        self.done = self.stop.met(self._last)
        # 5 % in whole numbers, so that no rounding decides.
        if not self._kept or 20 * self._last.rounds >= 21 * self._kept[-1].rounds:
            self._kept.append(self._last)
        return self._last

    def _progress(self) -> Progress:
        low, high = self.interval()
        narrow = self.half_width[0] < self.indifference
        settled = (low > self.threshold) | (high < self.threshold) | narrow
        return Progress(
            rounds=self.rounds,
            waves=self.next_index,
            settled=float(settled.mean()),
            max_stderr=float(self.stderr[0].max()),
            rank_correlation=_agreement(self.chains),
            r_hat=float(self.r_hat.max()),
            num_players=self._shape[1],
        )


def _agreement(chains: Sequence[Moments]) -> float:
    """Rank correlation of the main semivalue's means over even and over odd chains."""
    if len(chains) < 2:
        return float("nan")
    even, odd = (reduce(merge, chains[half::2]) for half in (0, 1))
    return rank_correlation(even.mean[0], odd.mean[0])


def _check_settings(sizes: Mapping[str, int], alpha: float, interval: str) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} must be at least 1, got {size}")
    if not 0 < alpha < 1:
        raise UserError(f"alpha must be in (0, 1), got {alpha}")
    if interval not in ("asymptotic", "bernstein"):
        raise UserError(f"interval must be asymptotic or bernstein, got {interval!r}")


def _ranges(
    observation_range: float | Sequence[float], num_semivalues: int, interval: str
) -> NDArray[np.float64]:
    """(S, 1) widths."""
    ranges = np.atleast_1d(np.asarray(observation_range, dtype=np.float64))
    if ranges.shape not in ((1,), (num_semivalues,)) or not (ranges > 0).all():
        raise UserError(
            f"observation_range must be one number above 0, or {num_semivalues}, "
            f"got {observation_range}"
        )
    if interval == "bernstein" and not np.isfinite(ranges).all():
        raise UserError(
            f"observation_range must be finite for bernstein intervals, got {ranges[0]}; "
            "bound the marginals, or use asymptotic intervals"
        )
    return np.broadcast_to(ranges, (num_semivalues,))[:, np.newaxis]


def _indifference(given: float | None, stop: StopRule, num_players: int) -> float:
    asked = indifference_of(stop)
    if given is None:
        return DEFAULT_INDIFFERENCE / num_players if asked is None else asked
    if not given >= 0:
        raise UserError(f"indifference must be at least 0, got {given}")
    if asked is not None and asked != given:
        raise UserError(f"indifference must be the one in the stopping rule, {asked}, got {given}")
    return given
