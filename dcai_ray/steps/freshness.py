"""Whether the files of a step are up to date; files that are out of date are reported in one line.

A step's fingerprint holds its `FORMAT`, its settings and the fingerprints of what it reads. If one
of them changes, the file is out of date, and so are those of later steps.
"""

from collections.abc import Sequence

from dcai_ray import progress
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

_WHY = "inputs, settings or formulas have changed since"


def is_current(file: Location, wanted: str) -> bool:
    """Whether a file carries this fingerprint; if it carries another, one line reports it."""
    found = parquet.fingerprint_of(file)
    if found and found != wanted:
        progress.say(f"{file}: out of date ({_WHY}); recomputing it")
    return found == wanted


def are_current(folder: Location, files: Sequence[Location], wanted: Sequence[str]) -> list[bool]:
    """Whether each file carries its fingerprint; one line counts those that carry another."""
    found = parquet.fingerprints_of(files)
    pairs = list(zip(found, wanted, strict=True))
    stale = sum(bool(there) and there != want for there, want in pairs)
    if stale:
        files_stale = progress.counted(stale, "files")
        progress.say(f"{folder}: {files_stale} out of date ({_WHY}); recomputing")
    return [there == want for there, want in pairs]
