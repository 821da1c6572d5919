"""One function a step: what is missing goes to Ray as tasks, what comes back becomes tables.

Each looks first at what is there: a table with the wanted fingerprint is not made again.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray import cleaning, progress, tables
from dcai_ray.config import Config, ExtractConfig, ValueConfig, plain
from dcai_ray.distributed import cluster, tasks
from dcai_ray.images import SPLITS, ImageFile, Listing, duplicates
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import Location
from dcai_ray.tables import Features, fingerprint
from dcai_ray.truth import Truth
from dcai_ray.valuation.knn_shapley import Sums, knn_game, merge, standard_error

_INSPECTED_A_TASK = 64
_SELF_WEIGHT = 0.4  # of a training point against a clean one, where both serve as validation


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The readable images of a run."""

    data: Location
    table: pa.Table
    """As `tables.IMAGES`, in the order of the listing."""
    classes: tuple[str, ...]

    def split(self, name: str) -> list[dict[str, Any]]:
        """Rows of one split."""
        return [row for row in self.table.to_pylist() if row["split"] == name]


class Timer:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start


def read_images(run: RunDirectory, data: Location, listing: Listing, config: Config) -> ImageSet:
    """Open every image once, before anything is computed; warn of duplicates.

    Raises:
        ValueError: images are unreadable (all are named), the folder belongs to other images, or
            skipping would empty a class.
    """
    for note in listing.notes:
        progress.say(note)
    if run.images.exists():
        _check_same_images(run, listing)
        return ImageSet(data, tables.read_table(run.images), listing.classes)
    timer = Timer()
    found = _inspect(data, listing.images, config)
    pairs = list(zip(listing.images, found, strict=True))
    bad = [(image, seen.reason) for image, seen in pairs if seen.reason]
    if bad and config.images.unreadable == "fail":
        lines = "".join(f"\n  {data / image.path}: {reason}" for image, reason in bad)
        raise ValueError(
            f"{len(bad)} unreadable images; repair or remove them, or leave them out with "
            f"--unreadable skip:{lines}"
        )
    good = [(image, seen) for image, seen in pairs if not seen.reason]
    _check_classes_left(listing, {(image.split, image.label) for image, _ in good})
    made_from = _listing_fingerprint(listing)
    if bad:
        progress.say(f"{len(bad)} unreadable images left out, listed in {run.skipped}")
        rows = [
            {"split": image.split, "id": image.id, "bytes": image.bytes, "reason": reason}
            for image, reason in bad
        ]
        tables.write_table(run.skipped, pa.Table.from_pylist(rows, tables.SKIPPED), made_from)
    rows = [
        {
            **{name: getattr(image, name) for name in ("split", "id", "label", "path", "bytes")},
            **{name: getattr(seen, name) for name in ("width", "height", "sha256")},
        }
        for image, seen in good
    ]
    table = pa.Table.from_pylist(rows, tables.IMAGES)
    across, inside = duplicates([image for image, _ in good], [seen.sha256 for _, seen in good])
    for groups, where in ((across, "in train and validation splits"), (inside, "inside train")):
        if groups:
            progress.say(f"warning: {len(groups)} pictures occur more than once {where}:")
            for line in groups[:10]:
                progress.say(f"  {line}")
            if len(groups) > 10:
                progress.say(f"  and {len(groups) - 10} more, in run.json")
    run.note_step(
        "images",
        made_from,
        timer.seconds,
        images={split: sum(row["split"] == split for row in rows) for split in SPLITS},
        unreadable=len(bad),
        notes=list(listing.notes),
        duplicates_across_splits=across,
        duplicates_in_train=inside,
    )
    tables.write_table(run.images, table, made_from)
    return ImageSet(data, table, listing.classes)


