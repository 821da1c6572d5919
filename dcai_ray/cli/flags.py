"""The flags of each command, and the settings that they make with a YAML file and presets."""

import argparse
import inspect
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from dcai_ray.cli import helptext, short_help
from dcai_ray.config import (
    AUTO,
    Config,
    ExtractConfig,
    FinetuneConfig,
    ImagesConfig,
    ResourcesConfig,
    RetrainConfig,
    SampleConfig,
    ValueConfig,
    check_backbone,
    parse_config,
    plain,
    preset,
    read_config,
)
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.location import Location

T = TypeVar("T")


def _optional(metavar: str) -> Any:
    """A flag that may be left out; its help says what happens then, not a default of None."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="(optional)")


Folder = Annotated[str, tyro.conf.arg(metavar="FOLDER")]
RunFolder = Annotated[str, tyro.conf.arg(metavar="RUN")]
OptionalFolder = Annotated[str | None, _optional("FOLDER")]
OptionalRun = Annotated[str | None, _optional("RUN")]
OptionalFile = Annotated[str | None, _optional("FILE")]
OptionalBackbone = Annotated[str | None, _optional("NAME")]
OptionalPreset = Annotated[Literal["study"] | None, _optional("{study}")]
Splits = Annotated[tuple[str, ...], tyro.conf.arg(metavar="SPLIT=FOLDER ...")]
ValueSplits = tuple[Literal["shapley_val", "val"], ...]
Switch = tyro.conf.FlagCreatePairsOff[bool]  # off unless given; a setting also has its --no- flag
Flat = tyro.conf.arg(name="")  # the flags of a section without its name before them
_SECTIONS = tuple(field.name for field in fields(Config))
# These take RUN without its flag, too.
_RUN_FIRST = ("report", "status", "review", "tasks", "decide", "export")
_STYLE = (tyro.conf.HelptextFromCommentsOff, tyro.conf.SuppressFixed)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What stderr shows."""

    debug: Switch = False
    """Show everything that is logged, and a traceback with every error."""
    quiet: Switch = False
    """Show only warnings and errors."""
    json: Switch = False
    """Print the results as one JSON object on stdout."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where the images are and where results go."""

    data: Folder
    """Folder or URI with train, val and, optionally, shapley_val; each has one subfolder per
    class."""
    splits: Splits = ()
    """Folders of the splits where they have other names: train=Training val=Test."""
    run: RunFolder
    """Folder or URI that collects the results. Run the same command again to resume."""
    config: OptionalFile = None
    """YAML file with settings; flags override it."""


