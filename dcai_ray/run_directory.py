"""The folder of one run: its files, the settings it is bound to, and the record of its steps.

config.yaml           the settings of the steps done so far
run.json              versions; fingerprint, seconds and findings of each step
images.parquet        every readable image: split, id, class, size, content hash
skipped.parquet       the unreadable images
baseline/, cleaned/   metrics.parquet, model-<arm>-<backbone>-<seed>.safetensors
crossfit/             the same for networks of one fold each, probabilities.parquet
features/<split>/     part-00000.parquet ...; features/_<split>.json: the split is complete
values/values.parquet, values/evidence.parquet, values/_known.arrays, kept.parquet
suspects.csv, report.html
README.md             what these files are, for people and for Hugging Face's `datasets`
run.log               what the commands logged, see `cli.logs`
"""

import hashlib
import json
import logging
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import yaml

from dcai_ray.config import RULE_SETTINGS, STOPPING, differences, load_yaml
from dcai_ray.errors import UserError
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

_PACKAGES = ("dcai_ray", "numpy", "scikit-learn", "torch", "torchvision", "ray", "pyarrow", "numba")

# The first outputs of a section's steps: until one it exists, the section may still change.
_WRITES = {
    "data": ("images.parquet",),
    "list": ("images.parquet",),
    "splits": ("images.parquet",),
    "texts": ("features",),
    "images": ("images.parquet",),
    "finetune": ("baseline", "crossfit"),
    "extract": ("features",),
    "features": ("values",),
    "value": ("values",),
    "sample": ("values",),
    "retrain": ("cleaned/probes.parquet",),
}
# Its head tells Hugging Face's `datasets` which files are one table: load_dataset(RUN, "values").
_README = """---
configs:
- config_name: values
  default: true
  data_files: values/values.parquet
- config_name: evidence
  data_files: values/evidence.parquet
- config_name: images
  data_files: images.parquet
- config_name: kept
  data_files: kept.parquet
- config_name: probes
  data_files: cleaned/probes.parquet
- config_name: removal
  data_files: cleaned/removal.parquet
---
# A run of dcai-ray

| file | content |
|---|---|
| report.html | what was found, with the images: open it in a browser |
| suspects.csv | the images whose labels are in doubt, most suspicious first |
| values/values.parquet | per training image: value, decision, suggested label, P(wrong), tier |
| values/evidence.parquet | every piece of evidence about these labels |
| features/ | a feature vector per image, a folder per split |
| kept.parquet | what the rule keeps |
| baseline/, cleaned/ | trained networks, and how they do before and after cleaning |
| config.yaml, run.json, run.log | settings; versions, times and findings; log |

Any reader of Parquet opens the tables. Rerun the same command to resume or to check what is there.
"""
logger = logging.getLogger(__name__)

