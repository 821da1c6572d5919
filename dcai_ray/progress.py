"""What a person sees while a step runs: a bar on a terminal, a plain line now and then elsewhere.

Everything goes to stderr, so that stdout holds results alone. Each line is a log record too, of the
logger `dcai_ray.progress`; records that mark the beginning or the end of work carry `work=True`,
which is how a log knows that there is something to keep.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

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


_quiet = False

_logger = logging.getLogger(__name__)
_logger.addHandler(logging.NullHandler())  # what was printed needs no handler of last resort


def set_quiet(quiet: bool) -> None:
    """Show nothing but warnings and errors from here on, or everything again."""
    global _quiet
    _quiet = quiet


def escaped(text: str) -> str:
    """The text with its control characters escaped, all but the newline."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def say(message: str, level: int = logging.INFO) -> None:
    """One line for the person who waits; no name in it can command the terminal.

    Args:
        message: what is printed to stderr and logged.
        level: of the log record; below a warning, nothing is printed in quiet mode.
    """
    _tell(message, level)


def warn(message: str) -> None:
    """A warning for the person who waits, shown in quiet mode too."""
    say(f"warning: {message}", logging.WARNING)


@contextmanager
def step(name: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    """Show a step of `total` units; yields a function that is told how many are done by now."""
    if _has_bars():
        yield from _bar(name, total, unit)
    else:
        yield from _lines(name, total, unit)


@contextmanager
def live(name: str) -> Iterator[Callable[[str], None]]:
    """Show how something without a known end goes; yields a function that is told in words."""
    _tell(f"{name} begins", work=True, shown=False)
    bars = _has_bars()
    last = float("-inf")
    text_now = ""
    with Console(stderr=True).status(f"{name} ...") if bars else nullcontext() as status:

        def tell(text: str) -> None:
            nonlocal last, text_now
            text_now = text
            if status is not None:
                status.update(f"{name}: {escape(text)}")
            elif time.monotonic() - last >= _EVERY_S:
                last = time.monotonic()
                say(f"{name}: {text}")

        yield tell
    _tell(f"{name}: {text_now}; done", shown=not bars)


def _tell(
    message: str, level: int = logging.INFO, *, work: bool = False, shown: bool = True
) -> None:
    """Log a line and, where it is to be shown, print it."""
    _logger.log(level, "%s", message, extra={"work": work})
    if shown and (level >= logging.WARNING or not _quiet):
        print(escaped(message), file=sys.stderr, flush=True)


def _has_bars() -> bool:
    return sys.stderr.isatty() and not _quiet


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
        finished = 0.0
        _tell(f"{name}: {total} {unit}", work=True, shown=False)

        def done(count: float) -> None:
            nonlocal finished
            finished = count
            rate = count / max(time.monotonic() - start, _MIN_RATE_S)
            progress.update(task, completed=count, rate=f"{rate:.1f}/s")

        yield done
    _tell(_finished(name, finished, total, unit, start), shown=False)


def _lines(name: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    start = last = time.monotonic()
    _tell(f"{name}: {total} {unit}", work=True)
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
    say(_finished(name, finished, total, unit, start))


def _finished(name: str, finished: float, total: int, unit: str, start: float) -> str:
    return f"{name}: {finished:g} of {total} {unit} in {time.monotonic() - start:.1f} s"
