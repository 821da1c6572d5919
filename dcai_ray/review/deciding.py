"""People's decisions into a run: checked against its images, saved, and what they amount to."""

from collections import Counter

from dcai_ray.errors import UserError
from dcai_ray.review.decision_files import Session, read_file, read_folder
from dcai_ray.review.decisions import Decision, agreements, check_known, conflicts, final
from dcai_ray.review.path_formats import Key
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location


def take_in(run: RunDirectory, file: Location) -> list[str]:
    """Add a file's decisions to a run; those that it has already are skipped.

    Returns: lines that say what the run now knows.
    Raises:
        UserError: the file is no table of decisions, or names an image or a class that the run
            lacks; then nothing is added.
        OSError: the file cannot be read.
    """
    labels, paths = _images(run)
    records = read_file(file, labels, paths)
    classes = set(labels.values())
    try:
        for record in records:
            check_known(record, labels, classes)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    known = read_folder(run.decisions)
    there = set(known)
    new = [record for record in dict.fromkeys(records) if record not in there]
    Session(run.decisions).add(new)
    return [f"decisions added: {len(new)} of {len(records)}", *_state([*known, *new], labels)]


def _images(run: RunDirectory) -> tuple[dict[Key, str], dict[str, Key]]:
    """The images of a run: (split, id) -> class, and path -> (split, id)."""
    if not run.images.exists():
        raise UserError(f"{run.location}: no images.parquet; decisions need a run made from images")
    table = parquet.read_table(run.images)
    columns = (table[name].to_pylist() for name in ("split", "id", "label", "path"))
    labels, paths = {}, {}
    for split, name, label, path in zip(*columns, strict=True):
        labels[split, name] = label
        paths[path] = (split, name)
    return labels, paths


def _state(records: list[Decision], labels: dict[tuple[str, str], str]) -> list[str]:
    """How many images are decided, and where people differ or looked at another label."""
    decided = final(records)
    stale = sum(labels.get(image) != record.given_label for image, record in decided.items())
    counts = Counter(record.decision for record in decided.values())
    parts = [f"{word} {counts[word]}" for word in ("keep", "drop", "relabel", "unsure")]
    lines = [f"images decided: {len(decided)} ({', '.join(parts)})"]
    if stale:
        lines.append(f"about another label than the image has now: {stale}; look at them again")
    differ = conflicts(records)
    if differ:
        lines.append(f"people differ on {len(differ)}, the first {differ[0][1]}; the latest counts")
    for pair in agreements(records):
        kappa = "" if pair.kappa is None else f", kappa {pair.kappa:.2f}"
        lines.append(f"{' and '.join(pair.people)}: {pair.equal} of {pair.images} equal{kappa}")
    return lines
