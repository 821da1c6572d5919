"""Settings: one frozen dataclass a step; the string under a field is its help.

The settings of a run come from these defaults, then a YAML file, then flags. Every field but those
of `ResourcesConfig` can change a result, so a run directory belongs to one set of them.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.object_store import check_no_secret

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
Rule = Literal["validated", "zero", "chance", "share", "certain"]
Semivalue = Literal["shapley", "banzhaf", "beta", "leave-one-out"]
Stop = Literal["settled", "stderr", "rank", "rounds", "seconds"]

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _check_min(owner: str, settings: object, least: float, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value < least:
            raise UserError(f"{owner}.{name} must be at least {least:g}, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """How the image folder is read."""

    __pydantic_config__: ClassVar = _STRICT
    unreadable: Literal["fail", "skip"] = "fail"
    """An image that cannot be decoded ends the run, or is left out (listed in skipped.parquet)."""
    split_seed: int = 0
    """Decides which half of val serves as shapley_val where the data has none."""

    def __post_init__(self) -> None:
        _check_min("images", self, 0, "split_seed")


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
        check_no_secret(self.weights)
        _check_min("finetune", self, 1, "epochs", "batch_size", "num_threads")
        if not self.backbones or not self.seeds:
            raise UserError("finetune.backbones and finetune.seeds must name at least one each")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.backbones)) < len(self.backbones):
            raise UserError("finetune.backbones and finetune.seeds must not repeat an entry")
        if min(self.seeds) < 0:
            raise UserError(f"finetune.seeds must be at least 0, got {min(self.seeds)}")
        if self.learning_rate <= 0:
            raise UserError(f"finetune.learning_rate must be positive, got {self.learning_rate}")
        if self.size_px is not None and self.size_px < 32:
            raise UserError(f"finetune.size_px must be at least 32, got {self.size_px}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"finetune.crop_scale must lie in (0, 1], got {self.crop_scale}")


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
        check_no_secret(self.weights)
        _check_min("extract", self, 1, "batch_size", "shard_size")
        if self.size_px is not None and self.size_px < 32:
            raise UserError(f"extract.size_px must be at least 32, got {self.size_px}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueConfig:
    """Step 2b: the value of every training image."""

    __pydantic_config__: ClassVar = _STRICT
    method: Literal["exact", "sample"] = "exact"
    """exact: the closed form, for the utility knn; sample: orders drawn at random, for any."""
    utility: str = "knn"
    """What a set of images is worth: knn, knn-accuracy, least-squares, logistic, a scikit-learn
    classifier by its import path (sklearn.svm.SVC), or package.module:factory, a function of
    (x_train, y_train, x_val, y_val) that gives a utility."""
    utility_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Further arguments of the utility: ridge, c, num_features, score, few; parameters of the
    scikit-learn classifier; keywords of the factory."""
    k: int = 10
    """Neighbours K of the K-nearest-neighbour utilities."""
    metric: Metric = "cosine"
    """Distance between features; cosine is taken after centring."""
    validation: Literal["clean", "self", "both"] = "clean"
    """Valued by shapley_val, by the training set itself (leave-one-out), or by both."""
    semivalue: Semivalue = "shapley"
    """Weight of a marginal by coalition size."""
    beta: tuple[float, float] = (4.0, 1.0)
    """(a, b) of Beta Shapley; larger a weighs small coalitions more."""
    second_opinion_up_to: int = 50_000
    """With validation clean, also value by self up to this many training images; 0 for never."""
    rule: Rule | None = None
    """What to keep: validated (the share that serves a probe best on shapley_val; the default with
    a clean shapley_val), zero (value > 0; the default without one), chance (value > 1 / (classes x
    images), which finds more and errs more; for the utility knn), share (drop the lowest
    `drop_share`) or certain (sampled values: drop what is below zero with a false-discovery rate of
    1 - sample.confidence)."""
    drop_share: float = 0.2
    """For the rule share: the part of the training images to drop."""
    per_class: bool = False
    """For the rules share and validated: drop that share of each class rather than of the whole."""

    def __post_init__(self) -> None:
        _check_min("value", self, 1, "k")
        _check_min("value", self, 0, "second_opinion_up_to")
        if not 0 < self.drop_share < 1:
            raise UserError(f"value.drop_share must lie in (0, 1), got {self.drop_share}")
        if min(self.beta) <= 0:
            raise UserError(f"value.beta must be positive, got {self.beta}")
        if self.rule == "validated" and self.validation == "self":
            raise UserError("value.rule validated needs a clean shapley_val; use zero or chance")
        if self.method == "exact":
            if self.utility != "knn":
                raise UserError(
                    f"value.utility {self.utility} has no closed form; use value.method sample"
                )
            if self.utility_options:
                raise UserError("value.utility_options are for value.method sample")
            if self.rule == "certain":
                raise UserError("value.rule certain is for value.method sample; use zero or chance")
        elif self.validation != "clean":
            raise UserError(
                f"value.method sample values by shapley_val alone, got value.validation "
                f"{self.validation}; use clean"
            )
        if self.rule == "chance" and self.utility != "knn":
            raise UserError("value.rule chance is for the utility knn; use zero")

    @property
    def chosen_rule(self) -> Rule:
        """The rule, with its default filled in."""
        return self.rule or ("zero" if self.validation == "self" else "validated")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """Sampling, for `value.method sample`: which orders are drawn, and when it is enough."""

    __pydantic_config__: ClassVar = _STRICT
    sampler: Literal["multilevel", "permutation", "antithetic"] = "multilevel"
    """Rounds of short and long orders, or of full ones; none is biased."""
    base: int | None = None
    """Multilevel: how many times shorter the orders of the next level are; by default a pilot
    chooses this and `levels`."""
    levels: int | None = None
    """Multilevel: levels besides the first."""
    semivalues: tuple[Semivalue, ...] = ()
    """Also estimated from the same orders, each to values/values-<semivalue>.parquet."""
    parts: int = 4
    """Parts of shapley_val that draw orders of their own (knn utilities)."""
    chains: int = 8
    """Independent sequences of rounds, whatever the number of workers."""
    rounds_per_block: int | None = None
    """Rounds computed at a time; stopping is judged after a block of every chain."""
    truncation: float | None = None
    """scikit-learn utilities: give an order up once its score stays within this share of the whole
    set's. Saves refits; the values are biased then, and the share of imputed marginals is told."""
    every: int = 1
    """scikit-learn utilities: refit at every so many images of an order, which share the gain."""
    check: str = ""
    """With value.method exact: also sample this utility, for comparison in the report."""
    seed: int = 0
    """Of all randomness."""
    confidence: float = 0.95
    """Chance that the interval of an image never misses its value, whenever one looks."""
    simultaneous: bool = False
    """That chance for all images at once rather than for each."""
    interval: Literal["asymptotic", "bernstein"] = "asymptotic"
    """bernstein holds from the first round on, but is wide and needs a utility of known range."""
    stop: tuple[Stop, ...] = ("settled",)
    """When it is enough: settled (a share of the images is decided), stderr (no standard error
    above a bound), rank (two halves of the chains rank alike), rounds, seconds."""
    stop_when: Literal["any", "all"] = "any"
    """With several rules: at the first that is met, or when all are; seconds end it in any case."""
    settled_share: float = 0.95
    """For the rule settled: the share of the images."""
    indifference: float | None = None
    """A value known to within this counts as decided; by default 0.1 / images."""
    stderr: float = 1e-4
    """For the rule stderr: the largest standard error allowed."""
    rank: float = 0.99
    """For the rule rank: Spearman's correlation."""
    rounds: int = 2000
    """For the rule rounds: how many, summed over chains."""
    seconds: float = 600.0
    """For the rule seconds: of sampling, summed over resumed runs; stops at the last complete set,
    so the result depends on the machine."""

    def __post_init__(self) -> None:
        _check_min("sample", self, 1, "parts", "chains", "every", "rounds")
        _check_min("sample", self, 0, "seed")
        if self.rounds_per_block is not None:
            _check_min("sample", self, 1, "rounds_per_block")
        if (self.base is None) != (self.levels is None):
            raise UserError("sample.base and sample.levels must be given together, or neither")
        if not self.stop or len(set(self.stop)) < len(self.stop):
            raise UserError("sample.stop must name at least one rule, and none twice")
        for name in ("confidence", "settled_share", "rank"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"sample.{name} must lie in (0, 1), got {getattr(self, name)}")
        for name in ("stderr", "seconds", "indifference", "truncation"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"sample.{name} must be positive, got {value}")


