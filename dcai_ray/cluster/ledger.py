"""Scheduling decisions in plain Python: which actor computes which block, which task is next.

There is no Ray in here. A pool reports what happened and does what the ledger answers, so each
decision can be tested without a cluster and without waiting. Time is an argument: seconds of any
clock that never runs backwards.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

RESIZE_S = 2.0
"""Seconds between two looks at how many actors are wanted, which asks the cluster."""

Actor = Any  # anything hashable, such as a handle of a Ray actor


class BlockLedger:
    """Blocks in the order in which they are wanted, each delivered once.

    A block is *outstanding* from the moment it is first issued until its first answer arrives.
    Meanwhile it may be in flight several times, because it was late, or not at all, because the
    actor that computed it was lost; in both cases it is issued again, before all new blocks.

    Args:
        block_ids: ids in order, possibly without end; None means that there is none at the moment
            and that the ledger should ask again.
        hedge_s: seconds after which an outstanding block is issued a second time.
    """

    def __init__(self, block_ids: Iterator[Hashable | None], *, hedge_s: float) -> None:
        self._block_ids, self._hedge_s = block_ids, hedge_s
        self._outstanding: dict[Hashable, float] = {}  # when issued or hedged last; oldest first
        self._again: deque[Hashable] = deque()  # to issue again; some may be answered by now
        self._exhausted = False

    @property
    def is_done(self) -> bool:
        """Whether every block has been answered."""
        return self._exhausted and not self._outstanding

    def hedge(self, now: float) -> None:
        """Put the oldest outstanding block first in line if it is late; its deadline restarts."""
        oldest = next(iter(self._outstanding), None)
        if oldest is None or oldest in self._again:
            return
        if now - self._outstanding[oldest] > self._hedge_s:
            del self._outstanding[oldest]  # moves to the end, like a block issued now
            self._outstanding[oldest] = now
            self._again.appendleft(oldest)

    def issue(self, now: float) -> Hashable | None:
        """The id of the next block to compute, or None if there is none at the moment."""
        block_id = self._next_id()
        if block_id is not None:
            self._outstanding.setdefault(block_id, now)
        return block_id

    def answer(self, block_id: Hashable) -> bool:
        """A block was computed; returns whether this is its first answer, the one to deliver."""
        return self._outstanding.pop(block_id, None) is not None

    def lose(self, block_id: Hashable) -> None:
        """A block was lost in flight; put it last in line, to be issued again unless answered."""
        if block_id not in self._again:
            self._again.append(block_id)

    def _next_id(self) -> Hashable | None:
        while self._again:
            block_id = self._again.popleft()
            if block_id in self._outstanding:
                return block_id
        if self._exhausted:
            return None
        try:
            return next(self._block_ids)
        except StopIteration:
            self._exhausted = True
            return None


class ActorLedger:
    """The actors of an elastic pool, and how many blocks each of them computes.

    An actor is *starting* from the moment it is requested until it reports that it is up; it stays
    *up* until it is lost. Only actors that are up are assigned blocks; those are then *in flight*.

    Args:
        blocks: what to compute.
        num_actors: returns how many actors there should be now.
        blocks_per_actor: maximum number of blocks in flight to one actor.
        max_lost: number of actors that may be lost before the pool gives up.
    """

    def __init__(
        self,
        blocks: BlockLedger,
        num_actors: Callable[[], int],
        *,
        blocks_per_actor: int,
        max_lost: int,
    ) -> None:
        self._blocks, self._num_actors = blocks, num_actors
        self._blocks_per_actor, self._max_lost = blocks_per_actor, max_lost
        self._starting: dict[Actor, None] = {}  # oldest first
        self._in_flight: dict[Actor, int] = {}  # blocks in flight to each actor that is up
        self._resized = float("-inf")
        self.lost = 0
        """Actors lost so far."""
        self.received = 0
        """Answers received so far, including repeated ones."""
        self.repeated = 0
        """Answers dropped so far because their block had been delivered already."""

    @property
    def actors(self) -> list[Actor]:
        """All actors, those that are up and those that are starting."""
        return [*self._in_flight, *self._starting]

    @property
    def num_up(self) -> int:
        """Number of actors that are up."""
        return len(self._in_flight)

    @property
    def num_starting(self) -> int:
        """Number of actors that wait for a core or are starting."""
        return len(self._starting)

    @property
    def is_done(self) -> bool:
        """Whether every block has been delivered."""
        return self._blocks.is_done

    @property
    def has_lost_too_many(self) -> bool:
        """Whether more than `max_lost` actors were lost."""
        return self.lost > self._max_lost

    def resize(self, now: float) -> tuple[int, list[Actor]]:
        """Compare the actors that there are with those wanted, at most once every `RESIZE_S`.

        Returns:
            The number of actors to request, and a list of actors to end. An actor that is up is
            never ended; of those starting, the oldest go first.
        """
        if now - self._resized < RESIZE_S:
            return 0, []
        self._resized = now
        missing = self._num_actors() - self.num_up - self.num_starting
        surplus = list(self._starting)[: max(-missing, 0)]
        for actor in surplus:
            del self._starting[actor]
        return max(missing, 0), surplus

    def request(self, actor: Actor) -> None:
        """An actor was requested and is starting."""
        self._starting[actor] = None

    def start(self, actor: Actor) -> None:
        """A starting actor reported that it is up."""
        del self._starting[actor]
        self._in_flight[actor] = 0

    def assign(self, now: float) -> list[tuple[Actor, Hashable]]:
        """Fill the actors that are up, the least loaded first; (actor, block id) pairs in order."""
        self._blocks.hedge(now)
        assigned: list[tuple[Actor, Hashable]] = []
        for actor in sorted(self._in_flight, key=self._in_flight.__getitem__):
            while self._in_flight[actor] < self._blocks_per_actor:
                block_id = self._blocks.issue(now)
                if block_id is None:
                    return assigned
                self._in_flight[actor] += 1
                assigned.append((actor, block_id))
        return assigned

    def answer(self, actor: Actor, block_id: Hashable) -> bool:
        """An actor, perhaps a lost one, computed a block; returns whether it is to be delivered."""
        self.received += 1
        if actor in self._in_flight:
            self._in_flight[actor] -= 1
        is_first = self._blocks.answer(block_id)
        self.repeated += not is_first
        return is_first

    def lose(self, actor: Actor, block_id: Hashable | None) -> bool:
        """A call failed because the actor, its process or its node was lost.

        Args:
            actor: whose call failed.
            block_id: the block that the call was to compute; None: the actor was starting.
        Returns:
            Whether to replace the actor; False if an earlier call has reported the same loss.
        """
        if block_id is not None:
            self._blocks.lose(block_id)
        if actor not in self._in_flight and actor not in self._starting:
            return False
        self._in_flight.pop(actor, None)
        self._starting.pop(actor, None)
        self.lost += 1
        return True


class TaskLedger:
    """Tasks 0, 1, ..., submitted in order, with results that leave in the same order.

    A task is *ahead* from the moment it is submitted until its result has left: it is in flight, or
    its result is *early* and waits for those before it.

    Args:
        sizes: units of work of each task, for the progress bar.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._submitted = self._returned = 0  # tasks submitted; results that have left
        self._early: dict[int, Any] = {}
        self.units_done = 0
        """Units of work of all finished tasks."""

    @property
    def num_finished(self) -> int:
        """Number of finished tasks, whether or not their results have left."""
        return self._returned + len(self._early)

    @property
    def is_done(self) -> bool:
        """Whether every result has left."""
        return self._returned == len(self._sizes)

    def submit(self, max_ahead: int) -> range:
        """Numbers of the tasks to submit now, so that at most `max_ahead` are ahead."""
        end = min(self._returned + max_ahead, len(self._sizes))
        numbers = range(self._submitted, max(end, self._submitted))
        self._submitted = numbers.stop
        return numbers

    def finish(self, number: int, result: Any) -> None:
        """A task has finished."""
        self._early[number] = result
        self.units_done += self._sizes[number]

    def results(self) -> Iterator[Any]:
        """Results whose turn has come, in the order of the tasks."""
        while self._returned in self._early:
            result = self._early.pop(self._returned)
            self._returned += 1
            yield result
