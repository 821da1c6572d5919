"""The most suspicious images, with what a reviewer needs for each: picture, labels, neighbours."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dcai_ray.cleaning.nearest import neighbours
from dcai_ray.errors import UserError
from dcai_ray.images import decoding
from dcai_ray.images.image_set import read_image_set
from dcai_ray.images.picture_files import PictureFile
from dcai_ray.report.findings import Findings
from dcai_ray.storage.features import Features, has_features, read_split

SIDE_PX = 112
_READERS = 8  # threads, as an object store answers slowly; the order is kept


@dataclass(frozen=True, slots=True)
class Entry:
    """One training image."""

    place: int
    """1 for the most suspicious."""
    id: str
    path: str
    """Path below the data's root; the id if there are no images."""
    label: str
    suggested: str
    """The likeliest class by a probe that has not seen the image; empty if unknown."""
    suggested_probability: float
    """Probability of that class; NaN if unknown."""
    wrong_probability: float
    """P(label is wrong); NaN if unknown."""
    suspicion: float
    """Where no probability is known: 1 for the most suspicious image; NaN if unknown."""
    reason: str
    """Why it was decided; empty where nothing is to say."""
    neighbours: tuple[tuple[str, int], ...]
    """Labels of the nearest training images with their counts; empty without features."""
    value: float
    stderr: float
    """Standard error over validation points; NaN for sampled values."""
    low: float
    high: float
    """With `low`, the bounds of the interval; both equal the value if it is exact."""
    decision: str
    conflict: str
    """The copy under another label, in words; empty for none."""
    true_label: str
    """Empty if unknown."""
    thumbnail: str | None
    """JPEG as data URI; empty if the file can no longer be read, None without images."""
    shown: str
    """The text or the row, where there is no picture; empty if the features came without."""

    @property
    def truth(self) -> str:
        """Whether the label is known to be `wrong` or `right`; empty if unknown."""
        if not self.true_label:
            return ""
        return "right" if self.true_label == self.label else "wrong"


def most_suspicious(findings: Findings, count: int) -> list[Entry]:
    """The first training images of the ranking."""
    values = findings.values
    if values is None or findings.ranking is None:
        return []
    first = findings.ranking.order[:count]
    rows = values.take(first).to_pylist()
    files = _files(findings)
    pictures = _thumbnails([files[i] for i in first] if files else [])
    train = _training_features(findings)
    near = _neighbour_labels(findings, train, first)
    return [
        Entry(
            place=place + 1,
            id=row["id"],
            path=files[i].path if files else row["id"],
            label=row["label"],
            suggested=row["suggested_label"] or "",
            suggested_probability=_number(row, "suggested_probability"),
            wrong_probability=_number(row, "wrong_probability"),
            suspicion=_number(row, "suspicion"),
            reason=row.get("reason") or "",
            neighbours=near[place] if near else (),
            value=row["value"],
            stderr=row["stderr_validation"],
            low=row["low"],
            high=row["high"],
            decision=row["decision"],
            conflict=row.get("conflict") or "",
            true_label=findings.truth.true_labels[i] if findings.truth else "",
            thumbnail=pictures[place] if pictures else None,
            shown=train.shown[i] if train is not None and train.shown else "",
        )
        for place, (i, row) in enumerate(zip(first.tolist(), rows, strict=True))
    ]


def _number(row: Mapping[str, Any], column: str) -> float:
    """A number of a row; NaN for a null, or for a column that the run does not know."""
    entry = row.get(column)
    return float("nan") if entry is None else float(entry)


def _files(findings: Findings) -> list[PictureFile]:
    """(n,) the files of the training images; empty if they are unknown."""
    assert findings.values is not None
    images = read_image_set(findings.run)
    train = images.split("train") if images else ()
    if images is None or [im.id for im in train] != findings.values["id"].to_pylist():
        return []
    return [image.file(images.root) for image in train]


def _thumbnails(files: Sequence[PictureFile]) -> list[str]:
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(thumbnail, files))


def thumbnail(file: decoding.Source) -> str:
    """A small JPEG of an image as data URI; empty if the file can no longer be read."""
    try:
        picture = decoding.read(file)
    except (OSError, UserError):  # moved or deleted since: the report shows the gap
        return ""
    picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "jpeg", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _training_features(findings: Findings) -> Features | None:
    """The features that the values are of; None if they are not there, or are others."""
    folder = findings.run.features / "train"
    assert findings.values is not None
    if not has_features(folder):
        return None
    train = read_split(folder)
    return train if list(train.ids) == findings.values["id"].to_pylist() else None


def _neighbour_labels(
    findings: Findings, train: Features | None, chosen: NDArray[np.intp]
) -> list[tuple[tuple[str, int], ...]]:
    """Labels of the k training images nearest to each chosen one, with counts, largest first."""
    settings: dict[str, Any] = findings.settings.get("value", {})
    if "k" not in settings or train is None or len(train.ids) < 2:
        return []
    k = min(settings["k"], len(train.ids) - 1)
    near = neighbours(train.x[chosen], train.x, k, settings["metric"], chosen)
    counted = [Counter(train.labels[i] for i in row) for row in near.tolist()]
    return [tuple(sorted(c.items(), key=lambda pair: (-pair[1], pair[0]))) for c in counted]