@dataclass(frozen=True, kw_only=True)
class Run(Where):
    """Run all steps: fine-tune, extract features, value, clean, retrain, report.

    Example:
      dcai-ray run --data DATA --run outputs/mine --config jobs/laptop.yaml
    """

    backbone: OptionalBackbone = None
    """Network for both fine-tuning and features: sets finetune.backbones and extract.backbone,
    whose help says which names there are."""
    preset: OptionalPreset = None
    """Settings of the published study for the values: K = 10, Euclidean distance, clean validation
    set, keep value > 0."""
    no_finetune: Switch = False
    """Train no networks (steps 1 and 3); compare with quick probes on the features only."""
    value_splits: ValueSplits = ()
    """Also list the suspicious labels of these splits, by all other images: shapley_val, val."""
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
    """Write the bundled demo dataset (digits with wrong labels) and run all steps on it.

    Example:
      dcai-ray demo --run outputs/demo
    """

    data: Folder = "data/digits"
    """Folder for the demo dataset."""
    run: RunFolder = "outputs/demo"
    """Folder or URI that collects the results."""
    no_finetune: Switch = False
    """Train no networks; compare with quick probes on the features only."""
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class AuditValueConfig(ValueConfig):
    """What there is to choose without a clean set: the closed form, images against each other."""

    method: tyro.conf.Fixed[Literal["exact", "sample"]]
    utility: tyro.conf.Fixed[str]
    utility_options: tyro.conf.Fixed[dict[str, bool | int | float | str]]
    validation: tyro.conf.Fixed[Literal["clean", "self", "both"]]
    second_opinion_up_to: tyro.conf.Fixed[int]
    self_weight: tyro.conf.Fixed[float]
    rule: Literal["doubted", "wrong", "zero", "chance", "share"] | None = None
    """Rule that decides what to keep. doubted: drop labels that all evidence from the other images
    doubts (the default). wrong: drop labels that are wrong with a probability above wrong_above.
    zero: keep value > 0. chance: keep value > 1 / (classes x images), which drops more wrong labels
    and more good images. share: drop the lowest drop_share."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Value a folder of class subfolders against itself and write a report.

    Example:
      dcai-ray audit FOLDER --backbone efficientnet_lite0
    """

    folder: tyro.conf.Positional[Folder]
    """Folder or URI with one subfolder per class."""
    splits: Splits = ()
    """The folder of the training images, train=Training; or none, if all folders are classes."""
    run: OptionalRun = None
    """Folder or URI that collects the results; outputs/<name of FOLDER> by default."""
    config: OptionalFile = None
    """YAML file with settings; flags override it."""
    images: Annotated[ImagesConfig, Flat]
    extract: Annotated[ExtractConfig, Flat]
    value: AuditValueConfig
    finetune: FinetuneConfig
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Finetune(Where):
    """Step 1: fine-tune the backbones on all training images and test them on val.

    Example:
      dcai-ray finetune --data DATA --run outputs/mine --backbones resnet18
    """

    images: Annotated[ImagesConfig, Flat]
    finetune: Annotated[FinetuneConfig, Flat]
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Extract(Where):
    """Step 2a: compute one feature vector per image with a frozen backbone.

    Example:
      dcai-ray extract --data DATA --run outputs/mine --backbone resnet18
    """

    images: Annotated[ImagesConfig, Flat]
    extract: Annotated[ExtractConfig, Flat]
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Value:
    """Step 2b: compute the value of every training image and decide what to keep.

    Example:
      dcai-ray value --run outputs/mine --rule share --drop-share 0.1
    """

    run: RunFolder
    """Folder or URI that collects the results. Run the same command again to resume."""
    features: OptionalFolder = None
    """Folder or URI with the features of train and shapley_val; RUN/features by default."""
    data: OptionalFolder = None
    """The new place of the run's images, if they have moved and are still the same."""
    config: OptionalFile = None
    """YAML file with settings; flags override it."""
    preset: OptionalPreset = None
    """Settings of the published study: K = 10, Euclidean distance, clean validation set, keep
    value > 0."""
    dry_run: Switch = False
    """Estimate the cost of sampling and exit without writing anything."""
    value_splits: ValueSplits = ()
    """Also list the suspicious labels of these splits, by all other images: shapley_val, val."""
    players: OptionalFile = None
    """Also value groups of training images, such as sources or annotators: a table (CSV, Parquet)
    with the columns id and group."""
    value: Annotated[ValueConfig, Flat]
    sample: Annotated[SampleConfig, Flat]
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Step 3: train networks and probes on the cleaned set and its control arms, and compare them.

    Example:
      dcai-ray retrain --run outputs/mine --no-finetune
    """

    run: RunFolder
    """Folder or URI of the run; it must hold the values."""
    data: OptionalFolder = None
    """Folder or URI with the images; by default that of the run's earlier steps."""
    splits: Splits = ()
    """Folders of the splits where they have other names: train=Training val=Test."""
    config: OptionalFile = None
    """YAML file with settings; flags override it."""
    no_finetune: Switch = False
    """Train no networks; compare with probes on the features only."""
    images: Annotated[ImagesConfig, Flat]
    finetune: FinetuneConfig
    retrain: Annotated[RetrainConfig, Flat]
    resources: Annotated[ResourcesConfig, Flat]
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class OfRun:
    """The run that a command is about."""

    run: RunFolder
    """Folder or URI of the run."""
    shown: Annotated[Shown, Flat] = Shown()


@dataclass(frozen=True, kw_only=True)
class OfRunWithData(OfRun):
    """Flags of commands that also look at the images of a run."""

    data: OptionalFolder = None
    """The folder that the images have moved to since; their content must be the same."""


