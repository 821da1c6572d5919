"""Chains on Ray: actors compute blocks, the aggregator in the driver merges them in order.

An actor is a thin shell around `run_block`, with one core and one thread. The utility, with its
arrays, goes to the object store once, and the actors of a node share one copy of it. The aggregator
lives in the driver, so only the loop in `stream_chains` decides when to stop.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from threadpoolctl import threadpool_limits

from dcai_ray.cluster import connection
from dcai_ray.cluster.actor_pool import Pool, stream_blocks
from dcai_ray.cluster.preflight import check_nodes, check_packages, installed
from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ClusterError, UserError, can_be_mended
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.blocks import Block, BlockId, run_block
from dcai_ray.valuation.plan import Plan
from dcai_ray.valuation.sampling import block_ids
from dcai_ray.valuation.utilities import Utility

_BLOCKS_PER_ACTOR = 2
_SPARE_WAVES = 2  # started beyond those that keep every actor busy


class Chain:
    """Computes blocks of any chain; wrapped as a Ray actor where it is used."""

    def __init__(self, plan: Plan, utility: Utility, packages: Mapping[str, str]) -> None:
        # First, because Ray asks for the name even of an actor whose constructor fails.
        self._plan, self._utility = plan, utility
        check_packages(packages)

    def __repr__(self) -> str:
        # Its name in Ray's dashboard.
        return f"Chain({type(self._utility).__name__}, {self._plan.num_players} points)"

    def run(self, block_id: BlockId) -> Block:
        """Compute the block (chain, index), and record the seconds that it took."""
        start = time.perf_counter()
        with threadpool_limits(1):  # their number decides the last bits of a product
            block = run_block(self._plan, self._utility, *block_id)
        return replace(block, seconds=time.perf_counter() - start)


def stream_chains(
    plan: Plan,
    utility: Utility,
    aggregator: Aggregator,
    resources: ResourcesConfig,
    after: Callable[[Pool], bool],
) -> int:
    """Compute blocks on the cluster until the aggregator has seen enough.

    Args:
        plan: defines the blocks.
        utility: the game whose marginals the blocks hold.
        aggregator: new or restored; it holds the result afterwards.
        resources: the cluster to join or to start, and the number of actors to request.
        after: called with the pool whenever blocks have arrived or a second has passed without
            any; it returns True to stop with the waves that are complete.
    Returns:
        Number of actors that were lost and replaced.
    Raises:
        ModelError: a model fails; the message names the coalition.
        UserError: a node of the cluster cannot take part.
        ClusterError: actors were lost again and again.
        RuntimeError: the code of the utility fails; it has the worker's traceback as its cause.
    """
    connection.connect(resources)
    check_nodes(None)
    shared = ray.put(utility)
    actor: Any = ray.remote(**connection.actor_options(resources))(Chain)
    num_chains = len(aggregator.chains)

    def num_actors() -> int:
        return connection.num_workers(resources)

    def waves_ahead() -> int:
        return -(-_BLOCKS_PER_ACTOR * num_actors() // num_chains) + _SPARE_WAVES

    with stream_blocks(
        lambda: actor.remote(plan, shared, installed()),
        block_ids(aggregator, waves_ahead),
        num_actors=num_actors,
        blocks_per_actor=_BLOCKS_PER_ACTOR,
        hedge_s=resources.hedge_s,
    ) as pool:
        try:
            for blocks in pool.turns():
                for _, block in blocks:
                    aggregator.add(block)
                if after(pool) or aggregator.done:
                    break
        except RayTaskError as error:
            if can_be_mended(error.cause):
                raise error.cause from None
            raise RuntimeError(
                f"the utility {type(utility).__name__} failed in a worker, whose traceback is above"
            ) from error
        except RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                name, _, message = _last_line(error).partition(": ")
                if name.endswith(UserError.__name__):
                    raise UserError(message) from None
                raise
            raise ClusterError(
                f"workers died {pool.lost} times ({_first_line(error)}); run the same command "
                "again to resume from the last checkpoint"
            ) from None
        return pool.lost


def _last_line(error: BaseException) -> str:
    """The actor's own error, with which Ray's message on an actor that cannot start ends."""
    return str(error).strip().splitlines()[-1].strip()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
