"""The images behind `--data`: folders, archives, tables, WebDataset or Hugging Face's formats."""

from dcai_ray.images.folders import check_complete, list_folder, list_splits
from dcai_ray.images.hugging_face import list_imagefolder, list_tables, metadata_of, tables_of
from dcai_ray.images.listing import Listing
from dcai_ray.images.lists import is_list, list_rows
from dcai_ray.images.split_folders import Splits
from dcai_ray.images.webdataset import list_shards, shards_of
from dcai_ray.storage.location import Location


def is_torchvision(data: str) -> bool:
    """Whether `--data` names a data set of torchvision: `torchvision:CIFAR10:/path/root`."""
    return data.startswith("torchvision:")


def list_run(data: Location, *, split_seed: int = 0, splits: Splits | None = None) -> Listing:
    """The images of train, val and shapley_val, as `folders.list_splits` or `lists.list_rows`."""
    if labelled := _labelled(data, whole=True, split_seed=split_seed, splits=splits):
        return labelled
    return list_splits(data, split_seed=split_seed, splits=splits)


def list_audit(data: Location, *, splits: Splits | None = None) -> Listing:
    """The images of train alone, as `folders.list_folder` or `lists.list_rows`."""
    if labelled := _labelled(data, whole=False, split_seed=0, splits=splits):
        return labelled
    return list_folder(data, splits=splits)


def _labelled(
    data: Location, *, whole: bool, split_seed: int, splits: Splits | None
) -> Listing | None:
    """The listing of a source that names the labels itself; None if folders are the classes."""
    check_complete(data)
    if tables := tables_of(data):
        return list_tables(data, tables, whole=whole, split_seed=split_seed, splits=splits)
    if metadata := metadata_of(data):
        return list_imagefolder(data, metadata, whole=whole, split_seed=split_seed, splits=splits)
    if is_list(data):
        return list_rows(data, whole=whole, split_seed=split_seed, splits=splits)
    if shards := shards_of(data):
        return list_shards(data, shards, whole=whole, split_seed=split_seed, splits=splits)
    return None