@dataclass(frozen=True, kw_only=True)
class Report(OfRunWithData):
    """Write report.html from what the run has found so far.

    Example:
      dcai-ray report outputs/mine
    """


@dataclass(frozen=True, kw_only=True)
class Status(OfRunWithData):
    """Show the progress of a run.

    Example:
      dcai-ray status outputs/mine
    """


@dataclass(frozen=True, kw_only=True)
class Review(OfRunWithData):
    """Look at the suspects in a browser and decide; every decision is saved at once.

    Example:
      dcai-ray review outputs/mine
    """

    by: str = ""
    """Who decides, which is written with every decision; by default the name of the login."""
    port: int = 0
    """Port to serve 127.0.0.1 at; 0 for any that is free."""


@dataclass(frozen=True, kw_only=True)
class Tasks(OfRunWithData):
    """Write the suspects for another tool, the most suspicious first; `decide` reads its answers.

    Example:
      dcai-ray tasks outputs/mine --to tasks.json --format label-studio
    """

    to: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """File or URI to write."""
    format: Literal["label-studio", "cleanlab", "fiftyone", "imagenet"] = "label-studio"
    """Label Studio's JSON tasks with predictions, cleanlab's frame of label issues as CSV,
    FiftyOne's labels.json, or the ImageNet zip of CVAT and Datumaro, without pictures."""


@dataclass(frozen=True, kw_only=True)
class Decide(OfRun):
    """Record in a run what people decided about its images.

    Example:
      dcai-ray decide outputs/mine --decisions decisions.csv
    """

    decisions: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """CSV or Parquet with the columns id, split, given_label, decision (keep, drop, relabel,
    unsure, undo), label, by, at and note; a table of id and label; an export of Label Studio
    or FiftyOne (JSON) or CVAT (ImageNet zip); or a frame of cleanlab. Several people's files may be
    given one after another."""


@dataclass(frozen=True, kw_only=True)
class Export(OfRunWithData):
    """Write the cleaned training set as a folder of images; what people decided in it wins.

    Example:
      dcai-ray export outputs/mine --to cleaned --apply relabel
    """

    to: Folder
    """Folder to write to; it must be empty or not exist yet."""
    how: Literal["copy", "hardlink", "symlink", "in-place"] = "copy"
    """Copy each file, or make a hard link or symbolic link to it (local folders only); in-place
    changes the data itself and moves what is left out to the folder, with a list to undo it."""
    apply: Literal["drop", "relabel"] = "drop"
    """Leave out the images that people gave another label to, or move them to that class."""
    reviewed_only: bool = False
    """Apply what people decided, and keep all else, whatever the rule says."""
    undo: Switch = False
    """Put back what an export in place moved; --to is the folder that it was given."""


@dataclass(frozen=True, kw_only=True)
class ImportFeatures:
    """Convert features that you have (.npy, .npz, .pt, .safetensors, CSV, Parquet, or a pickle of
    arrays) to the files of a run.

    Example:
      dcai-ray import-features x.npy --labels y.npy --split train --features DIR
    """

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """One (k, d) array of features, or a table whose columns of numbers are the features; labels as
    `label`, `labels` or `y`, and `id` or `ids` if the rows have names."""
    split: Literal["train", "shapley_val", "val"]
    """Split that these features belong to."""
    features: Folder
    """Folder or URI that collects the splits; pass it to `dcai-ray value --features`."""
    labels: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """File of the labels, if they are not in FILE: in the order of its rows, or with ids if both
    have them."""
    backbone: str = "imported"
    """Name of the network that computed the features; all splits must have the same."""
    show: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN ...")] = ()
    """Columns that the report shows of each row, such as `text`; columns of text are then no
    features. Without it, a table of up to 50 columns of numbers is shown as it is."""
    standardize: Switch = False
    """Give every feature mean 0 and standard deviation 1 on train, which must be imported first."""
    shown: Annotated[Shown, Flat] = Shown()