def train_networks(
    run: RunDirectory,
    images: ImageSet,
    config: Config,
    step: str,
    arms: Mapping[str, Mapping[int, Sequence[dict[str, Any]]]],
) -> None:
    """Fine-tune every backbone on every arm and seed; write the step's metrics.

    Args:
        run: the run's folder.
        images: its images.
        config: the recipe is `config.finetune`.
        step: baseline or cleaned; the folder the results go to.
        arms: by arm and seed, the rows of the images to learn from.
    """
    from dcai_ray.backbones import image_size, weights_sha256

    recipe = config.finetune
    val = images.split("val")
    shared = {k: v for k, v in plain(recipe).items() if k not in ("backbones", "seeds", "weights")}
    number = {label: i for i, label in enumerate(images.classes)}
    jobs = []
    for backbone in recipe.backbones:
        image_size(backbone, recipe.size_px)
        weights = weights_sha256(backbone, recipe.weights)
        for arm, seeds in arms.items():
            for seed, rows in seeds.items():
                made_from = fingerprint(
                    "network", shared, backbone, weights, seed, images.classes,
                    _contents(rows), _contents(val),
                )  # fmt: skip
                jobs.append(
                    tasks.FinetuneJob(
                        data=images.data,
                        target=run.model(step, arm, backbone, seed),
                        made_from=made_from,
                        arm=arm,
                        backbone=backbone,
                        seed=seed,
                        recipe=recipe,
                        classes=images.classes,
                        train=_files(rows, number),
                        val=_files(val, number),
                        decode_threads=config.resources.decode_threads,
                    )
                )
    made_from = fingerprint("metrics", sorted(job.made_from for job in jobs))
    if tables.is_made(run.metrics(step), made_from):
        return
    timer = Timer()
    rows = _train(jobs, config, f"fine-tuning {step}")
    table = pa.Table.from_pylist(rows, tables.METRICS)
    tables.write_table(run.metrics(step), table, made_from)
    run.note_step(step, made_from, timer.seconds, trainings=len(jobs))


def train_baseline(run: RunDirectory, images: ImageSet, config: Config) -> None:
    """Step 1: fine-tune on all training images; `baseline/metrics.parquet`."""
    rows = images.split("train")
    train_networks(
        run, images, config, "baseline", {"all": dict.fromkeys(config.finetune.seeds, rows)}
    )


def extract_features(run: RunDirectory, images: ImageSet, config: Config) -> None:
    """Features of every split that has images; only shards that are missing are computed."""
    from dcai_ray.backbones import image_size, weights_sha256

    settings = config.extract
    size_px = image_size(settings.backbone, settings.size_px)
    weights = weights_sha256(settings.backbone, settings.weights)
    notes = {
        "backbone": settings.backbone,
        "weights_sha256": weights,
        "transform": f"resize short side to {size_px} px, centre crop, ImageNet normalization",
        "classes": json.dumps(images.classes),
    }
    how = fingerprint("features", settings.backbone, weights, size_px, settings.batch_size)
    timer = Timer()
    splits: dict[str, list[tasks.ExtractJob]] = {}
    for split in SPLITS:
        rows = images.split(split)
        if rows:
            splits[split] = _shards(run, images, settings, split, rows, how, notes, config)
    missing = [
        job
        for jobs in splits.values()
        for job in jobs
        if not tables.is_made(job.target, job.made_from)
    ]
    if missing:
        cluster.connect(config.resources)
        gpus = cluster.num_gpus(config.resources)
        total = sum(len(job.ids) for job in missing)
        done = 0
        with progress.step("extracting features", total, "images") as report:
            for _, count in tasks.run_all(
                tasks.extract_shard, missing, in_flight=2 * cluster.num_cpus(), num_gpus=gpus
            ):
                done += count
                report(done)
    for split, jobs in splits.items():
        names = [job.target.name for job in jobs]
        complete = fingerprint([job.made_from for job in jobs])
        tables.write_manifest(run.features / split, complete, names)
    if missing:
        made_from = fingerprint([job.made_from for jobs in splits.values() for job in jobs])
        run.note_step("features", made_from, timer.seconds, shards_computed=len(missing))


