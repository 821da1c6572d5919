"""Texts instead of images: a table with the columns text and label becomes features.

Everything after the features is the same. `tfidf` weighs words and pairs of words, and reduces them
to a few hundred dimensions (latent semantic analysis), fitted to train; `hf:NAME` is an encoder of
transformers.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dcai_ray import progress
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import AUTO, TFIDF, Config
from dcai_ray.errors import UserError
from dcai_ray.images.labelled import labelled_listing
from dcai_ray.images.listing import SPLITS, ImageFile, Listing
from dcai_ray.images.lists import read_table
from dcai_ray.images.split_folders import Splits
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.extraction import write_shards
from dcai_ray.storage.features import is_complete, shard_name, write_split
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint

FORMAT = 1
"""Raise this when a text gets other features."""

_DIMENSIONS = 256  # of tfidf


@dataclass(frozen=True, slots=True)
class TextSet:
    """Labelled texts in splits."""

    file: Location
    listing: Listing
    texts: Mapping[str, str]
    """By id."""


def read_texts(
    file: Location, *, whole: bool, split_seed: int = 0, splits: Splits | None = None
) -> TextSet:
    """The texts of a table: columns text, label and optionally id and split.

    Args:
        file: the table.
        whole: with train, val and perhaps shapley_val; otherwise train alone.
        split_seed: seed of the halving of val.
        splits: what the column `split` says for each split.
    Raises:
        UserError: a row lacks its text or label, ids repeat, or splits or classes cannot be used.
    """
    entries: list[ImageFile] = []
    texts: dict[str, str] = {}
    for number, row in enumerate(read_table(file)):
        for name in ("text", "label"):
            if row.get(name) in (None, ""):
                raise UserError(f"{file}: row {number + 1} has no {name}")
        name = str(row.get("id") or f"{number + 1:06d}")
        if name in texts:
            raise UserError(f"{file}: id {name} occurs more than once")
        texts[name] = str(row["text"])
        split, label = str(row.get("split") or ""), str(row["label"])
        entries.append(ImageFile(split, name, label, name, len(texts[name])))
    listing = labelled_listing(
        file, file.parent, entries, whole=whole, split_seed=split_seed, splits=splits
    )
    listing = replace(listing, unit="texts")
    return TextSet(file, listing, texts)


def encode_texts(run: RunDirectory, texts: TextSet, config: Config) -> None:
    """Features of every text; `features/<split>/`, with the texts beside them.

    Raises:
        UserError: the encoder is unknown or cannot be had.
    """
    for note in (texts.listing.summary, *texts.listing.notes):
        progress.say(note)
    name = encoder_of(config)
    splits = [split for split in SPLITS if texts.listing.split(split)]
    if name == TFIDF:
        _write_tfidf(run, texts, splits, config)
        return
    from dcai_ray.networks.text_encoders import text_encoder

    notes = {"backbone": name, "weights_sha256": text_encoder(name).sha256}
    how = new_fingerprint("texts", FORMAT, notes, config.extract.batch_size)
    jobs = {split: _jobs(run, texts, split, name, notes, how, config) for split in splits}
    write_shards(run, jobs, tasks.encode_shard, "texts", config, texts.listing.root)


def encoder_of(config: Config) -> str:
    """The encoder of the settings; without one, that which needs no download."""
    return TFIDF if config.extract.backbone == AUTO else config.extract.backbone


def _jobs(
    run: RunDirectory,
    texts: TextSet,
    split: str,
    name: str,
    notes: Mapping[str, str],
    how: str,
    config: Config,
) -> list[tasks.EncodeJob]:
    entries, size = texts.listing.split(split), config.extract.shard_size
    jobs: list[tasks.EncodeJob] = []
    for start in range(0, len(entries), size):
        shard = entries[start : start + size]
        shown = [texts.texts[entry.id] for entry in shard]
        file = shard_name(len(jobs))
        known = [[entry.id, entry.label, text] for entry, text in zip(shard, shown, strict=True)]
        jobs.append(
            tasks.EncodeJob(
                name=f"{split}/{file.removesuffix('.parquet')}",
                target=run.features / split / file,
                fingerprint=new_fingerprint(how, known),
                ids=[entry.id for entry in shard],
                labels=[entry.label for entry in shard],
                texts=shown,
                encoder=name,
                batch_size=config.extract.batch_size,
                notes=notes,
            )
        )
    return jobs


def _write_tfidf(run: RunDirectory, texts: TextSet, splits: Sequence[str], config: Config) -> None:
    entries = {split: texts.listing.split(split) for split in splits}
    shown = {split: [texts.texts[entry.id] for entry in each] for split, each in entries.items()}
    known = [[e.split, e.id, e.label, texts.texts[e.id]] for each in entries.values() for e in each]
    fingerprint = new_fingerprint("tfidf", FORMAT, known)
    if all(is_complete(run.features / split, fingerprint) for split in splits):
        return
    start = time.monotonic()
    step = Step(name="encoding texts", unit="texts", sizes=[len(known)], run=run.location)
    (found,) = run_tasks(tfidf, [shown], step, config.resources)
    for split, x in found.items():
        ids, labels = ([getattr(e, key) for e in entries[split]] for key in ("id", "label"))
        notes = {"backbone": TFIDF}
        write_split(run.features / split, ids, labels, x, notes, fingerprint, shown[split])
    run.record_step("features", fingerprint, time.monotonic() - start)


def tfidf(texts: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.float32]]:
    """Features (k, d) of the texts of each split, by the words of train.

    Raises:
        UserError: train has no words.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), strip_accents="unicode")
    try:
        train = words.fit_transform(texts["train"])
    except ValueError:
        raise UserError("the texts of train have no words; use --backbone hf:NAME") from None
    width = min(_DIMENSIONS, *(side - 1 for side in train.shape))
    if width < 1:
        raise UserError("the texts of train are too few or too short; use --backbone hf:NAME")
    reduced = TruncatedSVD(width, algorithm="arpack", random_state=0).fit(train)
    return {
        split: reduced.transform(words.transform(each)).astype(np.float32)
        for split, each in texts.items()
    }