def parse(command: type[T], arguments: Sequence[str], base: Config, name: str) -> T:
    """Parse flags over presets, over the YAML file or the run's own settings, over defaults.

    Raises:
        SystemExit: help was asked for (0), or usage is wrong (2); what there is to say is printed.
    """
    if {"-h", "--help"} & set(arguments):
        print(short_help.short_help(command, name), end="")
        raise SystemExit(0)
    arguments = ["--help" if each == "--help-all" else each for each in arguments]
    if name in _RUN_FIRST and arguments and not arguments[0].startswith("-"):
        arguments = ["--run", *arguments]
    base = _base(arguments, base, name)
    default: dict[str, Any] = {}
    hints = get_type_hints(command)
    for field in fields(command):  # type: ignore[arg-type]
        if field.name in _SECTIONS:
            default[field.name] = _as(hints[field.name], getattr(base, field.name))
        else:
            default[field.name] = tyro.MISSING if field.default is MISSING else field.default
    helptext.join_lines(command)
    with helptext.READABLE:
        return tyro.cli(
            command,
            prog=f"dcai-ray {name}",
            description=inspect.cleandoc(command.__doc__ or ""),
            args=list(arguments),
            default=command(**default),
            config=_STYLE,
        )


def _as(kind: type[T], section: Any) -> T:
    """A section of the settings as a command has it, which may offer less."""
    return kind(**{each.name: getattr(section, each.name) for each in fields(section)})


def _base(arguments: Sequence[str], base: Config, name: str) -> Config:
    """The settings that flags are applied to; which ones those are is itself said by flags."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--config", "--preset", "--run", "--backbone"):
        early.add_argument(flag, nargs="?")  # one without a value is for tyro to refuse
    given, _ = early.parse_known_args(list(arguments))
    if given.config:
        base = read_config(given.config)
    elif name in ("finetune", "extract", "value", "retrain") and given.run:
        there = RunDirectory(Location(given.run)).settings()
        sections = {key: there[key] for key in plain(base) if key in there}
        base = parse_config(sections, f"{given.run}/config.yaml")
    if given.preset == "study":
        base = replace(base, value=replace(base.value, **preset("study")))
    if given.backbone and name in ("run", "audit"):
        chosen = plain(base)
        chosen["extract"]["backbone"] = given.backbone
        if given.backbone != AUTO:
            chosen["finetune"]["backbones"] = [check_backbone(given.backbone)]
        base = parse_config(chosen, "--backbone")
    return base


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print a script that completes commands and flags; let your shell read it when it starts.

    Example:
      dcai-ray completion bash
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh"]]
    """Name of the shell."""
    shown: Annotated[Shown, Flat] = Shown()


COMMANDS: dict[str, type] = {
    "demo": Demo,
    "run": Run,
    "audit": Audit,
    "finetune": Finetune,
    "extract": Extract,
    "value": Value,
    "retrain": Retrain,
    "report": Report,
    "status": Status,
    "review": Review,
    "tasks": Tasks,
    "decide": Decide,
    "export": Export,
    "import-features": ImportFeatures,
    "completion": Completion,
}
"""The flags of each command, by its name."""


def names(command: type) -> list[str]:
    """The flags of a command, for completion."""
    hints = get_type_hints(command, include_extras=True)
    found = ["--help", "--help-all"]
    for field in fields(command):
        hint = hints[field.name]
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(kind):
            prefix = f"{field.name}." if kind is hint else ""
            inner = get_type_hints(kind, include_extras=True)
            offered = (each for each in fields(kind) if not _is(tyro.conf.Fixed, inner[each.name]))
            found += [flag for each in offered for flag in _spelled(prefix, each)]
        elif not _is(tyro.conf.Positional, hint):
            found += _spelled("", field)
    return sorted(found)


def _is(marker: Any, hint: Any) -> bool:
    return marker in getattr(hint, "__metadata__", ())


def _spelled(prefix: str, field: Field[Any]) -> list[str]:
    """The flags of a field; a setting that is on or off has two."""
    name = field.name.replace("_", "-")
    no = [f"--{prefix}no-{name}"] if field.type is bool else []
    return [f"--{prefix}{name}", *no]


def settings_of(chosen: Any) -> Config:
    """Settings from the sections that a command has; other sections take their defaults."""
    return Config(**{name: getattr(chosen, name) for name in _SECTIONS if hasattr(chosen, name)})
