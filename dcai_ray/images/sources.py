"""The images behind `--data`: folders, archives, tables, WebDataset or Hugging Face's formats."""

from dcai_ray.errors import UserError
from dcai_ray.images.folders import MARKER, list_folder, list_splits
from dcai_ray.images.hugging_face import list_imagefolder, list_tables, metadata_of, tables_of
from dcai_ray.images.listing import Found, Listing
from dcai_ray.images.lists import is_list, list_rows
from dcai_ray.images.split_folders import Splits
from dcai_ray.images.webdataset import list_shards, shards_of
from dcai_ray.storage.location import Location


def is_torchvision(data: str) -> bool:
    """Whether `--data` names a data set of torchvision: `torchvision:CIFAR10:/path/root`."""
    return data.startswith("torchvision:")


def list_run(data: Location, *, split_seed: int = 0, splits: Splits | None = None) -> Listing:
    """The images of train, val and shapley_val, as `folders.list_splits` or `lists.list_rows`."""
    found = _walked(data)
    if labelled := _labelled(data, found, whole=True, split_seed=split_seed, splits=splits):
        return labelled
    return list_splits(data, split_seed=split_seed, splits=splits, found=found)


def list_audit(data: Location, *, splits: Splits | None = None) -> Listing:
    """The images of train alone, as `folders.list_folder` or `lists.list_rows`."""
    found = _walked(data)
    if labelled := _labelled(data, found, whole=False, split_seed=0, splits=splits):
        return labelled
    return list_folder(data, splits=splits, found=found)


def _walked(data: Location) -> Found | None:
    """What lies in a folder, walked once, as a store lists a thousand objects per request.

    Raises:
        UserError: it is an export that was interrupted.
    """
    if not data.is_folder():
        return None
    found = list(data.walk())
    if any(path == MARKER for path, _ in found):
        raise UserError(f"{data}: an incomplete export; delete it and export again")
    return found


def _labelled(
    data: Location, found: Found | None, *, whole: bool, split_seed: int, splits: Splits | None
) -> Listing | None:
    """The listing of a source that names the labels itself; None if folders are the classes."""
    if tables := tables_of(data, found):
        return list_tables(data, tables, whole=whole, split_seed=split_seed, splits=splits)
    if metadata := metadata_of(data, found):
        return list_imagefolder(data, metadata, whole=whole, split_seed=split_seed, splits=splits)
    if is_list(data):
        return list_rows(data, whole=whole, split_seed=split_seed, splits=splits)
    if shards := shards_of(data, found):
        return list_shards(data, shards, whole=whole, split_seed=split_seed, splits=splits)
    return None
