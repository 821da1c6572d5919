"""Settings: one frozen dataclass a step; the string under a field is its help.

The settings of a run come from these defaults, then a YAML file, then flags. Every field but those
of `ResourcesConfig` can change a result, so a run directory belongs to one set of them.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dcai_ray.storage import Location

Backbone = Literal[
    "resnet18",
    "resnet101",
    "alexnet",
    "vgg11_bn",
    "squeezenet1_0",
    "densenet121",
    "inception_v3",
    "efficientnet_lite0",
]
Metric = Literal["euclidean", "cosine"]
Rule = Literal["validated", "zero", "chance", "share"]

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _at_least(owner: str, settings: object, least: float, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value < least:
            raise ValueError(f"{owner}.{name} must be at least {least:g}, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """How the image folder is read."""

    __pydantic_config__: ClassVar = _STRICT
    unreadable: Literal["fail", "skip"] = "fail"
    """An image that cannot be decoded ends the run, or is left out (listed in skipped.parquet)."""
    split_seed: int = 0
    """Decides which half of val serves as shapley_val where the data has none."""

    def __post_init__(self) -> None:
        _at_least("images", self, 0, "split_seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """Steps 1 and 3: fine-tuning; the defaults are the study's recipe."""

    __pydantic_config__: ClassVar = _STRICT
    backbones: tuple[Backbone, ...] = ("vgg11_bn",)
    """Networks to fine-tune."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training a backbone, seed and arm."""
    weights: str = "imagenet"
    """Start: imagenet, none, or a file (safetensors or a PyTorch state dict), local or remote."""
    feature_extract: bool = False
    """Train the head alone and freeze the rest."""
    epochs: int = 15
    """Passes over the training images."""
    batch_size: int = 32
    """Images a step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: float = 0.001
    """Step size."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.0
    """L2 penalty (SGD) or decoupled decay (AdamW)."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the step size goes over the epochs; cosine ends near zero."""
    freeze_batchnorm: bool = False
    """Keep BatchNorm's pretrained statistics; needed where there are few steps."""
    size_px: int | None = None
    """Side of the square the network sees; by default what the backbone was made for."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the picture's area that a random crop takes in training."""
    flip: bool = True
    """Mirror training images left to right at random."""
    num_threads: int = 1
    """CPU threads a training; another number may change the last bits of a result."""

    def __post_init__(self) -> None:
        _at_least("finetune", self, 1, "epochs", "batch_size", "num_threads")
        if not self.backbones or not self.seeds:
            raise ValueError("finetune.backbones and finetune.seeds must name at least one each")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.backbones)) < len(self.backbones):
            raise ValueError("finetune.backbones and finetune.seeds must not repeat an entry")
        if min(self.seeds) < 0:
            raise ValueError(f"finetune.seeds must be at least 0, got {min(self.seeds)}")
        if self.learning_rate <= 0:
            raise ValueError(f"finetune.learning_rate must be positive, got {self.learning_rate}")
        if self.size_px is not None and self.size_px < 32:
            raise ValueError(f"finetune.size_px must be at least 32, got {self.size_px}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"finetune.crop_scale must lie in (0, 1], got {self.crop_scale}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig:
    """Step 2a: one feature vector an image, from a frozen pretrained backbone."""

    __pydantic_config__: ClassVar = _STRICT
    backbone: Backbone = "resnet18"
    """Network whose last layer before the head gives the features."""
    weights: str = "imagenet"
    """imagenet, none, or a file (safetensors or a PyTorch state dict), local or remote."""
    size_px: int | None = None
    """Side of the square the network sees; by default what the backbone was made for."""
    batch_size: int = 32
    """Images a forward pass."""
    shard_size: int = 256
    """Images a Parquet shard: the unit of work and of resuming."""

    def __post_init__(self) -> None:
        _at_least("extract", self, 1, "batch_size", "shard_size")
        if self.size_px is not None and self.size_px < 32:
            raise ValueError(f"extract.size_px must be at least 32, got {self.size_px}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueConfig:
    """Step 2b: the value of every training image."""

    __pydantic_config__: ClassVar = _STRICT
    k: int = 10
    """Neighbours K of the K-nearest-neighbour utility."""
    metric: Metric = "cosine"
    """Distance between features; cosine is taken after centring."""
    validation: Literal["clean", "self", "both"] = "clean"
    """Valued by shapley_val, by the training set itself (leave-one-out), or by both."""
    semivalue: Literal["shapley", "banzhaf", "beta", "leave-one-out"] = "shapley"
    """Weight of a marginal by coalition size."""
    beta: tuple[float, float] = (4.0, 1.0)
    """(a, b) of Beta Shapley; larger a weighs small coalitions more."""
    second_opinion_up_to: int = 50_000
    """With validation clean, also value by self up to this many training images; 0 for never."""
    rule: Rule | None = None
    """What to keep: validated (the share that serves a probe best on shapley_val; the default with
    a clean shapley_val), zero (value > 0; the default without one), chance (value > 1 / (classes x
    images), which finds more and errs more) or share (drop the lowest `drop_share`)."""
    drop_share: float = 0.2
    """For the rule share: the part of the training images to drop."""
    per_class: bool = False
    """For the rules share and validated: drop that share of each class rather than of the whole."""

    def __post_init__(self) -> None:
        _at_least("value", self, 1, "k")
        _at_least("value", self, 0, "second_opinion_up_to")
        if not 0 < self.drop_share < 1:
            raise ValueError(f"value.drop_share must lie in (0, 1), got {self.drop_share}")
        if min(self.beta) <= 0:
            raise ValueError(f"value.beta must be positive, got {self.beta}")
        if self.rule == "validated" and self.validation == "self":
            raise ValueError("value.rule validated needs a clean shapley_val; use zero or chance")

    @property
    def chosen_rule(self) -> Rule:
        """The rule, with its default filled in."""
        return self.rule or ("zero" if self.validation == "self" else "validated")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainConfig:
    """Step 3: before against after; the networks use the recipe of step 1."""

    __pydantic_config__: ClassVar = _STRICT
    probe_seeds: int = 10
    """Draws of the random control arm for the quick probes on features."""
    standardize: bool = True
    """Scale features to mean 0 and variance 1 before the logistic probe."""

    def __post_init__(self) -> None:
        _at_least("retrain", self, 1, "probe_seeds")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourcesConfig:
    """Where it runs; none of these changes a result."""

    __pydantic_config__: ClassVar = _STRICT
    num_cpus: int | None = None
    """Worker processes of a cluster started here; all cores by default."""
    gpus_per_task: float | None = None
    """GPUs asked for by a training or extraction; 1 by default where there are any, 0 for none."""
    decode_threads: int = 2
    """Threads a task that read and decode images ahead of the network."""

    def __post_init__(self) -> None:
        _at_least("resources", self, 1, "decode_threads")
        if self.num_cpus is not None:
            _at_least("resources", self, 1, "num_cpus")
        if self.gpus_per_task is not None:
            _at_least("resources", self, 0, "gpus_per_task")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All settings of a run."""

    __pydantic_config__: ClassVar = _STRICT
    images: ImagesConfig = field(default_factory=ImagesConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)


def read_config(path: str) -> Config:
    """The settings of a YAML file, defaults for what it leaves out.

    Raises:
        ValueError: the file is not YAML or holds unknown keys or wrong values: all are named.
        OSError: the file cannot be read.
    """
    location = Location(path)
    try:
        content = yaml.safe_load(location.read_bytes()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    return parse_config(content, path)


def parse_config(content: Any, origin: str) -> Config:
    """Settings from plain dicts and lists.

    Raises:
        ValueError: unknown keys or wrong values; the message names each with its path.
    """
    try:
        return TypeAdapter(Config).validate_python(content)
    except ValidationError as error:
        raise ValueError(f"{origin}: {'; '.join(map(_problem, error.errors()))}") from None


def plain(settings: Any) -> Any:
    """A settings dataclass as plain dicts, lists and scalars, as YAML and JSON hold them."""
    return _listed(asdict(settings))


def preset(name: Literal["study"]) -> dict[str, Any]:
    """Fields of `ValueConfig` that repeat a published setting.

    study: Liang et al. 2022, K = 10, Euclidean on a clean validation set, keep value > 0.
    """
    assert name == "study"
    return {"k": 10, "metric": "euclidean", "validation": "clean", "rule": "zero"}


def differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[str]:
    """`key: old there, new now` for every key of both in which two plain settings differ."""
    found = []
    for key in sorted(old.keys() & new.keys()):
        where = f"{path}{key}"
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            found += differences(old[key], new[key], f"{where}.")
        elif old[key] != new[key]:
            found.append(f"{where}: {old[key]} there, {new[key]} now")
    return found


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "settings"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key {where}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return message
    return f"{where}: {message[0].lower()}{message[1:]}, got {error['input']!r}"


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(entry) for entry in value]
    return value


STEPS = tuple(entry.name for entry in fields(Config) if entry.name != "resources")
"""Names of the sections whose settings decide results."""
