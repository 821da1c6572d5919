"""What commands print on stdout: lines for people, or one JSON object for scripts."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from dcai_ray import progress
from dcai_ray.cli.flags import Shown
from dcai_ray.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def print_done(shown: Shown, text: str, **facts: Any) -> None:
    """What a command has done: a line, or the facts as JSON."""
    print(json.dumps(facts) if shown.json else text)


def print_results(directory: RunDirectory, shown: Shown) -> None:
    """The report, the list of suspects, and what is printed of them."""
    from dcai_ray.report import terminal
    from dcai_ray.report.as_json import results
    from dcai_ray.report.findings import read_findings, summary
    from dcai_ray.report.page import write_report
    from dcai_ray.report.suspect_list import write_suspects

    findings = read_findings(directory)
    _log(summary(findings))
    write_report(findings)
    write_suspects(findings)
    if shown.json:
        print(json.dumps(results(findings)))
        return
    parts = (terminal.worst(findings), terminal.accuracies(findings), terminal.summary(findings))
    print("\n\n".join(progress.escaped("\n".join(lines)) for lines in parts if lines))


def _log(results: Sequence[str]) -> None:
    """Results in whole, for those who look later."""
    for text in results:
        logger.info("%s", text)