def compute_values(run: RunDirectory, config: Config) -> None:
    """The value of every training image, by the closed form, and what the rule keeps.

    Raises:
        ValueError: features are missing or do not fit, or the rule would empty a class.
    """
    settings = config.value
    train, clean = read_splits(run, need_clean=settings.validation != "self")
    made_from = fingerprint(
        "values", plain(settings), train.fingerprint, clean.fingerprint if clean else ""
    )
    if tables.is_made(run.values, made_from) and tables.is_made(run.kept, made_from):
        return
    timer = Timer()
    classes = tuple(sorted(set(train.labels)))
    y = class_numbers(train.labels, classes, run.features / "train")
    y_clean = class_numbers(clean.labels, classes, run.features / "shapley_val") if clean else None
    cluster.connect(config.resources)
    values = _closed_form(train, y, clean, y_clean, settings)
    kept, choice = _choose(values["value"], train, y, clean, y_clean, classes, settings)
    cleaning.check_classes_kept(kept, y, classes, settings.chosen_rule)
    suggested = cleaning.suggested_labels(
        train.x, y, kept, *_points(train, clean, y_clean), k=settings.k, metric=settings.metric
    )
    columns = {
        "id": train.ids,
        "label": train.labels,
        "stderr": np.zeros(len(y)),
        "low": values["value"],
        "high": values["value"],
        "rounds": np.zeros(len(y), dtype=np.int64),
        "evaluated": np.zeros(len(y), dtype=np.int64),
        "decision": np.where(kept, "keep", "drop").tolist(),
        "suggested_label": [classes[i] for i in suggested],
        **values,
    }
    table = pa.table([columns[name] for name in tables.VALUES.names], schema=tables.VALUES)
    if "value_self" in values:
        table = table.append_column("value_self", pa.array(values["value_self"]))
    left = pa.table({name: table[name] for name in tables.KEPT.names}).filter(pa.array(kept))
    tables.write_table(
        run.values,
        table,
        made_from,
        choice=json.dumps(choice),
        settings=json.dumps(plain(settings)),
    )
    tables.write_table(run.kept, left, made_from)
    run.note_step("values", made_from, timer.seconds, kept=int(kept.sum()), **choice)


def score_probes(run: RunDirectory, config: Config, truth: Truth | None) -> None:
    """Quick probes on the features for every arm; `cleaned/probes.parquet`."""
    train, clean = read_splits(run, need_clean=False)
    val = tables.read_features(run.features / "val")
    tables.check_same_features(train, val, ("train", "val"))
    settings, wrong = config.retrain, None if truth is None else truth.wrong
    values = read_run_values(run, train)
    made_from = fingerprint(
        "probes", plain(settings), val.fingerprint, tables.made_from(run.values),
        None if wrong is None else np.flatnonzero(wrong).tolist(),
    )  # fmt: skip
    if tables.is_made(run.probes, made_from):
        return
    timer = Timer()
    classes = tuple(sorted(set(train.labels)))
    y = class_numbers(train.labels, classes, run.features / "train")
    y_val = class_numbers(val.labels, classes, run.features / "val")
    x_clean, y_clean = _points(
        train, clean, clean and class_numbers(clean.labels, classes, run.features / "shapley_val")
    )
    data = tasks.ProbeData((train.x, y), (x_clean, y_clean), (val.x, y_val), len(classes))
    kept = np.array([d == "keep" for d in values["decision"].to_pylist()])
    seeds = range(settings.probe_seeds)
    arms = chosen_images(kept, y, wrong, has_clean=clean is not None, seeds=seeds)
    names, jobs = [], []
    for probe in ("logistic", "10-nn"):
        for arm, by_seed in arms.items():
            for seed in seeds if arm == "random" else [0]:
                names.append((probe, arm, seed))
                jobs.append(
                    tasks.ProbeJob(probe, by_seed[seed], "clean" in arm, settings.standardize)
                )
    cluster.connect(config.resources)
    scores: dict[tuple[str, str, int], dict[str, float]] = {}
    with progress.step("probes on features", len(jobs), "probes") as report:
        for i, score in tasks.run_all(
            tasks.score_probe,
            jobs,
            shared=data,
            in_flight=2 * cluster.num_cpus(),
            on_progress=report,
        ):
            scores[names[i]] = score
    rows = [
        {"probe": probe, "arm": arm, "seed": seed, **scores[probe, arm, seed * (arm == "random")]}
        for probe in ("logistic", "10-nn")
        for arm in arms
        for seed in seeds
    ]
    tables.write_table(run.probes, pa.Table.from_pylist(rows, tables.PROBES), made_from)
    run.note_step("probes", made_from, timer.seconds)