_MAY_CHANGE = {f"sample.{name}" for name in STOPPING}  # sampling resumes with other stopping rules
_RULE = {f"value.{name}" for name in RULE_SETTINGS}  # exact values do not depend on it


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The folder of one run, local or remote."""

    location: Location
    external_features: Location | None = None
    """Features extracted elsewhere that are valued in this run."""

    @property
    def features(self) -> Location:
        """The features, one folder per split; inside the run's folder unless they are external."""
        return self.external_features or self.location / "features"

    @property
    def images(self) -> Location:
        """Every readable image."""
        return self.location / "images.parquet"

    @property
    def unit(self) -> str:
        """What is valued, in the plural: images, or examples where there are no pictures."""
        has_other = self.features.exists() or self.values.exists()
        return "examples" if has_other and not self.images.exists() else "images"

    @property
    def skipped(self) -> Location:
        """Images left out as unreadable."""
        return self.location / "skipped.parquet"

    @property
    def values(self) -> Location:
        """The value of every training image."""
        return self.location / "values/values.parquet"

    @property
    def evidence(self) -> Location:
        """Every piece of evidence about every training label."""
        return self.location / "values/evidence.parquet"

    @property
    def known_labels(self) -> Location:
        """What is known about the labels before a rule decides."""
        return self.location / "values/_known.arrays"

    @property
    def validation_values(self) -> Location:
        """What the labelled images say of validation labels; only where it was asked for."""
        return self.location / "values/validation_values.parquet"

    @property
    def group_values(self) -> Location:
        """What groups of training images are worth; only where it was asked for."""
        return self.location / "values/groups.parquet"

    @property
    def out_of_fold(self) -> Location:
        """Class probabilities by networks that were not trained on the image."""
        return self.location / "crossfit/probabilities.parquet"

    @property
    def trace(self) -> Location:
        """The trace of sampling: one row per look."""
        return self.location / "values/trace.parquet"

    @property
    def check(self) -> Location:
        """Values by a second utility, sampled as a cross-check."""
        return self.location / "check/values.parquet"

    @property
    def check_trace(self) -> Location:
        """The trace of the cross-check."""
        return self.location / "check/trace.parquet"

    def other_values(self, semivalue: str) -> Location:
        """Values by another semivalue, from the same orders."""
        return self.location / f"values/values-{semivalue}.parquet"

    @property
    def kept(self) -> Location:
        """The training images that the rule keeps."""
        return self.location / "kept.parquet"

    @property
    def decisions(self) -> Location:
        """What people decided: one file per session."""
        return self.location / "decisions"

    @property
    def probes(self) -> Location:
        """Scores of the probes on features: one row per probe, arm and seed."""
        return self.location / "cleaned/probes.parquet"

    @property
    def removal(self) -> Location:
        """Accuracy on val while images are removed, by order and share."""
        return self.location / "cleaned/removal.parquet"

    @property
    def suspects(self) -> Location:
        """The suspects as a table for people, most suspicious first."""
        return self.location / "suspects.csv"

    @property
    def report(self) -> Location:
        """The HTML report."""
        return self.location / "report.html"

    def read_values(self) -> pa.Table:
        """The complete values, with the decisions of the rule.

        Raises:
            UserError: their sampling is unfinished, or the file is damaged.
            OSError: there are no values.
        """
        values = parquet.read_table(self.values)
        if not parquet.is_up_to_date(self.kept, parquet.read_note(values, "fingerprint")):
            raise UserError(
                f"{self.values}: interim values of an unfinished run; rerun `dcai-ray value` to "
                "finish it"
            )
        return values

    def metrics(self, step: str) -> Location:
        """Learning curves of a step: baseline or cleaned."""
        return self.location / f"{step}/metrics.parquet"

    def model(self, step: str, arm: str, backbone: str, seed: int) -> Location:
        """A trained network of a step: baseline, cleaned or crossfit."""
        name = f"model-{arm}-{_in_file_name(backbone)}-{seed}.safetensors"
        return self.location / f"{step}/{name}"

    def checkpoint(
        self, step: str, arm: str, backbone: str, seed: int, fingerprint: str
    ) -> Location:
        """The checkpoint of an unfinished training of that network."""
        name = f"model-{arm}-{_in_file_name(backbone)}-{seed}-{fingerprint}.checkpoint"
        return self.location / f"{step}/{name}"

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
        """Bind the run folder to these settings, or check that they match.

        A section binds once its step has written its first file, so that a wrong weights file, for
        example, can still be corrected. The rule of exact values may change at any time: it decides
        anew, and what depends on it is out of date.

        Args:
            sections: plain settings by section; other sections stay as they are.
        Raises:
            UserError: the folder was made with other settings; the message names the keys.
        """
        there = self.settings()
        value = sections.get("value")
        is_exact = isinstance(value, dict) and value.get("method") == "exact"
        may_change = _MAY_CHANGE | _RULE if is_exact else _MAY_CHANGE
        refused = [
            each
            for each in differences(there, sections)
            if each.key not in may_change and self._has_used(each.path[0])
        ]
        if refused:
            raise UserError(
                f"{self.location} was made with other settings ({'; '.join(map(str, refused))}); "
                "use another --run, or the same settings"
            )
        merged = {**there, **sections}
        if merged != there:
            text = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True)
            (self.location / "config.yaml").write_bytes(text.encode())
        if not there:
            (self.location / "README.md").write_bytes(_README.encode())

    def move_data(self, root: Location, table: Location | None) -> None:
        """Bind the run to another place of the same data; the caller has compared them."""
        moved = {**self.settings(), "data": root.uri}
        moved.pop("list", None)
        if table is not None:
            moved["list"] = table.uri
        text = yaml.safe_dump(moved, sort_keys=False, allow_unicode=True)
        (self.location / "config.yaml").write_bytes(text.encode())

    def _has_used(self, section: str) -> bool:
        files = _WRITES.get(section, ("config.yaml",))
        return any((self.location / file).exists() for file in files)

    def record(self) -> dict[str, Any]:
        """The content of run.json; empty for a new folder."""
        file = self.location / "run.json"
        content = file.read_bytes() if file.exists() else b"{}"
        try:
            record = json.loads(content)
        except (json.JSONDecodeError, UnicodeDecodeError):
            record = None
        if not isinstance(record, dict):
            raise UserError(f"{file}: damaged; delete it, and the next command writes it again")
        return record

    def record_step(self, step: str, fingerprint: str, seconds: float, **found: Any) -> None:
        """Record in run.json that a step was done."""
        steps = self.record().get("steps", {})
        steps[step] = {"fingerprint": fingerprint, "seconds": round(seconds, 2), **found}
        self.record_section("steps", **steps)
        logger.info("step %s: done in %.2f s", step, seconds, extra={"work": True})

    def record_section(self, section: str, **found: Any) -> None:
        """Replace one section of run.json, and update the versions."""
        record = self.record()
        record["versions"] = {"python": platform.python_version(), **package_versions()}
        record[section] = found
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        (self.location / "run.json").write_bytes(text.encode())


def _in_file_name(backbone: str) -> str:
    """The name of a network within a file name: hf:owner/name becomes hf-owner-name-<hash>."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", backbone)[-60:]
    if plain == backbone:
        return backbone
    return f"{plain}-{hashlib.sha256(backbone.encode()).hexdigest()[:8]}"


def package_versions() -> dict[str, str]:
    """Versions of this package and of the packages that results depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
