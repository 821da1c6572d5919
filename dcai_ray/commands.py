"""The commands behind the command line: parse the flags of each, then call its steps in order."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

import tyro

from dcai_ray import progress, tables
from dcai_ray.config import (
    Backbone,
    Config,
    ExtractConfig,
    FinetuneConfig,
    ImagesConfig,
    ResourcesConfig,
    RetrainConfig,
    ValueConfig,
    parse_config,
    plain,
    preset,
    read_config,
)
from dcai_ray.findings import read_findings, summary, text_table
from dcai_ray.images import list_folder, list_splits
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import Location

T = TypeVar("T")
Flat = tyro.conf.arg(name="")  # the flags of a section without its name before them
_STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)


@dataclass(frozen=True, kw_only=True)
class _Where:
    data: str
    """Folder or URI with train, val and (optionally) shapley_val, a folder a class in each."""
    run: str
    """Folder or URI that collects the results."""
    config: str | None = None
    """YAML file with settings; flags go before it."""


@dataclass(frozen=True, kw_only=True)
class _Run(_Where):
    backbone: Backbone | None = None
    """Sets finetune.backbones and extract.backbone at once."""
    preset: Literal["study"] | None = None
    """study: K = 10, Euclidean, clean, keep value > 0."""
    no_finetune: bool = False
    """Leave out the networks of steps 1 and 3: quick probes on the features alone."""
    images: Annotated[ImagesConfig, Flat]
    finetune: FinetuneConfig
    extract: ExtractConfig
    value: ValueConfig
    retrain: RetrainConfig
    resources: ResourcesConfig


@dataclass(frozen=True, kw_only=True)
class _Demo:
    data: str = "data/digits"
    """Where to write the demo set."""
    run: str = "outputs/demo"
    """Folder that collects the results."""
    no_finetune: bool = False
    """Leave out the networks: quick probes on the features alone."""
    resources: ResourcesConfig


@dataclass(frozen=True, kw_only=True)
class _Audit:
    folder: tyro.conf.Positional[str]
    """Folder or URI with a folder a class."""
    run: str | None = None
    """Folder that collects the results; outputs/<name of the folder> by default."""
    config: str | None = None
    """YAML file with settings; flags go before it."""
    images: Annotated[ImagesConfig, Flat]
    extract: Annotated[ExtractConfig, Flat]
    value: ValueConfig
    resources: ResourcesConfig


@dataclass(frozen=True, kw_only=True)
class _Finetune(_Where):
    images: Annotated[ImagesConfig, Flat]
    finetune: Annotated[FinetuneConfig, Flat]
    resources: ResourcesConfig


@dataclass(frozen=True, kw_only=True)
class _Extract(_Where):
    images: Annotated[ImagesConfig, Flat]
    extract: Annotated[ExtractConfig, Flat]
    resources: ResourcesConfig


@dataclass(frozen=True, kw_only=True)
class _Value:
    run: str
    """Folder or URI that collects the results."""
    features: str | None = None
    """Folder with the features of train and shapley_val; <run>/features by default."""
    config: str | None = None
    """YAML file with settings; flags go before it."""
    preset: Literal["study"] | None = None
    """study: K = 10, Euclidean, clean, keep value > 0."""
    value: Annotated[ValueConfig, Flat]
    resources: ResourcesConfig


@dataclass(frozen=True, kw_only=True)
class _Retrain:
    run: str
    """Folder or URI that collects the results; holds the values."""
    data: str | None = None
    """The images; by default those of the run's earlier steps."""
    config: str | None = None
    """YAML file with settings; flags go before it."""
    no_finetune: bool = False
    """Probes on the features alone."""
    images: Annotated[ImagesConfig, Flat]
    finetune: FinetuneConfig
    retrain: Annotated[RetrainConfig, Flat]
    resources: ResourcesConfig


@dataclass(frozen=True, kw_only=True)
class _OfRun:
    run: str
    """The run's folder or URI."""


@dataclass(frozen=True, kw_only=True)
class _Export(_OfRun):
    to: str
    """Folder to write; must not exist, or be empty."""
    how: Literal["copy", "hardlink", "symlink"] = "copy"
    """Copy each file, or link to it (local folders only)."""


@dataclass(frozen=True, kw_only=True)
class _ImportFeatures:
    file: tyro.conf.Positional[str]
    """Pickle of a dict with one (k, d) array of features and one (k,) array of labels."""
    split: Literal["train", "shapley_val", "val"]
    """The split these are."""
    features: str
    """Folder that collects the splits; give it to `value --features`."""
    backbone: str = "imported"
    """Name of the network they came from; the splits of a folder must agree."""