STOPPING = (
    *("stop", "stop_when", "settled_share", "indifference", "stderr", "rank", "rounds", "seconds"),
)
"""Fields of `SampleConfig` that say when to stop: they may change, and sampling goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainConfig:
    """Step 3: before against after; the networks use the recipe of step 1."""

    __pydantic_config__: ClassVar = _STRICT
    probe_seeds: int = 10
    """Draws of the random control arm for the quick probes on features."""
    standardize: bool = True
    """Scale features to mean 0 and variance 1 before the logistic probe."""

    def __post_init__(self) -> None:
        _check_min("retrain", self, 1, "probe_seeds")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourcesConfig:
    """Where it runs; none of these changes a result."""

    __pydantic_config__: ClassVar = _STRICT
    num_cpus: int | None = None
    """Worker processes of a cluster started here; all cores by default."""
    gpus_per_training: float | None = None
    """GPUs a training asks for; 1 by default where the cluster has any. 0: none. Given, it waits
    for a machine that has them, which makes an autoscaling cluster add one."""
    gpus_per_extraction: float | None = None
    """The same of a task that extracts features; 0.25 by default: four share a GPU."""
    read_threads: int = 16
    """Images a task reads at once, ahead of decoding: an object store answers slowly but many."""
    decode_threads: int = 2
    """Threads a task that decode images ahead of the network."""
    num_workers: int | None = None
    """Sampling: actors to ask for; by default as many as there are cores. More than that make an
    autoscaling cluster grow."""
    worker_resource: str = ""
    """A custom resource of Ray that each actor of a sampling and each task without a GPU takes one
    of, so that they run only on machines that offer it, and not on those with GPUs; none by
    default."""
    checkpoint_s: float = 30.0
    """Sampling: seconds between checkpoints."""
    hedge_s: float = 60.0
    """Sampling: seconds after which a block is computed by a second actor as well."""

    def __post_init__(self) -> None:
        _check_min("resources", self, 1, "read_threads", "decode_threads")
        if self.num_workers is not None:
            _check_min("resources", self, 1, "num_workers")
        if self.checkpoint_s <= 0 or self.hedge_s <= 0:
            raise UserError("resources.checkpoint_s and resources.hedge_s must be positive")
        if self.num_cpus is not None:
            _check_min("resources", self, 1, "num_cpus")
        for name in ("gpus_per_training", "gpus_per_extraction"):
            if getattr(self, name) is not None:
                _check_min("resources", self, 0, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All settings of a run."""

    __pydantic_config__: ClassVar = _STRICT
    images: ImagesConfig = field(default_factory=ImagesConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)


