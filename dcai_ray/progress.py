"""Progress of a running step: a bar on a terminal, a plain line every few seconds elsewhere.

Everything goes to stderr, so that stdout holds only results. Each line is also a log record of the
logger `dcai_ray.progress`; records that mark the beginning or the end of work carry `work=True`,
so that a log knows when there is something to keep.
"""

import logging
import math
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
_WIDE = 120  # columns from which a bar shows its units and the time that has passed, too
_NAME = 28  # columns of the name of a step
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


_quiet = False

_logger = logging.getLogger(__name__)
_logger.addHandler(logging.NullHandler())  # what was printed needs no handler of last resort


def set_quiet(quiet: bool) -> None:
    """Show only warnings and errors from now on, or everything again."""
    global _quiet
    _quiet = quiet


def escaped(text: str) -> str:
    """The text with its control characters escaped, except newlines."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def say(message: str, level: int = logging.INFO) -> None:
    """Print one line to stderr, control characters escaped, and log it.

    Args:
        message: the line.
        level: level of the log record; below WARNING, nothing is printed in quiet mode.
    """
    _emit(message, level)


def warn(message: str) -> None:
    """Print and log a warning; it is shown in quiet mode too."""
    say(f"warning: {message}", logging.WARNING)


@contextmanager
def step(name: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    """Show a step of `total` units; yields a function that takes the number done so far.

    Args:
        name: name of the step.
        total: number of units; at least 0.
        unit: the units, in the plural ("images").
    """
    if _has_bars():
        yield from _bar(name, total, unit)
    else:
        yield from _lines(name, total, unit)


@contextmanager
def live(name: str) -> Iterator[Callable[[str], None]]:
    """Show work without a known end; yields a function that takes its present state in words."""
    _emit(f"{name} begins", work=True, shown=False)
    bars = _has_bars()
    last = float("-inf")
    text_now = ""
    with Console(stderr=True).status(f"{name} ...") if bars else nullcontext() as status:

        def show(text: str) -> None:
            nonlocal last, text_now
            text_now = text
            if status is not None:
                status.update(f"{name}: {escape(text)}")
            elif time.monotonic() - last >= _EVERY_S:
                last = time.monotonic()
                say(f"{name}: {text}")

        yield show
    _emit(f"{name}: {text_now}; done", shown=not bars)


def counted(count: float, unit: str, of: float | None = None) -> str:
    """A count with its unit: "1 image", "3 images", "2 of 3 images".

    Args:
        count: the number of units.
        unit: the units, in the plural; an s that ends a word is dropped in the singular.
        of: the total, if the count is a part of one.
    """
    whole = count if of is None else of
    noun = re.sub(r"s\b", "", unit, count=1) if whole == 1 else unit
    return f"{count:.10g} {noun}" if of is None else f"{count:.10g} of {of:.10g} {noun}"


def _emit(
    message: str, level: int = logging.INFO, *, work: bool = False, shown: bool = True
) -> None:
    """Log a line and, where it is to be shown, print it."""
    _logger.log(level, "%s", message, extra={"work": work})
    if shown and (level >= logging.WARNING or not _quiet):
        print(escaped(message), file=sys.stderr, flush=True)


def _has_bars() -> bool:
    return sys.stderr.isatty() and not _quiet


def _bar(name: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    console = Console(stderr=True)
    noun = counted(total, unit).partition(" ")[2]
    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    if console.width >= _WIDE:
        columns[3:4] = [TextColumn(f"{escape(noun)}  {{task.fields[rate]}}"), TimeElapsedColumn()]
    shown = name if len(name) <= _NAME or console.width >= _WIDE else f"{name[: _NAME - 3]}..."
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{shown:<{_NAME}}", total=total, rate="")
        start = time.monotonic()
        finished = 0.0
        _emit(f"{name}: {counted(total, unit)}", work=True, shown=False)

        def done(count: float) -> None:
            nonlocal finished
            finished = count
            rate = _rate(count, max(time.monotonic() - start, _MIN_RATE_S))
            progress.update(task, completed=count, rate=rate)

        yield done
    _emit(_finished(name, finished, total, unit, start), shown=False)


def _lines(name: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    start = last = time.monotonic()
    _emit(f"{name}: {counted(total, unit)}", work=True)
    finished = 0.0

    def done(count: float) -> None:
        nonlocal last, finished
        finished = count
        now = time.monotonic()
        if now - last >= _EVERY_S and count < total:
            last = now
            pace = ""  # unknown while nothing is done
            if count > 0:
                left_s = (total - count) * (now - start) / count
                pace = f", {_rate(count, now - start)}, {left_s:.0f} s left"
            say(f"{name}: {counted(count, unit, of=total)}{pace}")

    yield done
    say(_finished(name, finished, total, unit, start))


def _finished(name: str, finished: float, total: int, unit: str, start: float) -> str:
    return f"{name}: {counted(finished, unit, of=total)} in {time.monotonic() - start:.1f} s"


def _rate(count: float, seconds: float) -> str:
    """Units per second to two digits, never in powers of ten: "550/s"; "" while nothing is done."""
    if count <= 0:
        return ""
    rate = count / seconds
    digits = max(1 - math.floor(math.log10(rate)), 0)
    return f"{rate:.{digits}f}/s"
