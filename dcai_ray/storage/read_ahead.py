"""Reading ahead: files are fetched and decoded in threads while earlier ones are being used.

An object store takes tens of milliseconds to answer, so many requests have to be in flight; a core
decodes one image at a time, so few decoders are enough. The number of results held ahead is
bounded, and the order is kept.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(function: Callable[[T], R], arguments: Iterable[T], threads: int) -> Iterator[R]:
    """Yield function(argument) for each argument, in order, computed a little ahead in threads."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for argument in arguments:
                pending.append(pool.submit(function, argument))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