def retrain_networks(
    run: RunDirectory, images: ImageSet, config: Config, truth: Truth | None
) -> None:
    """Fine-tune on every arm but `all`, which step 1 trained; `cleaned/metrics.parquet`."""
    rows = images.split("train")
    values = tables.read_table(run.values)
    _check_ids(run.values, values["id"].to_pylist(), [row["id"] for row in rows])
    kept = np.array([d == "keep" for d in values["decision"].to_pylist()])
    number = {label: i for i, label in enumerate(images.classes)}
    y = np.array([number[row["label"]] for row in rows])
    clean = images.split("shapley_val")
    seeds = config.finetune.seeds
    chosen = chosen_images(
        kept, y, None if truth is None else truth.wrong, has_clean=bool(clean), seeds=seeds
    )
    arms = {
        arm: {
            seed: [rows[i] for i in np.flatnonzero(mask)] + (clean if "clean" in arm else [])
            for seed, mask in by_seed.items()
        }
        for arm, by_seed in chosen.items()
        if arm != "all"
    }
    train_networks(run, images, config, "cleaned", arms)


def chosen_images(
    kept: NDArray[np.bool_],
    y: NDArray[np.int64],
    wrong: NDArray[np.bool_] | None,
    *,
    has_clean: bool,
    seeds: Sequence[int],
) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """By arm and seed, which training images it learns from (arms named clean add shapley_val)."""
    arms = {"all": np.ones_like(kept), "kept": kept, "random": kept}
    if has_clean:
        arms |= {"clean": np.zeros_like(kept), "kept+clean": kept}
    if wrong is not None and wrong.any():
        arms["truth"] = ~wrong
    return {
        arm: {
            seed: cleaning.random_choice(mask, y, seed) if arm == "random" else mask
            for seed in seeds
        }
        for arm, mask in arms.items()
    }


def read_splits(run: RunDirectory, *, need_clean: bool) -> tuple[Features, Features | None]:
    """Features of train, and of shapley_val where there are any.

    Raises:
        ValueError: they are missing, or do not fit together.
    """
    train = tables.read_features(run.features / "train")
    folder = run.features / "shapley_val"
    if not need_clean and not tables.has_features(folder):
        return train, None
    clean = tables.read_features(folder)
    tables.check_same_features(train, clean, ("train", "shapley_val"))
    return train, clean


def read_run_values(run: RunDirectory, train: Features) -> pa.Table:
    """The values, checked to belong to these features."""
    values = tables.read_table(run.values)
    _check_ids(run.values, values["id"].to_pylist(), list(train.ids))
    return values


def class_numbers(
    labels: Sequence[str], classes: Sequence[str], where: Location
) -> NDArray[np.int64]:
    """Class numbers of labels.

    Raises:
        ValueError: a label is no class of train; the message names it.
    """
    number = {label: i for i, label in enumerate(classes)}
    unknown = sorted(set(labels) - number.keys())
    if unknown:
        raise ValueError(f"{where}: class {', '.join(unknown)} does not occur in train")
    return np.array([number[label] for label in labels], dtype=np.int64)


def _inspect(data: Location, files: Sequence[ImageFile], config: Config) -> list[Any]:
    jobs = [
        tasks.InspectJob(data, [image.path for image in files[i : i + _INSPECTED_A_TASK]])
        for i in range(0, len(files), _INSPECTED_A_TASK)
    ]
    cluster.connect(config.resources)
    found: dict[int, list[Any]] = {}
    done = 0
    with progress.step("reading images", len(files), "images") as report:
        for i, seen in tasks.run_all(tasks.inspect_images, jobs, in_flight=2 * cluster.num_cpus()):
            found[i] = seen
            done += len(seen)
            report(done)
    return [seen for i in range(len(jobs)) for seen in found[i]]


