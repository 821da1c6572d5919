"""The images behind `--data`: class folders, archives of them, a table, or a Hugging Face set."""

from dcai_ray.errors import UserError
from dcai_ray.images import archives, hugging_face
from dcai_ray.images.folders import files_of, list_folder, list_splits
from dcai_ray.images.listing import Listing
from dcai_ray.images.lists import is_list, list_rows, listing_of
from dcai_ray.images.split_folders import Splits
from dcai_ray.storage.location import Location


def list_run(data: Location, *, split_seed: int = 0, splits: Splits | None = None) -> Listing:
    """The images of train, val and shapley_val.

    Raises:
        UserError: it is no data set, or its splits or classes cannot be used.
    """
    return _listed(data, whole=True, split_seed=split_seed, splits=splits)


def list_audit(data: Location, *, splits: Splits | None = None) -> Listing:
    """The images of train alone; raises as `list_run`."""
    return _listed(data, whole=False, split_seed=0, splits=splits)


def _listed(data: Location, *, whole: bool, split_seed: int, splits: Splits | None) -> Listing:
    if data.is_folder():
        found = list(data.walk())
    elif data.exists():
        found = [("", 0)]
    else:
        raise UserError(f"{data}: no such folder or file")
    rows = hugging_face.rows_of(data, found)
    if not rows and is_list(data):
        return list_rows(data, whole=whole, split_seed=split_seed, splits=splits)
    files = files_of(data, found)
    packed = {} if rows else archives.archives_of(data, [path for path, _ in found])
    if packed:
        parts = archives.contents(data, packed)
        rows = archives.samples(data, packed, parts)
        files = archives.as_folders(data, packed, parts)
    elif not rows and not data.is_folder():
        raise UserError(f"{data}: no folder, table (.csv, .jsonl, .parquet), .tar or .zip")
    if rows:
        return listing_of(data, data, rows, whole=whole, split_seed=split_seed, splits=splits)
    if whole:
        return list_splits(data, split_seed=split_seed, splits=splits, files=files)
    return list_folder(data, splits=splits, files=files)
