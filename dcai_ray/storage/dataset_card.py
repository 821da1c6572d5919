"""README.md of a folder, by which Hugging Face's `datasets` knows what is in it."""

from collections.abc import Mapping


def card_of_splits(files: Mapping[str, str], text: str) -> bytes:
    """A card that names splits, as `datasets` would take shapley_val for a part of val.

    Args:
        files: the pattern of the files of each split.
        text: what people read below.
    """
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split, pattern in files.items():
        lines += [f"  - split: {split}", f"    path: {pattern}"]
    return "\n".join([*lines, "---", text, ""]).encode()