def _train(jobs: Sequence[tasks.FinetuneJob], config: Config, name: str) -> list[dict[str, Any]]:
    """The rows of all histories, in the order of the jobs."""
    cluster.connect(config.resources)
    epochs = config.finetune.epochs
    history: dict[int, list[dict[str, Any]]] = {}
    with progress.step(name, epochs * len(jobs), f"epochs ({len(jobs)} trainings)") as report:
        for i, rows in tasks.run_all(
            tasks.finetune_network,
            jobs,
            in_flight=2 * cluster.num_cpus(),
            num_cpus=config.finetune.num_threads,
            num_gpus=cluster.num_gpus(config.resources),
            on_progress=report,
            ticking=True,
        ):
            history[i] = rows
    return [
        {"arm": job.arm, "backbone": job.backbone, "seed": job.seed, **row}
        for i, job in enumerate(jobs)
        for row in history[i]
    ]


def _shards(
    run: RunDirectory,
    images: ImageSet,
    settings: ExtractConfig,
    split: str,
    rows: Sequence[dict[str, Any]],
    how: str,
    notes: Mapping[str, str],
    config: Config,
) -> list[tasks.ExtractJob]:
    jobs = []
    for start in range(0, len(rows), settings.shard_size):
        part = rows[start : start + settings.shard_size]
        jobs.append(
            tasks.ExtractJob(
                data=images.data,
                target=run.features / split / tables.shard_name(len(jobs)),
                made_from=fingerprint(how, images.classes, _contents(part)),
                ids=[row["id"] for row in part],
                labels=[row["label"] for row in part],
                paths=[row["path"] for row in part],
                settings=settings,
                notes=notes,
                decode_threads=config.resources.decode_threads,
            )
        )
    return jobs


def _closed_form(
    train: Features,
    y: NDArray[np.int64],
    clean: Features | None,
    y_clean: NDArray[np.int64] | None,
    settings: ValueConfig,
) -> dict[str, NDArray[np.float64]]:
    """Columns value, stderr_validation and, where computed, value_self."""
    n = len(y)
    found = {}
    if settings.validation != "self":
        assert clean is not None
        found["clean"] = _sum_blocks(train.x, y, clean.x, y_clean, settings), len(clean.x)
    if settings.validation != "clean" or 2 <= n <= settings.second_opinion_up_to:
        found["self"] = _sum_blocks(train.x, y, None, None, settings), n
    if settings.validation == "both":
        weights = {"clean": len(clean.x) if clean else 0, "self": _SELF_WEIGHT * n}
    else:
        weights = {settings.validation: 1.0}
    whole = sum(weights.values())
    value, variance = np.zeros(n), np.zeros(n)
    for name, weight in weights.items():
        sums, count = found[name]
        value += weight / whole * (sums.total / count)
        variance += (weight / whole * standard_error(sums, count)) ** 2
    columns = {"value": value, "stderr_validation": np.sqrt(variance)}
    if "self" in found and settings.validation != "self":
        columns["value_self"] = found["self"][0].total / n
    return columns


def _sum_blocks(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    x_val: NDArray[np.float32] | None,
    y_val: NDArray[np.int64] | None,
    settings: ValueConfig,
) -> Sums:
    game = knn_game(
        x, y, x_val, y_val,
        k=settings.k, metric=settings.metric, semivalue=settings.semivalue, beta=settings.beta,
    )  # fmt: skip
    name = "values (self)" if x_val is None else "values"
    early: dict[int, Sums] = {}
    merged: list[Sums] = []
    with progress.step(name, len(game.blocks), "blocks") as report:
        for i, sums in tasks.run_all(
            tasks.value_block,
            game.blocks,
            shared=game,
            in_flight=2 * cluster.num_cpus(),
            on_progress=report,
        ):
            early[i] = sums
            while len(early) and min(early) == len(merged):
                merged.append(early.pop(len(merged)))
    return merge(merged)


