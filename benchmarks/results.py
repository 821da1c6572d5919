"""The output of the benchmarks: a Markdown table of measurements with their targets."""

from collections.abc import Sequence
from typing import NamedTuple


class Result(NamedTuple):
    """One line."""

    what: str
    target: str
    figure: str


def print_results(
    title: str,
    results: Sequence[Result],
    head: tuple[str, str, str] = ("benchmark", "target", "measured"),
) -> None:
    """Print a section with its table."""
    print(f"\n## {title}\n\n| {' | '.join(head)} |\n|---|---|---|")
    for result in results:
        print(f"| {' | '.join(result)} |", flush=True)
