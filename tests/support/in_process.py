"""The tasks of a step in this process rather than on Ray."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

STEPS = (
    *("reading", "training", "extraction", "out_of_fold", "evidence", "conflicts", "dropping"),
    *("probing", "removing", "group_values"),
)


def run_tasks(function: Callable[..., Any], jobs: Sequence[Any], step: Any, _: Any) -> list[Any]:
    """As `dcai_ray.cluster.task_pool.run_tasks`."""
    tick = (lambda done: None,) if step.reports_progress else ()
    return [function(job, *tick) for job in jobs]


def patch(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any] = run_tasks) -> None:
    """Let all steps run their tasks so."""
    for step in STEPS:
        monkeypatch.setattr(f"dcai_ray.steps.{step}.run_tasks", run)
