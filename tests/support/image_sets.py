"""Image sets without files: only where an image lies and its label matter."""

from collections.abc import Sequence
from pathlib import Path

from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.storage.location import Location


def image_set(root: Path, paths: Sequence[str], labels: Sequence[str]) -> ImageSet:
    """Images by their path below the root, `<split>/<id>`, and their label."""
    images = [
        Image(
            split=path.partition("/")[0],
            id=path.partition("/")[2],
            label=label,
            path=path,
            bytes=1,
            width=1,
            height=1,
            sha256=path,
        )
        for path, label in zip(paths, labels, strict=True)
    ]
    return ImageSet(Location(str(root)), tuple(images), tuple(sorted(set(labels))))
