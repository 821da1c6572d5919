"""The flags of each command, and the settings that they make with a YAML file and presets."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar

import tyro

from dcai_ray.config import (
    Backbone,
    Config,
    ExtractConfig,
    FinetuneConfig,
    ImagesConfig,
    ResourcesConfig,
    RetrainConfig,
    SampleConfig,
    ValueConfig,
    parse_config,
    plain,
    preset,
    read_config,
)
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.location import Location

T = TypeVar("T")
File = Annotated[str | None, tyro.conf.arg(metavar="FILE")]
Folder = Annotated[str | None, tyro.conf.arg(metavar="DIR")]
Flat = tyro.conf.arg(name="")  # the flags of a section without its name before them
_SECTIONS = tuple(field.name for field in fields(Config))
_STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What stderr shows."""

    debug: bool = False
    """Show everything that is logged, and a traceback with every error."""
    quiet: bool = False
    """Show nothing but warnings and errors."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where the images are and where results go."""

    data: str
    """Folder or URI with train, val and (optionally) shapley_val, a folder a class in each."""
    run: str
    """Folder or URI that collects the results."""
    config: File = None
    """YAML file with settings; flags win over it."""


@dataclass(frozen=True, kw_only=True)
class Run(Where):
    """All steps: fine-tune, extract, value, clean, retrain, report."""

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
    sample: SampleConfig
    retrain: RetrainConfig
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Write the embedded demo set and run everything on it."""

    data: str = "data/digits"
    """Where to write the demo set."""
    run: str = "outputs/demo"
    """Folder that collects the results."""
    no_finetune: bool = False
    """Leave out the networks: quick probes on the features alone."""
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Value a plain folder of class folders by itself; no training."""

    folder: tyro.conf.Positional[str]
    """Folder or URI with a folder a class."""
    run: Folder = None
    """Folder that collects the results; outputs/<name of the folder> by default."""
    config: File = None
    """YAML file with settings; flags win over it."""
    images: Annotated[ImagesConfig, Flat]
    extract: Annotated[ExtractConfig, Flat]
    value: ValueConfig
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Finetune(Where):
    """Step 1: fine-tune on all training images, test on val."""

    images: Annotated[ImagesConfig, Flat]
    finetune: Annotated[FinetuneConfig, Flat]
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Extract(Where):
    """Step 2a: one feature vector an image."""

    images: Annotated[ImagesConfig, Flat]
    extract: Annotated[ExtractConfig, Flat]
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Value:
    """Step 2b: the value of every training image, and what to keep."""

    run: str
    """Folder or URI that collects the results."""
    features: Folder = None
    """Folder with the features of train and shapley_val; <run>/features by default."""
    config: File = None
    """YAML file with settings; flags win over it."""
    preset: Literal["study"] | None = None
    """study: K = 10, Euclidean, clean, keep value > 0."""
    dry_run: bool = False
    """Say what sampling would take, and stop."""
    value: Annotated[ValueConfig, Flat]
    sample: Annotated[SampleConfig, Flat]
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Step 3: before against after, on networks and probes."""

    run: str
    """Folder or URI that collects the results; holds the values."""
    data: Folder = None
    """The images; by default those of the run's earlier steps."""
    config: File = None
    """YAML file with settings; flags win over it."""
    no_finetune: bool = False
    """Probes on the features alone."""
    images: Annotated[ImagesConfig, Flat]
    finetune: FinetuneConfig
    retrain: Annotated[RetrainConfig, Flat]
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class OfRun:
    """A run that is there."""

    run: str
    """The run's folder or URI."""
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Export(OfRun):
    """Write the cleaned set as a folder."""

    to: str
    """Folder to write; must not exist, or be empty."""
    how: Literal["copy", "hardlink", "symlink"] = "copy"
    """Copy each file, or link to it (local folders only)."""


@dataclass(frozen=True, kw_only=True)
class ImportFeatures:
    """Features of a pickle (a dict of arrays) as Parquet."""

    file: tyro.conf.Positional[str]
    """Pickle of a dict with one (k, d) array of features and one (k,) array of labels."""
    split: Literal["train", "shapley_val", "val"]
    """The split these are."""
    features: str
    """Folder that collects the splits; give it to `value --features`."""
    backbone: str = "imported"
    """Name of the network they came from; the splits of a folder must agree."""
    shown: Annotated[Shown, Flat] = Shown()


def parse(command: type[T], arguments: Sequence[str], base: Config, name: str) -> T:
    """Defaults, then the run's own settings or the YAML file, then presets, then flags."""
    base = _base(arguments, base, name)
    entries = command.__dataclass_fields__  # type: ignore[attr-defined]
    default: dict[str, Any] = {}
    for key, field in entries.items():
        if key in _SECTIONS:
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
        there = RunDirectory(Location(given.run)).settings()
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


def settings_of(chosen: Any) -> Config:
    """The sections that a command has; defaults for the others."""
    return Config(**{name: getattr(chosen, name) for name in _SECTIONS if hasattr(chosen, name)})
