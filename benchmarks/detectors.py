"""What detection.py measures: the product by its own command line, and its rivals.

Every stage returns arrays by name. They are kept in a folder under a fingerprint of all that they
depend on, the code included, so that a command that was cut off goes on where it was.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from cleaning_gains import ALONE
from detection_sets import Case, commanded
from numpy.typing import NDArray

import dcai_ray
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint, read_note
from dcai_ray.valuation import knn_shapley

Arrays = dict[str, NDArray[Any]]
HERE = Path(__file__).parent
PRODUCT = Path(dcai_ray.__file__).parent
OURS, AUDIT = "dcai_ray", f"dcai_ray{ALONE}"
_SELF_WEIGHT = 0.4  # value.self_weight


@dataclass(frozen=True, slots=True)
class Kept:
    """Arrays on disk, each set under a fingerprint of what it was made of."""

    folder: Path

    def arrays(self, make: Callable[[], Mapping[str, Any]], *made_of: str) -> Arrays:
        """The arrays made of that, from disk if they are there."""
        file = self.folder / f"{hashlib.sha256(chr(0).join(made_of).encode()).hexdigest()}.npz"
        if not file.exists():
            made = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            new = file.with_suffix(".new.npz")
            np.savez(new, **made)
            new.replace(file)
        with np.load(file) as there:
            return dict(there)


def fingerprint(case: Case) -> str:
    """Of everything in a case."""
    digest = hashlib.sha256()
    for entry in fields(case):
        part = getattr(case, entry.name)
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()


def code(*files: Path) -> str:
    """A fingerprint of source files; of a folder, all its Python."""
    digest = hashlib.sha256()
    for file in files:
        for source in sorted(file.rglob("*.py")) if file.is_dir() else [file]:
            digest.update(source.read_bytes())
    return digest.hexdigest()


def ours(case: Case, *flags: str) -> Arrays:
    """The columns that `dcai-ray value` writes, and what it says of planted errors.

    Missing columns and a command that failed are missing arrays.
    """
    with tempfile.TemporaryDirectory() as folder:
        features, run = Location(f"{folder}/features"), f"{folder}/run"
        for split, x, y in (
            ("train", case.x, case.y),
            ("shapley_val", case.x_clean, case.y_clean),
            ("val", case.x_val, case.y_val),
        ):
            ids = [f"{i:07d}" for i in range(len(y))]
            labels = [case.classes[c] for c in y]
            made_of = new_fingerprint("detection", case.set, case.noise, case.seed, split)
            write_split(features / split, ids, labels, x, {"backbone": "benchmark"}, made_of)
        if commanded("value", "--features", features.uri, "--run", run, *flags):
            return {}
        directory = RunDirectory(Location(run))
        values = directory.read_values()
        columns = [name for name in values.column_names if not values[name].null_count]
        found: Arrays = {
            name: values[name].to_numpy()
            for name in ("value", "value_self", "margin", "wrong_probability", "suspicion")
            if name in columns
        }
        found["dropped"] = np.array([d == "drop" for d in values["decision"].to_pylist()])
        if "suggested_label" in columns:
            suggested = values["suggested_label"].to_pylist()
            found["suggested"] = np.array([case.classes.index(label) for label in suggested])
        recorded = directory.record()["steps"]["values"].get("planted")
        planted = recorded or json.loads(read_note(values, "planted") or "{}")
        found |= {
            f"planted {name}": np.array(figure, dtype=float)
            for name, figure in planted.items()
            if isinstance(figure, int | float)
        }
        return found


def closed_form(case: Case) -> Arrays:
    """Values by the clean set, and by the training set itself."""
    return {
        "by clean": knn_shapley(case.x, case.y, case.x_clean, case.y_clean),
        "by self": knn_shapley(case.x, case.y),
    }


def evidence(found: Mapping[str, NDArray[Any]], clean_images: int) -> Arrays:
    """Scores (n,) of the product, higher for a label that is more likely wrong.

    Args:
        found: what `ours` found.
        clean_images: m, the weight of values by the clean set in `both`; 0 for an audit.
    """
    scores: Arrays = {}
    if "wrong_probability" in found:
        scores[f"{OURS} probability"] = found["wrong_probability"]
    if "suspicion" in found:
        scores[f"{OURS} suspicion"] = found["suspicion"]
    if "margin" in found:
        scores[f"{OURS} margin"] = -found["margin"]
    if "value" in found:
        scores[f"{OURS} value"] = -found["value"]
    if "value_self" in found and clean_images:
        by_self = _SELF_WEIGHT * len(found["value"])
        scores[f"{OURS} value, self"] = -found["value_self"]
        scores[f"{OURS} value, both"] = -(
            clean_images * found["value"] + by_self * found["value_self"]
        )
    return scores


def peers(case: Case, python: str, found: Arrays) -> Arrays:
    """What peers/detect.py finds in its own environment, given the rivals' probabilities."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = f"{folder}/given.npz", f"{folder}/made.npz"
        arrays: Arrays = {
            **{name: getattr(case, name) for name in ("x", "y", "x_clean", "y_clean")},
            **{name: found[name] for name in ("probabilities", "probabilities, alone")},
            "seed": np.array(case.seed),
        }
        np.savez(given, **arrays)  # type: ignore[arg-type]
        script = str(HERE / "peers" / "detect.py")
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        command = [python, "-W", "ignore", script, given, made]
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
        with np.load(made) as there:
            return dict(there)
