"""The images behind `--data`, whatever it is: a folder of class folders, or a table of images."""

from dcai_ray.images.folders import list_folder, list_splits
from dcai_ray.images.listing import Listing
from dcai_ray.images.lists import is_list, list_rows
from dcai_ray.images.split_folders import Splits
from dcai_ray.storage.location import Location


def list_run(data: Location, *, split_seed: int = 0, splits: Splits | None = None) -> Listing:
    """The images of train, val and shapley_val, as `folders.list_splits` or `lists.list_rows`."""
    if is_list(data):
        return list_rows(data, whole=True, split_seed=split_seed, splits=splits)
    return list_splits(data, split_seed=split_seed, splits=splits)


def list_audit(data: Location, *, splits: Splits | None = None) -> Listing:
    """The images of train alone, as `folders.list_folder` or `lists.list_rows`."""
    if is_list(data):
        return list_rows(data, whole=False, splits=splits)
    return list_folder(data, splits=splits)