def demo(arguments: Sequence[str]) -> None:
    """Write the embedded demo set; all steps on it."""
    from dcai_ray.demo_set import SETTINGS, write_digits

    chosen = _parse(_Demo, arguments, Config(), "demo")
    root = Location(chosen.data)
    if not (root / "truth.csv").exists():
        if root.exists():
            raise ValueError(
                f"{root}: exists, but is no finished demo set; delete it or use --data"
            )
        progress.say(f"writing the demo set to {root}")
        write_digits(root)
    settings = parse_config(SETTINGS, "demo")
    settings = replace(settings, resources=chosen.resources)
    _pipeline(Location(chosen.data), chosen.run, settings, no_finetune=chosen.no_finetune)


def run(arguments: Sequence[str]) -> None:
    """All steps."""
    chosen = _parse(_Run, arguments, Config(), "run")
    _pipeline(Location(chosen.data), chosen.run, _config(chosen), no_finetune=chosen.no_finetune)


def audit(arguments: Sequence[str]) -> None:
    """Values of a plain folder by itself, and the report."""
    from dcai_ray.distributed import runs

    base = Config(value=ValueConfig(validation="self"))
    chosen = _parse(_Audit, arguments, base, "audit")
    if chosen.value.validation != "self":
        raise ValueError("audit has no clean set: value.validation must be self; or use run")
    data = Location(chosen.folder)
    directory = RunDirectory(Location(chosen.run or f"outputs/{data.name}"))
    config = _config(chosen)
    listing = list_folder(data)
    directory.claim({"data": data.uri, **_sections(config, "images", "extract", "value")})
    images = runs.read_images(directory, data, listing, config)
    runs.extract_features(directory, images, config)
    runs.compute_values(directory, config)
    _finish(directory)


def finetune(arguments: Sequence[str]) -> None:
    """Step 1."""
    from dcai_ray.distributed import runs

    chosen = _parse(_Finetune, arguments, Config(), "finetune")
    data, directory, config = Location(chosen.data), _directory(chosen.run), _config(chosen)
    listing = list_splits(data, split_seed=config.images.split_seed)
    directory.claim({"data": data.uri, **_sections(config, "images", "finetune")})
    images = runs.read_images(directory, data, listing, config)
    runs.train_baseline(directory, images, config)
    print(f"done: {directory.metrics('baseline')}")


def extract(arguments: Sequence[str]) -> None:
    """Step 2a."""
    from dcai_ray.distributed import runs

    chosen = _parse(_Extract, arguments, Config(), "extract")
    data, directory, config = Location(chosen.data), _directory(chosen.run), _config(chosen)
    listing = list_splits(data, split_seed=config.images.split_seed)
    directory.claim({"data": data.uri, **_sections(config, "images", "extract")})
    images = runs.read_images(directory, data, listing, config)
    runs.extract_features(directory, images, config)
    print(f"done: {directory.features}")


def value(arguments: Sequence[str]) -> None:
    """Step 2b."""
    from dcai_ray.distributed import runs

    chosen = _parse(_Value, arguments, Config(), "value")
    directory, config = _directory(chosen.run, chosen.features), _config(chosen)
    sections = _sections(config, "value")
    if chosen.features:
        sections["features"] = directory.features.uri
    directory.claim(sections)
    runs.compute_values(directory, config)
    findings = read_findings(directory)
    print("\n".join(summary(findings)[:-1]))
    print(f"values: {directory.values}")


def retrain(arguments: Sequence[str]) -> None:
    """Step 3."""
    from dcai_ray.distributed import runs

    chosen = _parse(_Retrain, arguments, Config(), "retrain")
    directory, config = _directory(chosen.run), _config(chosen)
    data = chosen.data or directory.settings().get("data")
    if not chosen.no_finetune and data is None:
        raise ValueError(
            f"{directory.location}: no images known to fine-tune on; give --data, or --no-finetune"
        )
    if chosen.no_finetune:
        directory.claim(_sections(config, "retrain"))
        runs.score_probes(directory, config, read_findings(directory).truth)
    else:
        location = Location(str(data))
        listing = list_splits(location, split_seed=config.images.split_seed)
        sections = _sections(config, "images", "finetune", "retrain")
        directory.claim({"data": location.uri, **sections})
        images = runs.read_images(directory, location, listing, config)
        truth = read_findings(directory).truth
        runs.score_probes(directory, config, truth)
        runs.train_baseline(directory, images, config)
        runs.retrain_networks(directory, images, config, truth)
    _finish(directory)


def report(arguments: Sequence[str]) -> None:
    """The report of what is there."""
    chosen = _parse(_OfRun, arguments, Config(), "report")
    _finish(_existing(chosen.run))


def status(arguments: Sequence[str]) -> None:
    """What is done and what is not."""
    chosen = _parse(_OfRun, arguments, Config(), "status")
    directory = _existing(chosen.run)
    steps = directory.record().get("steps", {})
    for step in ("images", "baseline", "features", "values", "probes", "cleaned"):
        done = f"done in {steps[step]['seconds']:g} s" if step in steps else "not done"
        print(f"{step:<10}{done}")
    print(f"{'report':<10}{'done' if directory.report.exists() else 'not done'}")


