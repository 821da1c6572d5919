"""What benchmarks print: a Markdown table of what was measured, its target and the figure."""

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
    head: tuple[str, str, str] = ("what", "target", "measured"),
) -> None:
    """Print a section with its table."""
    print(f"\n## {title}\n\n| {' | '.join(head)} |\n|---|---|---|")
    for result in results:
        print(f"| {' | '.join(result)} |", flush=True)
