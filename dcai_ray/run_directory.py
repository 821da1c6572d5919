"""One run's folder: where each file is, which settings it belongs to, what was done when.

config.yaml           the settings of the steps done so far
run.json              versions, and of each step its fingerprint, seconds and what it found
images.parquet        every image: split, id, class, size, content hash; skipped.parquet the rest
baseline/, cleaned/   metrics.parquet, model-<arm>-<backbone>-<seed>.safetensors
features/<split>/     part-00000.parquet ..., _manifest.json
values/values.parquet kept.parquet report.html
run.log               what the commands logged, see `cli.logs`
"""

import json
import logging
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import yaml

from dcai_ray.config import STOPPING, differences, load_yaml
from dcai_ray.errors import UserError
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

_PACKAGES = ("dcai_ray", "numpy", "scikit-learn", "torch", "torchvision", "ray", "pyarrow", "numba")

# What the step of a section writes: until that is there, the section may still change.
_WRITES = {
    "data": "images.parquet",
    "images": "images.parquet",
    "finetune": "baseline",
    "extract": "features",
    "features": "values",
    "value": "values",
    "sample": "values",
    "retrain": "cleaned/probes.parquet",
}
logger = logging.getLogger(__name__)

_MAY_CHANGE = {f"sample.{name}" for name in STOPPING}  # sampling goes on from what is there


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The folder of one run, local or remote."""

    location: Location
    features: Location = field(default=None)  # type: ignore[assignment]
    """Where the features are; in the folder itself by default."""

    def __post_init__(self) -> None:
        if self.features is None:
            object.__setattr__(self, "features", self.location / "features")

    @property
    def images(self) -> Location:
        """The manifest of the data."""
        return self.location / "images.parquet"

    @property
    def skipped(self) -> Location:
        """Images left out as unreadable."""
        return self.location / "skipped.parquet"

    @property
    def values(self) -> Location:
        """The value of every training image."""
        return self.location / "values/values.parquet"

    @property
    def trace(self) -> Location:
        """How sampling went, a check a row."""
        return self.location / "values/trace.parquet"

    @property
    def check(self) -> Location:
        """Values of another utility, sampled for comparison."""
        return self.location / "check/values.parquet"

    @property
    def check_trace(self) -> Location:
        """How that sampling went."""
        return self.location / "check/trace.parquet"

    def other_values(self, semivalue: str) -> Location:
        """The values of another semivalue from the same orders."""
        return self.location / f"values/values-{semivalue}.parquet"

    @property
    def kept(self) -> Location:
        """The training images that the rule keeps."""
        return self.location / "kept.parquet"

    @property
    def probes(self) -> Location:
        """Scores of the probes on features, an arm and seed a row."""
        return self.location / "cleaned/probes.parquet"

    @property
    def report(self) -> Location:
        """What a person reads."""
        return self.location / "report.html"

    def read_values(self) -> pa.Table:
        """The values, complete, with what the rule keeps.

        Raises:
            UserError: their sampling was interrupted, or the file is damaged.
            OSError: there are none.
        """
        values = parquet.read_table(self.values)
        if not parquet.is_up_to_date(self.kept, parquet.fingerprint_of(self.values)):
            raise UserError(
                f"{self.values}: values so far, of a sampling that is not finished; the same "
                "dcai-ray value goes on"
            )
        return values

    def metrics(self, step: str) -> Location:
        """Learning curves of a step: baseline or cleaned."""
        return self.location / f"{step}/metrics.parquet"

    def model(self, step: str, arm: str, backbone: str, seed: int) -> Location:
        """A trained network."""
        return self.location / f"{step}/model-{arm}-{backbone}-{seed}.safetensors"

    def settings(self) -> dict[str, Any]:
        """The settings of the steps done so far; empty for a new folder."""
        file = self.location / "config.yaml"
        if not file.exists():
            return {}
        content = file.read_bytes()
        try:
            settings = load_yaml(content, file.uri)
        except UserError:
            settings = None
        if not isinstance(settings, dict):
            raise UserError(f"{file}: not the settings of a run; use another --run")
        return settings

    def bind_settings(self, sections: dict[str, Any]) -> None:
        """Make the folder these settings' own, or see that it is.

        Settings of a step that has written nothing yet, such as a mistaken file of weights, bind
        nobody.

        Args:
            sections: plain settings by step; those of other steps stay as they are.
        Raises:
            UserError: the folder was made with other settings; the differing keys are named.
        """
        there = self.settings()
        bound = {key: entry for key, entry in there.items() if self._has_used(key)}
        other = [
            each for each in differences(bound, sections) if each.split(":")[0] not in _MAY_CHANGE
        ]
        if other:
            raise UserError(
                f"{self.location} was made with other settings ({'; '.join(other)}); "
                "use another --run, or the same settings"
            )
        merged = {**there, **sections}
        if merged != there:
            text = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True)
            (self.location / "config.yaml").write_bytes(text.encode())

    def _has_used(self, section: str) -> bool:
        return (self.location / _WRITES.get(section, "config.yaml")).exists()

    def record(self) -> dict[str, Any]:
        """What run.json says; empty for a new folder."""
        file = self.location / "run.json"
        content = file.read_bytes() if file.exists() else b"{}"
        try:
            record = json.loads(content)
        except (json.JSONDecodeError, UnicodeDecodeError):
            record = None
        if not isinstance(record, dict):
            raise UserError(f"{file}: damaged; delete it, it is written again")
        return record

    def record_step(self, step: str, fingerprint: str, seconds: float, **found: Any) -> None:
        """Write into run.json that a step was done."""
        steps = self.record().get("steps", {})
        steps[step] = {"fingerprint": fingerprint, "seconds": round(seconds, 2), **found}
        self.record_section("steps", **steps)
        logger.info("step %s: done in %.2f s", step, seconds, extra={"work": True})

    def record_section(self, section: str, **found: Any) -> None:
        """Write one section of run.json anew, beside the versions."""
        record = self.record()
        record["versions"] = {"python": platform.python_version(), **package_versions()}
        record[section] = found
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        (self.location / "run.json").write_bytes(text.encode())


def package_versions() -> dict[str, str]:
    """Versions of this package and of those that results depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
