"""What of a run is done: the steps of its commands, and how far the unfinished one is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dcai_ray.run_directory import RunDirectory

_STEPS = {
    "images": ("images",),
    "baseline": ("finetune",),
    "features": ("extract",),
    "values": ("value",),
    "probes": ("retrain",),
    "cleaned": ("finetune", "retrain"),
}
"""Steps in order, each with the sections that a run is bound to if one of its commands takes it."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """One step of a run."""

    name: str
    seconds: float | None
    """What it took; None while it is not done."""
    parts: str = ""
    """How far it is, in words; empty if it is done or has not begun."""

    @property
    def line(self) -> str:
        """The step in one line."""
        done = f"done in {self.seconds:g} s" if self.seconds is not None else "not done"
        return f"{self.name:<10}{done}{f', {self.parts}' if self.parts else ''}"


def steps_of(run: RunDirectory) -> list[StepDone]:
    """The steps that the commands of this run take, done or not."""
    settings, record = run.settings(), run.record()
    done = record.get("steps", {})
    found = []
    for name, sections in _STEPS.items():
        # Networks fine-tuned as evidence are no baseline: an audit has none.
        if name not in done and not all(section in settings for section in sections):
            continue
        if name == "baseline" and name not in done and _only_evidence(settings):
            continue
        seconds = done[name]["seconds"] if name in done else None
        parts = _shards(run, settings, done) if name == "features" and seconds is None else ""
        found.append(StepDone(name, seconds, parts))
    return found


def _only_evidence(settings: dict[str, Any]) -> bool:
    by_itself = settings.get("value", {}).get("evidence") == "finetune"
    return by_itself and "retrain" not in settings


def _shards(run: RunDirectory, settings: dict[str, Any], done: dict[str, Any]) -> str:
    """How many shards of features are there: "3 of 6 shards"; empty if that is not known."""
    images = done.get("images", {}).get("images", {})
    size = settings.get("extract", {}).get("shard_size")
    if not images or not size or not run.features.exists():
        return ""
    total = sum(-(-count // size) for count in images.values())
    there = sum(_is_shard(name) for name, _ in run.features.walk())
    return f"{there} of {total} shards"


def _is_shard(name: str) -> bool:
    parts: Sequence[str] = name.split("/")
    return parts[-1].startswith("part-") and parts[-1].endswith(".parquet")
