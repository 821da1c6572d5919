"""Blocks computed on an elastic pool of Ray actors and streamed to the driver, whatever is lost.

A block is a pure function of its id, so a lost block is computed again and a second answer is
dropped. Nothing waits for a particular actor:

- an actor is given work only after it has reported that it is up, and never more than a few blocks;
- at the first sign of a lost process or node the actor is replaced and its blocks go to others;
  actors that wait for a free core make an autoscaler add nodes;
- a block that is outstanding for too long (its node has gone silent) is given to a second actor,
  and the first answer wins;
- the number of actors wanted is determined anew every few seconds, so the pool follows the cluster.

`ledger` makes these decisions; this module carries them out. The consumer decides when it has seen
enough: leaving the loop ends the actors.
"""

import logging
import time
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

from dcai_ray.cluster import liveness
from dcai_ray.cluster.ledger import ActorLedger, BlockLedger

logger = logging.getLogger(__name__)

# The node failed, not the code: the block is worth computing again.
_LOST = (RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError, OutOfMemoryError)
# Answers are fetched many at a time, and in a big pool they are given a moment to gather: each call
# to Ray costs the driver as much as merging several blocks.
_BATCH = 64
_GATHER_S = 0.02
_TURN_S = 1.0
_NO_ACTOR_S = 0.05  # pause while there is nobody to wait for

Actor = Any  # a handle, which is a generic type in some versions of Ray and not in others


@contextmanager
def stream_blocks(
    start_actor: Callable[[], Actor],
    block_ids: Iterator[Hashable | None],
    *,
    num_actors: Callable[[], int],
    blocks_per_actor: int = 2,
    hedge_s: float = 60.0,
    max_lost: int = 100,
) -> Iterator["Pool"]:
    """A pool to iterate over: (id, block) once for every id, in order of arrival.

    Args:
        start_actor: returns a new actor with a method `run(block_id) -> block`; it must be started
            with `max_restarts=0`, because lost actors are replaced here.
        block_ids: ids in the order in which they are wanted, possibly without end; None means that
            there is none at the moment and that the pool should ask again.
        num_actors: returns how many actors there should be now; those that exceed the free cores
            wait until cores are free.
        blocks_per_actor: maximum number of blocks in flight to one actor; with two or more, an
            actor never waits for the driver.
        hedge_s: seconds after which an outstanding block is given to a second actor as well.
        max_lost: number of actors that may be lost before the pool gives up.
    Raises:
        RayTaskError: `run` failed, as it would on every actor; also an instance of the cause.
        RayActorError: an actor could not be started, or more than `max_lost` were lost.
    """
    blocks = BlockLedger(block_ids, hedge_s=hedge_s)
    ledger = ActorLedger(blocks, num_actors, blocks_per_actor=blocks_per_actor, max_lost=max_lost)
    pool = Pool(start_actor, ledger)
    try:
        yield pool
    except liveness.ClusterEnded:
        pool.abandon()
        raise
    finally:
        pool.close()


class Pool:
    """Carries out what the ledger decides, and reports to it what happened."""

    def __init__(self, start_actor: Callable[[], Actor], ledger: ActorLedger) -> None:
        self._start_actor, self._ledger = start_actor, ledger
        # The actor and the block of each call that was not answered yet; None instead of a block:
        # the call by which a starting actor reports that it is up.
        self._calls: dict[Any, tuple[Actor, Hashable | None]] = {}
        self._watch = liveness.watch()
        self._abandoned = False

    @property
    def num_up(self) -> int:
        """Number of actors at work."""
        return self._ledger.num_up

    @property
    def num_starting(self) -> int:
        """Number of actors that wait for a core or are starting."""
        return self._ledger.num_starting

    @property
    def lost(self) -> int:
        """Number of actors lost so far."""
        return self._ledger.lost

    @property
    def received(self) -> int:
        """Number of blocks received so far, including repeated ones."""
        return self._ledger.received

    @property
    def repeated(self) -> int:
        """Number of blocks dropped so far because they had arrived before."""
        return self._ledger.repeated

    def __iter__(self) -> Iterator[tuple[Hashable, Any]]:
        for blocks in self.turns():
            yield from blocks

    def turns(self) -> Iterator[Iterator[tuple[Hashable, Any]]]:
        """Turns of about a second at most: the blocks that arrive in each of them, perhaps none."""
        while self._submit():
            yield self._collect()

    def abandon(self) -> None:
        """Leave the actors alone, as nobody would answer."""
        self._abandoned = True

    def close(self) -> None:
        """End all actors."""
        if self._abandoned:
            return
        for actor in self._ledger.actors:
            ray.kill(actor)

    def _submit(self) -> bool:
        """Start and end actors and submit blocks; False once every block has been delivered."""
        self._watch.look()
        now = time.monotonic()
        num_missing, surplus = self._ledger.resize(now)
        for _ in range(num_missing):
            self._add_actor()
        for actor in surplus:
            self._end_starting(actor)
        for actor, block_id in self._ledger.assign(now):
            self._calls[actor.run.remote(block_id)] = actor, block_id
        return not self._ledger.is_done

    def _add_actor(self) -> None:
        actor = self._start_actor()
        self._ledger.request(actor)
        self._calls[actor.__ray_ready__.remote()] = actor, None

    def _end_starting(self, actor: Actor) -> None:
        ray.kill(actor)
        self._calls = {ref: call for ref, call in self._calls.items() if call[0] is not actor}

    def _collect(self) -> Iterator[tuple[Hashable, Any]]:
        """Wait up to a second; yield the blocks that arrived and report actors started or lost."""
        arrived = self._wait()
        answers = _answers(arrived)
        for ref in arrived:
            actor, block_id = self._calls.pop(ref)
            try:
                block = answers[ref] if answers else ray.get(ref)
            except RayTaskError:  # our code or the user's model, which fails on every actor
                logger.error("block %s failed", block_id)
                raise
            except _LOST as error:
                self._replace(actor, block_id, error)
                continue
            if block_id is None:
                self._ledger.start(actor)
            elif self._ledger.answer(actor, block_id):
                yield block_id, block

    def _wait(self) -> list[Any]:
        """The calls that were answered within a turn, by a block or by an error."""
        refs = list(self._calls)
        if not refs:
            time.sleep(_NO_ACTOR_S)
            return []
        arrived, _ = ray.wait(refs, num_returns=1, timeout=_TURN_S)
        if arrived:
            moment = _GATHER_S if len(refs) > 2 * _BATCH else 0
            arrived, _ = ray.wait(refs, num_returns=min(_BATCH, len(refs)), timeout=moment)
        return arrived

    def _replace(self, actor: Actor, block_id: Hashable | None, error: Exception) -> None:
        if not self._ledger.lose(actor, block_id):
            return
        ray.kill(actor)  # one that is only unavailable must not come back
        if getattr(error, "actor_init_failed", False) or self._ledger.has_lost_too_many:
            raise error
        logger.warning("actor lost (%d so far): %s", self.lost, type(error).__name__)
        self._add_actor()


def _answers(refs: list[Any]) -> dict[Any, Any]:
    """All answers at once, which takes half the time; empty if one of them is an error."""
    try:
        return dict(zip(refs, ray.get(refs), strict=True))
    except RayError:  # the caller then fetches them one by one to find it
        return {}