def read_config(path: str) -> Config:
    """The settings of a YAML file, defaults for what it leaves out.

    Raises:
        UserError: the file is not YAML or holds unknown keys or wrong values: all are named.
        OSError: the file cannot be read.
    """
    location = Location(path)
    try:
        content = yaml.safe_load(location.read_bytes()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    return parse_config(content, path)


def parse_config(content: Any, origin: str) -> Config:
    """Settings from plain dicts and lists.

    Raises:
        UserError: unknown keys or wrong values; the message names each with its path.
    """
    try:
        return TypeAdapter(Config).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{origin}: {'; '.join(map(_problem, error.errors()))}") from None


def plain(settings: Any) -> Any:
    """A settings dataclass as plain dicts, lists and scalars, as YAML and JSON hold them."""
    return _listed(asdict(settings))


def preset(name: Literal["study"]) -> dict[str, Any]:
    """Fields of `ValueConfig` that repeat a published setting.

    study: Liang et al. 2022, K = 10, Euclidean on a clean validation set, keep value > 0.
    """
    assert name == "study"
    return {"k": 10, "metric": "euclidean", "validation": "clean", "rule": "zero"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that differs between a run and what is requested of it."""

    path: tuple[str, ...]
    """From the section down, such as ("value", "k")."""
    old: Any
    new: Any

    @property
    def key(self) -> str:
        """The path as it is written on the command line: value.k."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.key}: {self.old} in the run, {self.new} requested"


def differences(
    old: dict[str, Any], new: dict[str, Any], path: tuple[str, ...] = ()
) -> list[Difference]:
    """The keys of both in which two plain settings differ, sorted by key."""
    found = []
    for key in sorted(old.keys() & new.keys()):
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            found += differences(old[key], new[key], (*path, key))
        elif old[key] != new[key]:
            found.append(Difference((*path, key), old[key], new[key]))
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
