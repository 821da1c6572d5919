"""Every suspect of a run as data, from which the page's script draws its gallery.

A suspect is an image that is not simply kept, has a copy under another label, a tier, or more
likely a wrong label than a right one; in the order of the ranking, and at least as many as the page
lists without its script.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray.cleaning.nearest import neighbours
from dcai_ray.images import decoding
from dcai_ray.images.image_set import read_image_set
from dcai_ray.report.findings import Findings
from dcai_ray.report.sprites import Sprites, sprites
from dcai_ray.storage.features import Features, has_features, read_split

MAX_PICTURES = 10_000
"""Suspects with a thumbnail; those after them are rows without."""
# Up to so many: px, quality, and how many of them are there in _LARGE_PX, too, to look at singly.
_SIZES = ((2_000, 112, 75, 300), (5_000, 80, 65, 300), (MAX_PICTURES, 64, 55, 100))
_LARGE_PX = 288
_NEIGHBOUR_PICTURES, _NEIGHBOUR_PX = 2_000, 48
_NEAR_TRAIN, _NEAR_CLEAN = 5, 3  # neighbours named; more are only counted
_LIKELY = 0.5
_SHOWN = 1_000  # letters of a text
_Key = tuple[str, str]  # split, id


@dataclass(frozen=True, slots=True)
class Suspects:
    """What the page carries for its script."""

    data: dict[str, Any]
    """Columns of the suspects, for JSON."""
    pictures: Sequence[decoding.Source]
    """Of the first suspects, in the order of the columns; none where there are no pictures."""
    neighbours: Sequence[decoding.Source]
    """Of the neighbours that `data["near"]` numbers."""

    def sheets(self) -> dict[str, Sprites]:
        """Small pictures of both, for a page without a server."""
        if not self.pictures:
            return {}
        side, quality, large = next(size for count, *size in _SIZES if len(self.pictures) <= count)
        return {
            "suspects": sprites(self.pictures, side, quality),
            "large": sprites(self.pictures[:large], _LARGE_PX),
            "neighbours": sprites(self.neighbours, _NEIGHBOUR_PX),
        }


def suspects(findings: Findings, at_least: int, most: int | None = None) -> Suspects | None:
    """All suspects with what is known of them; None without values.

    Args:
        findings: the results of a run so far.
        at_least: how many images of the ranking count as suspects in any case.
        most: how many are listed and shown at most; None for all of them, `MAX_PICTURES` shown.
    """
    values = findings.values
    if values is None or findings.ranking is None:
        return None
    chosen = _chosen(findings, at_least)[:most]
    shown = MAX_PICTURES if most is None else most
    rows = values.take(chosen).to_pylist()
    classes = sorted({*_strings(values, "label"), *_strings(values, "suggested_label")} - {""})
    place = {name: i for i, name in enumerate(classes)}
    files, paths, copied = _files(findings)
    near = _Near(findings, chosen[:shown], place)
    pictured = [("train", row["id"]) for row in rows[:shown]]
    if any(key not in files for key in pictured):  # valued from imported features
        files = {}
    others = [key for key in near.named if key in files] if files else []
    others = others if most else others[:_NEIGHBOUR_PICTURES]
    truth = findings.truth.true_labels if findings.truth else None
    cells = {key: i for i, key in enumerate(others)}
    data = {
        "classes": classes,
        "order": findings.ranking.name,
        "dropped": findings.dropped,
        "unit": findings.unit,
        "pictured": len(pictured) if files else 0,
        "near": near.rows(cells),
        "columns": {
            "id": [row["id"] for row in rows],
            "path": [paths.get(("train", row["id"]), row["id"]) for row in rows],
            "label": [place[row["label"]] for row in rows],
            "suggested": [place.get(row["suggested_label"], -1) for row in rows],
            "likelihood": [_number(row.get("suggested_probability")) for row in rows],
            "wrong": [_number(row.get("wrong_probability")) for row in rows],
            "suspicion": [_number(row.get("suspicion")) for row in rows],
            "value": [_number(row["value"]) for row in rows],
            "stderr": [_number(row.get("stderr_validation")) for row in rows],
            "decision": [row["decision"] for row in rows],
            "tier": [row.get("tier") or "" for row in rows],
            "conflict": [row.get("conflict") or "" for row in rows],
            "copied": [int(("train", row["id"]) in copied) for row in rows],
            "reason": [row.get("reason") or "" for row in rows],
            "shown": [near.shown(i) for i in chosen.tolist()],
            "truth": [truth[i] if truth else "" for i in chosen.tolist()],
        },
    }
    pictures = [files[key] for key in pictured] if files else []
    return Suspects(data, pictures, [files[key] for key in others])


def _chosen(findings: Findings, at_least: int) -> NDArray[np.intp]:
    """Indices of the suspects, the most suspicious first."""
    values, ranked = findings.values, findings.ranking
    assert values is not None
    assert ranked is not None
    counts = np.array([decision != "keep" for decision in _strings(values, "decision")])
    for column in ("conflict", "tier"):
        counts |= np.array([entry != "" for entry in _strings(values, column)])
    if "wrong_probability" in values.column_names:
        counts |= values["wrong_probability"].to_numpy() > _LIKELY  # NaN is not above
    counts[ranked.order[:at_least]] = True
    return ranked.order[counts[ranked.order]]


def _strings(values: pa.Table, column: str) -> list[str]:
    """(n,) a column with nulls as empty; all empty if the run does not know it."""
    if column not in values.column_names:
        return [""] * len(values)
    return [entry or "" for entry in values[column].to_pylist()]


def _number(entry: float | None) -> float | None:
    """Four digits, which is more than anyone reads; None for NaN, which JSON lacks."""
    return None if entry is None or not math.isfinite(entry) else float(f"{entry:.4g}")


def _files(
    findings: Findings,
) -> tuple[Mapping[_Key, decoding.Source], dict[_Key, str], set[_Key]]:
    """Files and paths of the images, and those that occur more than once."""
    images = read_image_set(findings.run)
    if images is None:
        return {}, {}, set()
    by_key = {(image.split, image.id): image for image in images.images}
    files = {key: image.file(images.root) for key, image in by_key.items()}
    paths = {key: image.path for key, image in by_key.items()}
    count = Counter(image.shows for image in images.images if image.shows)
    return files, paths, {key for key, image in by_key.items() if count[image.shows] > 1}


class _Near:
    """Nearest training and clean images of the suspects, by the features that were valued."""

    def __init__(self, findings: Findings, chosen: NDArray[np.intp], place: dict[str, int]) -> None:
        self._place = place
        self._found: dict[str, tuple[Features, NDArray[np.int32]]] = {}
        self._shown: tuple[str, ...] = ()
        settings, folder = findings.settings.get("value", {}), findings.run.features
        values = findings.values
        assert values is not None
        if "k" not in settings or not has_features(folder / "train"):
            return
        train = read_split(folder / "train")
        if list(train.ids) != values["id"].to_pylist() or len(train.ids) < 2:
            return
        x, k, metric = train.x[chosen], settings["k"], settings["metric"]
        found = neighbours(x, train.x, min(k, len(train.ids) - 1), metric, chosen)
        self._found["train"] = train, found
        self._shown = train.shown
        if has_features(folder / "shapley_val"):
            clean = read_split(folder / "shapley_val")
            if len(clean.ids):
                found = neighbours(x, clean.x, min(k, len(clean.ids)), metric)
                self._found["shapley_val"] = clean, found

    def shown(self, i: int) -> str:
        """What is shown of training example i where there is no picture."""
        return self._shown[i][:_SHOWN] if self._shown else ""

    @property
    def named(self) -> list[_Key]:
        """(split, id) of the neighbours that are named, those of the first suspects first."""
        keys: dict[_Key, None] = {}
        for i in range(max((len(near) for _, near in self._found.values()), default=0)):
            for split, count in (("shapley_val", _NEAR_CLEAN), ("train", _NEAR_TRAIN)):
                if split in self._found:
                    features, near = self._found[split]
                    keys |= dict.fromkeys((split, features.ids[j]) for j in near[i, :count])
        return list(keys)

    def rows(self, cells: dict[_Key, int]) -> dict[str, list[dict[str, Any]]]:
        """By split, each suspect's neighbours: all labels counted, the first with cells."""
        found = {}
        for split, count in (("train", _NEAR_TRAIN), ("shapley_val", _NEAR_CLEAN)):
            if split in self._found:
                features, near = self._found[split]
                found[split] = [self._row(split, features, row, count, cells) for row in near]
        return found

    def _row(
        self,
        split: str,
        features: Features,
        near: NDArray[np.int32],
        count: int,
        cells: dict[_Key, int],
    ) -> dict[str, Any]:
        votes = Counter(self._place.get(features.labels[j], -1) for j in near.tolist())
        first = [
            [self._place.get(features.labels[j], -1), cells.get((split, features.ids[j]), -1)]
            for j in near[:count].tolist()
        ]
        return {
            "votes": sorted(votes.items(), key=lambda pair: (-pair[1], pair[0])),
            "first": first,
        }