def _choose(
    value: NDArray[np.float64],
    train: Features,
    y: NDArray[np.int64],
    clean: Features | None,
    y_clean: NDArray[np.int64] | None,
    classes: Sequence[str],
    settings: ValueConfig,
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Which images the rule keeps, and how it came to that."""
    rule = settings.chosen_rule
    if rule == "zero":
        return value > 0, {"rule": rule, "threshold": 0.0}
    if rule == "chance":
        threshold = cleaning.chance_threshold(len(classes), len(y))
        return value > threshold, {"rule": rule, "threshold": threshold}
    choice: dict[str, Any] = {"rule": rule, "share": settings.drop_share}
    if rule == "validated":
        assert clean is not None and y_clean is not None
        data = tasks.ProbeData((train.x, y), (clean.x, y_clean), (clean.x, y_clean), len(classes))
        jobs = [tasks.ShareJob(value, share, settings.per_class) for share in cleaning.SHARES]
        losses: dict[float, float | None] = {}
        with progress.step("choosing what to keep", len(jobs), "shares") as report:
            for i, loss in tasks.run_all(
                tasks.score_share, jobs, shared=data, in_flight=2 * cluster.num_cpus(),
                on_progress=report,
            ):  # fmt: skip
                losses[jobs[i].share] = loss
        choice["share"] = cleaning.best_share(losses)
        choice["log_loss"] = {f"{share:g}": losses[share] for share in sorted(losses)}
    kept = cleaning.keep_share(value, choice["share"], y, per_class=settings.per_class)
    return kept, choice


def _points(
    train: Features, clean: Features | None, y_clean: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The clean images, or none of the same width."""
    if clean is None or y_clean is None:
        return np.zeros((0, train.x.shape[1]), dtype=np.float32), np.zeros(0, dtype=np.int64)
    return clean.x, y_clean


def _files(
    rows: Sequence[dict[str, Any]], number: Mapping[str, int]
) -> tuple[list[str], NDArray[np.int64]]:
    targets = np.array([number[row["label"]] for row in rows], dtype=np.int64)
    return [row["path"] for row in rows], targets


def _contents(rows: Sequence[dict[str, Any]]) -> str:
    return fingerprint([[row["id"], row["label"], row["sha256"]] for row in rows])


def _listing_fingerprint(listing: Listing) -> str:
    return fingerprint([[image.split, image.id, image.bytes] for image in listing.images])


def _check_same_images(run: RunDirectory, listing: Listing) -> None:
    """Refuse a folder made from other images; a rerun trusts names and sizes."""
    if tables.made_from(run.images) == _listing_fingerprint(listing):
        return
    rows = tables.read_table(run.images).to_pylist()
    if run.skipped.exists():
        rows += tables.read_table(run.skipped).to_pylist()
    there = {(row["split"], row["id"]): row["bytes"] for row in rows}
    now = {(image.split, image.id): image.bytes for image in listing.images}
    changed = sorted(key for key in there.keys() | now.keys() if there.get(key) != now.get(key))
    raise ValueError(
        f"{run.location} was made from other images: {len(changed)} differ, the first "
        f"{'/'.join(changed[0])}; use another --run"
    )


def _check_classes_left(listing: Listing, left: set[tuple[str, str]]) -> None:
    emptied = sorted({(image.split, image.label) for image in listing.images} - left)
    if emptied:
        names = ", ".join("/".join(pair) for pair in emptied)
        raise ValueError(f"no readable image is left in {names}; repair or remove that class")


def _check_ids(path: Location, ids: Sequence[str], wanted: Sequence[str]) -> None:
    if list(ids) != list(wanted):
        raise ValueError(
            f"{path}: ids do not match the training images ({len(ids)} and {len(wanted)}); "
            "value them again in another --run"
        )
