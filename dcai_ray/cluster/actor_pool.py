"""Blocks computed on an elastic pool of Ray actors, streamed to the driver, whatever dies.

A block is a pure function of its id: a lost one is computed again, a second answer is dropped.
Nothing waits for a particular actor:

- an actor gets work only once it has said that it is up, and never more than a few blocks;
- at the first sign of a lost process or node the actor is buried, its blocks go to the others and a
  new actor is asked for; actors that wait for a free core make an autoscaler add nodes;
- a block owed for too long (a node gone silent) is given to a second actor; the first answer wins;
- how many actors there should be is asked anew every few seconds, so the pool follows the cluster.

The consumer decides when it has seen enough: leaving the loop ends the actors.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

logger = logging.getLogger(__name__)

# The machine failed, not the code: the block is worth computing again.
_LOST = (RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError, OutOfMemoryError)
# Answers are taken many at a time, and in a big pool given a moment to gather: every call to Ray
# costs the driver as much as merging several blocks.
_BATCH = 64
_GATHER_S = 0.02
_RESIZE_S = 2.0

BlockId = Hashable
Actor = Any  # a handle: a generic type in some versions of Ray and not in others


@contextmanager
def stream_blocks(
    start_actor: Callable[[], Actor],
    block_ids: Iterator[BlockId | None],
    *,
    num_actors: Callable[[], int],
    blocks_per_actor: int = 2,
    hedge_s: float = 60.0,
    max_lost: int = 100,
) -> Iterator["Pool"]:
    """A pool to iterate over: (id, block) once for every id, in order of arrival.

    Args:
        start_actor: returns a new actor with a method `run(block_id) -> block`; started with
            `max_restarts=0`, as replacing is done here.
        block_ids: ids in the order they are wanted, may be endless; None: none just now, ask again.
        num_actors: how many actors there should be now; those beyond the free cores wait for room.
        blocks_per_actor: blocks in flight an actor, so that it never waits for the driver.
        hedge_s: seconds after which an owed block is given to a second actor as well.
        max_lost: actors lost before giving up.
    Raises:
        RayTaskError: `run` failed, as it would on every actor; also an instance of the cause.
        RayActorError: an actor could not be started, or `max_lost` were lost.
    """
    pool = Pool(start_actor, block_ids, num_actors, blocks_per_actor, hedge_s, max_lost)
    try:
        yield pool
    finally:
        pool.close()


class Pool:
    """Who is up, who owes what."""

    def __init__(
        self,
        start_actor: Callable[[], Actor],
        block_ids: Iterator[BlockId | None],
        num_actors: Callable[[], int],
        blocks_per_actor: int,
        hedge_s: float,
        max_lost: int,
    ) -> None:
        self._start_actor, self._block_ids = start_actor, block_ids
        self._num_actors = num_actors
        self._blocks_per_actor = blocks_per_actor
        self._hedge_s, self._max_lost = hedge_s, max_lost
        self._starting: dict[Any, Actor] = {}  # "I am up" of each new actor
        self._flying: dict[Any, tuple[Actor, BlockId]] = {}
        self._load: Counter[Actor] = Counter()  # blocks in flight of actors that are up
        self._owed: dict[BlockId, float] = {}  # when last issued; oldest first
        self._again: deque[BlockId] = deque()  # lost or late: before all others
        self._exhausted = False
        self._resized = float("-inf")
        self.lost = 0
        self.received = self.repeated = 0  # blocks; the repeated were here before

    @property
    def num_up(self) -> int:
        """Actors at work."""
        return len(self._load)

    @property
    def num_starting(self) -> int:
        """Actors that wait for a core, or are being started."""
        return len(self._starting)

    def __iter__(self) -> Iterator[tuple[BlockId, Any]]:
        for blocks in self.turns():
            yield from blocks

    def turns(self) -> Iterator[Iterator[tuple[BlockId, Any]]]:
        """Turns of about a second at most: the blocks that come in each, perhaps none."""
        while self._assign():
            yield self._collect()

    def close(self) -> None:
        """End all actors."""
        for actor in [*self._load, *self._starting.values()]:
            ray.kill(actor)

    def _resize(self) -> None:
        """As many actors as are wanted now; of too many, those that have not begun go."""
        if time.monotonic() - self._resized < _RESIZE_S:
            return
        self._resized = time.monotonic()
        lacking = self._num_actors() - len(self._load) - len(self._starting)
        for _ in range(lacking):
            self._add_actor()
        for ref in list(self._starting)[: max(-lacking, 0)]:
            ray.kill(self._starting.pop(ref))

    def _add_actor(self) -> None:
        actor = self._start_actor()
        self._starting[actor.__ray_ready__.remote()] = actor

    def _assign(self) -> bool:
        """Fill the actors that are up, least loaded first. False when nothing is owed any more."""
        self._resize()
        self._hedge()
        paused = False
        for actor in sorted(self._load, key=self._load.__getitem__):
            while self._load[actor] < self._blocks_per_actor and not paused:
                block_id = self._next_id()
                if block_id is None:
                    paused = True
                else:
                    self._owed.setdefault(block_id, time.monotonic())
                    self._flying[actor.run.remote(block_id)] = actor, block_id
                    self._load[actor] += 1
        return bool(self._owed) or not self._exhausted

    def _next_id(self) -> BlockId | None:
        if self._again:
            return self._again.popleft()
        if self._exhausted:
            return None
        try:
            return next(self._block_ids)
        except StopIteration:
            self._exhausted = True
            return None

    def _collect(self) -> Iterator[tuple[BlockId, Any]]:
        """Wait up to a second; yield the blocks that arrived and note who joined or died."""
        refs = [*self._flying, *self._starting]
        if not refs:
            time.sleep(0.05)
            return
        arrived, _ = ray.wait(refs, num_returns=1, timeout=1)
        if arrived:
            moment = _GATHER_S if len(refs) > 2 * _BATCH else 0
            arrived, _ = ray.wait(refs, num_returns=min(_BATCH, len(refs)), timeout=moment)
        answers = _answers(arrived)
        for ref in arrived:
            if ref in self._starting:
                actor, block_id = self._starting.pop(ref), None
            else:
                actor, block_id = self._flying.pop(ref)
            try:
                block = answers[ref] if answers else ray.get(ref)
            except RayTaskError:  # our code or the user's model, the same on every actor
                logger.error("block %s failed", block_id)
                raise
            except _LOST as error:
                self._bury(actor, block_id, error)
                continue
            if block_id is None:
                self._load[actor] = 0
                continue
            self.received += 1
            if actor in self._load:
                self._load[actor] -= 1
            if self._owed.pop(block_id, None) is None:
                self.repeated += 1
            else:
                yield block_id, block

    def _hedge(self) -> None:
        oldest = next(iter(self._owed), None)
        if oldest is None or oldest in self._again:
            return
        if time.monotonic() - self._owed[oldest] > self._hedge_s:
            del self._owed[oldest]  # goes to the end, as issued now
            self._owed[oldest] = time.monotonic()
            self._again.appendleft(oldest)

    def _bury(self, actor: Actor, block_id: BlockId | None, error: Exception) -> None:
        if block_id in self._owed and block_id not in self._again:
            self._again.append(block_id)
        if block_id is not None and actor not in self._load:
            return  # old news: one of several calls that died with it
        self.lost += 1
        if getattr(error, "actor_init_failed", False) or self.lost > self._max_lost:
            raise error
        logger.warning("actor lost (%d so far): %s", self.lost, type(error).__name__)
        self._load.pop(actor, None)
        ray.kill(actor)  # one that is only unavailable must not come back
        self._add_actor()


def _answers(refs: list[Any]) -> dict[Any, Any]:
    """All answers at once, which takes half the time; nothing if one of them is an error."""
    try:
        return dict(zip(refs, ray.get(refs), strict=True))
    except RayError:  # told apart one by one
        return {}
