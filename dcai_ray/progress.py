"""What a person sees while a step runs: a bar on a terminal, a plain line now and then elsewhere.

Everything goes to stderr, so that stdout holds results alone.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_EVERY_S = 5.0
_MIN_RATE_S = 0.5
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def say(message: str) -> None:
    """One line for the person who waits; no name in it can command the terminal."""
    print(_CONTROL.sub(lambda found: repr(found[0])[1:-1], message), file=sys.stderr, flush=True)


@contextmanager
def step(name: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    """Show a step of `total` units; yields a function that is told how many are done by now."""
    if sys.stderr.isatty():
        yield from _bar(name, total, unit)
    else:
        yield from _lines(name, total, unit)


@contextmanager
def live(name: str) -> Iterator[Callable[[str], None]]:
    """Show how something without a known end goes; yields a function that is told in words."""
    if sys.stderr.isatty():
        with Console(stderr=True).status(f"{name} ...") as status:
            yield lambda text: status.update(f"{name}: {escape(text)}")
        return
    last = float("-inf")
    text_now = ""

    def tell(text: str) -> None:
        nonlocal last, text_now
        text_now = text
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            say(f"{name}: {text}")

    yield tell
    say(f"{name}: {text_now}; done")


def _bar(name: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{name:<22}", total=total, unit=unit, rate="")
        start = time.monotonic()

        def done(count: float) -> None:
            rate = count / max(time.monotonic() - start, _MIN_RATE_S)
            progress.update(task, completed=count, rate=f"{rate:.1f}/s")

        yield done


def _lines(name: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    start = last = time.monotonic()
    say(f"{name}: {total} {unit}")
    finished = 0.0

    def done(count: float) -> None:
        nonlocal last, finished
        finished = count
        now = time.monotonic()
        if now - last >= _EVERY_S and count < total:
            last = now
            rate = count / (now - start)
            left = f", {(total - count) / rate:.0f} s left" if rate > 0 else ""
            say(f"{name}: {count:g} of {total} {unit}, {rate:.2g}/s{left}")

    yield done
    say(f"{name}: {finished:g} of {total} {unit} in {time.monotonic() - start:.1f} s")