def export(arguments: Sequence[str]) -> None:
    """The cleaned set as a folder."""
    from dcai_ray.exporting import export_kept

    chosen = _parse(_Export, arguments, Config(), "export")
    count = export_kept(_existing(chosen.run), Location(chosen.to), chosen.how)
    print(f"{count} images in {chosen.to}")


def import_features(arguments: Sequence[str]) -> None:
    """Features of a pickle as Parquet."""
    from dcai_ray.pickles import read_feature_pickle

    chosen = _parse(_ImportFeatures, arguments, Config(), "import-features")
    source = Location(chosen.file)
    ids, labels, x, digest = read_feature_pickle(source)
    folder = Location(chosen.features) / chosen.split
    made_from = tables.fingerprint("imported", chosen.backbone, digest)
    name = tables.shard_name(0)
    notes = {"backbone": chosen.backbone, "source_sha256": digest}
    if not tables.is_made(folder / name, made_from):
        tables.write_table(folder / name, tables.feature_table(ids, labels, x, notes), made_from)
    tables.write_manifest(folder, made_from, [name])
    print(f"{len(ids)} x {x.shape[1]} features in {folder}")


def _pipeline(data: Location, run: str, config: Config, *, no_finetune: bool) -> None:
    """All steps, each skipping what is there."""
    from dcai_ray.distributed import runs

    listing = list_splits(data, split_seed=config.images.split_seed)
    directory = _directory(run)
    sections = _sections(config, "images", "finetune", "extract", "value", "retrain")
    if no_finetune:
        del sections["finetune"]
    directory.claim({"data": data.uri, **sections})
    images = runs.read_images(directory, data, listing, config)
    if not no_finetune:
        runs.train_baseline(directory, images, config)
    runs.extract_features(directory, images, config)
    runs.compute_values(directory, config)
    truth = read_findings(directory).truth
    runs.score_probes(directory, config, truth)
    if not no_finetune:
        runs.retrain_networks(directory, images, config, truth)
    _finish(directory)


def _finish(directory: RunDirectory) -> None:
    """The report, the table and the last lines."""
    from dcai_ray.report import write_report

    findings = read_findings(directory)
    write_report(findings)
    if findings.table:
        print(text_table(findings.table))
        print()
    print("\n".join(summary(findings)))


def _parse(command: type[T], arguments: Sequence[str], base: Config, name: str) -> T:
    """Defaults, then the run's own settings or the YAML file, then presets, then flags."""
    base = _base(arguments, base, name)
    known = {"images", "finetune", "extract", "value", "retrain", "resources"}
    fields = command.__dataclass_fields__  # type: ignore[attr-defined]
    default: dict[str, Any] = {}
    for key, field in fields.items():
        if key in known:
            default[key] = getattr(base, key)
        else:
            missing = field.default.__class__.__name__ == "_MISSING_TYPE"
            default[key] = tyro.MISSING if missing else field.default
    return tyro.cli(
        command,
        prog=f"dcai-ray {name}",
        args=list(arguments),
        default=command(**default),
        config=_STYLE,
    )


def _base(arguments: Sequence[str], base: Config, name: str) -> Config:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--config", "--preset", "--run", "--backbone"):
        early.add_argument(flag)
    given, _ = early.parse_known_args(list(arguments))
    if given.config:
        base = read_config(given.config)
    elif name in ("finetune", "extract", "value", "retrain") and given.run:
        there = _directory(given.run).settings()
        sections = {key: there[key] for key in plain(base) if key in there}
        base = parse_config(sections, f"{given.run}/config.yaml")
    if given.preset == "study":
        base = replace(base, value=replace(base.value, **preset("study")))
    if given.backbone and name == "run":
        chosen = plain(base)
        chosen["finetune"]["backbones"] = [given.backbone]
        chosen["extract"]["backbone"] = given.backbone
        base = parse_config(chosen, "--backbone")
    return base


def _config(chosen: Any) -> Config:
    """The sections that a command has; defaults for the others."""
    names = ("images", "finetune", "extract", "value", "retrain", "resources")
    return Config(**{name: getattr(chosen, name) for name in names if hasattr(chosen, name)})


def _sections(config: Config, *names: str) -> dict[str, Any]:
    everything = plain(config)
    return {name: everything[name] for name in names}


def _directory(run: str, features: str | None = None) -> RunDirectory:
    directory = RunDirectory(Location(run))
    where = features or directory.settings().get("features")
    return RunDirectory(directory.location, Location(where)) if where else directory


def _existing(run: str) -> RunDirectory:
    if not (Location(run) / "config.yaml").exists():
        raise ValueError(f"{run}: no run there (no config.yaml)")
    return _directory(run)
