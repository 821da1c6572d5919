"""What pictures show, whatever their files: blanks, and one picture under several labels."""

from collections import defaultdict
from collections.abc import Sequence

from dcai_ray.images.image_set import Image

FINDINGS = {
    "duplicates_under_two_labels": "occur under more than one label",
    "duplicates_across_splits": "occur in more than one split",
    "duplicates_in_train": "occur more than once in train",
    "blanks": "are blank (one colour only)",
}
"""What is found when images are read: its name in `run.json`, and in words."""
NEAR_ACROSS = "occur nearly the same in train and in {split}"
"""What is found when features are compared, `near_copies_across_splits` in `run.json`."""


def found_in(count: int, finding: str) -> str:
    """One of the findings with its number of pictures."""
    if count > 1:
        return f"{count} images {finding}"
    verb, rest = finding.split(" ", 1)
    return f"1 image {'is' if verb == 'are' else verb + 's'} {rest}"


def under_two_labels(images: Sequence[Image]) -> list[str]:
    """Pictures that occur under more than one label: a line `a.png = b.png` for each."""
    groups: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        groups[image.shows].append(image)
    return [
        " = ".join(image.path for image in group)
        for group in groups.values()
        if len({image.label for image in group}) > 1
    ]


def blanks(images: Sequence[Image]) -> list[str]:
    """Paths of the pictures that have one colour only."""
    return [image.path for image in images if image.blank]
