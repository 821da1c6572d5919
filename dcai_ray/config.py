"""Settings: one frozen dataclass per step; the string under a field is its `--help`.

A run's settings come from these defaults, then a YAML file, then flags. Every field outside
`ResourcesConfig` can change a result, so a run directory belongs to one set of settings.
"""

from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from dcai_ray.cleaning.rules import RuleName, check_needs
from dcai_ray.errors import UsageError, UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.object_store import check_no_secret

BACKBONE_NAMES = (
    *("resnet18", "resnet101", "alexnet", "vgg11_bn", "squeezenet1_0", "densenet121"),
    *("inception_v3", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
)
"""Backbones by their bare name; all others are named with where they come from."""
AUTO = "auto"
"""In place of a backbone: the best one whose weights are at hand."""
TFIDF = "tfidf"
"""In place of a backbone, for texts: weights of words."""
_ORIGINS = "timm:NAME, hf:NAME, torchvision:NAME or package.module:function"


def check_backbone(name: str) -> str:
    """The name of a backbone, if it is one as far as can be told without its library.

    Raises:
        UsageError: it is none; the message gives the nearest ones.
    """
    origin, colon, rest = name.partition(":")
    if name in BACKBONE_NAMES or (colon and origin and rest):
        return name
    near = get_close_matches(name, BACKBONE_NAMES, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(BACKBONE_NAMES)}"
    raise UsageError(f"unknown backbone {name!r}, {meant} (or {_ORIGINS})")


def _check_chosen_backbone(name: str) -> str:
    return name if name in (AUTO, TFIDF) else check_backbone(name)


Backbone = Annotated[str, AfterValidator(check_backbone)]
ChosenBackbone = Annotated[str, AfterValidator(_check_chosen_backbone)]
Metric = Literal["euclidean", "cosine"]
Semivalue = Literal["shapley", "banzhaf", "beta", "leave-one-out"]
Stop = Literal["settled", "stderr", "rank", "rounds", "seconds"]

# What PyYAML raises over text that makes no sense, dates and tagged scalars among it.
_DAMAGE = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
_RESOURCES_OF_RAY = ("CPU", "GPU", "memory", "object_store_memory")
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
    """What to do with an image that cannot be decoded: fail, or skip it and list it in
    skipped.parquet."""
    split_seed: int = 0
    """Random seed for halving val where the data has no shapley_val."""

    def __post_init__(self) -> None:
        _check_min("images", self, 0, "split_seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """Steps 1 and 3: fine-tuning. The defaults are the published study's recipe."""

    __pydantic_config__: ClassVar = _STRICT
    backbones: tuple[Backbone, ...] = ("vgg11_bn",)
    """Networks to fine-tune: a name that --backbone of `dcai-ray extract` takes, except auto."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Random seeds; every backbone is trained once per seed and training set."""
    weights: str = "imagenet"
    """Initial weights: imagenet (those that the network was published with), none (random), or a
    file (safetensors or a PyTorch state dict; path or URI)."""
    feature_extract: bool = False
    """Train only the head and freeze all other layers."""
    epochs: int = 15
    """Passes over the training images."""
    batch_size: int = 32
    """Images per optimizer step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer: sgd (SGD with momentum) or adamw (AdamW)."""
    learning_rate: float = 0.001
    """Initial learning rate."""
    momentum: float = 0.9
    """Momentum (SGD only)."""
    weight_decay: float = 0.0
    """Weight decay: an L2 penalty with sgd, decoupled decay with adamw."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning-rate schedule: constant, or cosine decay to near zero."""
    freeze_batchnorm: bool = False
    """Keep BatchNorm's pretrained statistics; recommended when there are few optimizer steps."""
    size_px: int | None = None
    """Side of the network's square input in pixels; by default the size the backbone was made
    for."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of an image's area that a random training crop covers."""
    flip: bool = True
    """Mirror training images left to right at random."""
    folds: int = 5
    """Number of folds of the out-of-fold predictions (value.evidence finetune only)."""
    num_threads: int = 1
    """CPU threads per training; another number may change the last bits of a result."""

    def __post_init__(self) -> None:
        check_no_secret(self.weights)
        _check_min("finetune", self, 1, "epochs", "batch_size", "num_threads")
        _check_min("finetune", self, 2, "folds")
        for backbone in self.backbones:
            check_backbone(backbone)
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
    """Step 2a: one feature vector per image, from a frozen pretrained backbone."""

    __pydantic_config__: ClassVar = _STRICT
    backbone: ChosenBackbone = AUTO
    """Network that computes the features: auto (the best one whose weights are at hand), resnet18,
    resnet101, alexnet, vgg11_bn, squeezenet1_0, densenet121, inception_v3, efficientnet_lite0,
    efficientnet_lite1, efficientnet_lite2, timm:NAME, hf:NAME (an image network of the Hugging Face
    hub, or a local folder), torchvision:NAME, or package.module:function (your own)."""
    weights: str = "imagenet"
    """Weights of the backbone: imagenet (those that the network was published with), none (random),
    or a file (safetensors or a PyTorch state dict; path or URI)."""
    size_px: int | None = None
    """Side of the network's square input in pixels; by default the size the backbone was made
    for."""
    batch_size: int = 32
    """Images per forward pass."""
    shard_size: int = 256
    """Images per Parquet shard, the unit of work and of resuming."""

    def __post_init__(self) -> None:
        check_no_secret(self.weights)
        _check_chosen_backbone(self.backbone)
        _check_min("extract", self, 1, "batch_size", "shard_size")
        if self.size_px is not None and self.size_px < 32:
            raise UserError(f"extract.size_px must be at least 32, got {self.size_px}")


EXACT_ONLY = ("knn-probability", "knn-log-likelihood", "knn-brier")
"""Utilities of neighbours' labels that need no sampling and have none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueConfig:
    """Step 2b: the value of every training image, and what to keep."""

    __pydantic_config__: ClassVar = _STRICT
    method: Literal["exact", "sample"] = "exact"
    """How values are computed: exact (utilities knn and knn-...) or sample (estimates from randomly
    drawn orders, for any utility)."""
    utility: str = "knn"
    """Utility, the score of a model trained on a set of images: knn, the votes for the right label
    among the K nearest; knn-accuracy, whether most vote for it; knn-probability,
    knn-log-likelihood and knn-brier, of the right label's share among those that vote (exact
    only); least-squares, logistic, a scikit-learn classifier by its import path (sklearn.svm.SVC),
    or package.module:factory, a function of (x_train, y_train, x_val, y_val) that returns a utility
    (sampled only)."""
    utility_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Further arguments of the utility, as names and values: few, empty, ridge, c, num_features,
    score; parameters of the scikit-learn classifier; keyword arguments of the factory."""
    k: int = 10
    """Number of nearest neighbours K (utilities knn and knn-...)."""
    metric: Metric = "cosine"
    """Distance between features: cosine (of centred features) or euclidean."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """How the classes of validation images weigh: balanced (each class alike, so that the utility
    is balanced accuracy) or none (each image alike). For the utilities knn and knn-..."""
    validation: Literal["clean", "self", "both"] = "clean"
    """What training images are valued against: clean (shapley_val), self (the training set itself,
    leave-one-out) or both."""
    semivalue: Semivalue = "shapley"
    """How marginals are weighted by coalition size: shapley (all sizes alike), banzhaf (all
    coalitions alike), beta (Beta Shapley) or leave-one-out (the full set only)."""
    beta: tuple[float, float] = (4.0, 1.0)
    """Parameters a and b of Beta Shapley; a larger a gives small coalitions more weight."""
    second_opinion_up_to: int = 50_000
    """With validation clean, also value the training set against itself (leave-one-out) if it has
    at most this many images; 0 turns this off."""
    evidence: Literal["features", "finetune"] = "features"
    """Evidence about labels: features, or finetune: also predictions by networks that are
    fine-tuned on the other images, the first backbone and seed of finetune, fold by fold. It costs
    about as much as finetune.folds - 1 trainings on all images; use it where the features of
    pretrained networks say little about your classes."""
    probabilities: str = ""
    """File (path or URI) of class probabilities by your own network, as further evidence: a table
    (CSV, Parquet) of id, split (train or shapley_val) and one column per class, or a matrix (.npy,
    .npz, .pt, .safetensors) in the order of images and classes. They must be out of fold: from a
    network that was not trained on the image."""
    self_weight: float = 0.4
    """Weight of a training image that serves as a validation image, relative to an image of
    shapley_val (validation both only)."""
    rule: RuleName | None = None
    """Rule that decides what to keep. validated: drop the share, by value, self-valuation, both or
    probability, that serves a probe best on shapley_val (the default with a clean shapley_val).
    wrong: drop labels that are wrong with a probability above wrong_above. doubted: drop labels
    that all evidence from the other training images doubts (the default without a clean set).
    zero: keep value > 0. chance: keep value > 1 / (classes x images), which drops more wrong
    labels and more good images (utility knn only). share: drop the lowest drop_share. certain: drop
    what lies below zero, at a false-discovery rate of 1 - sample.confidence (sampled values
    only)."""
    wrong_above: float = 0.5
    """Probability of a wrong label above which an image is dropped (rule wrong only)."""
    drop_share: float = 0.2
    """Share of the training images to drop, between 0 and 1 (rule share only)."""
    per_class: bool = False
    """Drop the share from each class rather than from the whole training set (rules share and
    validated)."""

    def __post_init__(self) -> None:
        _check_min("value", self, 1, "k")
        _check_min("value", self, 0, "second_opinion_up_to", "self_weight")
        if not 0 < self.drop_share < 1:
            raise UserError(f"value.drop_share must lie in (0, 1), got {self.drop_share}")
        check_no_secret(self.probabilities)
        if not 0 < self.wrong_above < 1:
            raise UserError(f"value.wrong_above must lie in (0, 1), got {self.wrong_above}")
        if min(self.beta) <= 0:
            raise UserError(f"value.beta must be positive, got {self.beta}")
        if self.method == "exact":
            self._check_exact()
        elif self.utility in EXACT_ONLY:
            raise UserError(f"value.utility {self.utility} is not sampled; use value.method exact")
        elif self.validation != "clean":
            raise UserError(
                f"value.method sample values by shapley_val alone, got value.validation "
                f"{self.validation}; use clean, or value.method exact"
            )
        check_needs(
            self.chosen_rule,
            clean_set=self.validation != "self",
            sampled_values=self.method == "sample",
            utility=self.utility,
        )

    def _check_exact(self) -> None:
        """Refuse what there are no exact values of."""
        if self.utility not in ("knn", "knn-accuracy", *EXACT_ONLY):
            raise UserError(
                f"value.utility {self.utility} has no exact values; use value.method sample"
            )
        taken = () if self.utility == "knn" else ("few", "empty")
        unknown = [name for name in self.utility_options if name not in taken]
        if unknown:
            known = f"takes {' and '.join(taken)}" if taken else "takes none"
            raise UserError(
                f"value.utility_options {', '.join(unknown)}: {self.utility} {known} for exact "
                "values; others are for value.method sample"
            )
        few, empty = (self.utility_options.get(name) for name in ("few", "empty"))
        if few not in (None, "vote", "default"):
            raise UserError(f"value.utility_options few must be vote or default, got {few!r}")
        if isinstance(empty, str | bool):
            raise UserError(f"value.utility_options empty must be a number, got {empty!r}")

    @property
    def chosen_rule(self) -> RuleName:
        """The rule, with its default filled in."""
        return self.rule or ("doubted" if self.validation == "self" else "validated")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """Sampling, for `value.method sample`: which orders are drawn, and when to stop."""

    __pydantic_config__: ClassVar = _STRICT
    sampler: Literal["multilevel", "permutation", "antithetic"] = "multilevel"
    """How orders are drawn; each way is unbiased. multilevel: full permutations, and permutations
    cut into ever shorter orders. permutation: full permutations. antithetic: each permutation and
    its reverse."""
    base: int | None = None
    """Factor by which orders get shorter from one level to the next (multilevel only); by default a
    pilot chooses base and levels."""
    levels: int | None = None
    """Number of levels below the full permutations (multilevel only); set it together with base."""
    semivalues: tuple[Semivalue, ...] = ()
    """Further semivalues to estimate from the same orders; each is written to
    values/values-<semivalue>.parquet."""
    parts: int = 4
    """Number of components that shapley_val is split into; each draws orders of its own (utilities
    knn and knn-accuracy)."""
    chains: int = 8
    """Number of independent sequences of rounds, whatever the number of workers."""
    rounds_per_block: int | None = None
    """Rounds per block, the unit of work; stopping is judged after one block of every chain. By
    default a block takes about a third of a second."""
    truncation: float | None = None
    """Stop an order once its score stays within this share of the full set's score (scikit-learn
    utilities only). Saves refits but biases the values; the share of imputed marginals is
    reported. By default no order is stopped."""
    every: int = 1
    """Images of an order per refit; they share the gain equally (scikit-learn utilities only)."""
    check: str = ""
    """Cross-check: with value.method exact, also sample this utility and compare both in the
    report."""
    seed: int = 0
    """Random seed."""
    confidence: float = 0.95
    """Confidence level of the intervals, which are anytime-valid: they hold however often you look
    and whenever you stop."""
    simultaneous: bool = False
    """Make the intervals hold at this confidence for all images at once rather than for each
    image."""
    interval: Literal["asymptotic", "bernstein"] = "asymptotic"
    """Kind of interval: asymptotic, or bernstein (valid from the first round on, but wider, and
    only for a utility of known range)."""
    stop: tuple[Stop, ...] = ("settled",)
    """Stopping rules: settled (enough images are decided), stderr (every standard error is small
    enough), rank (two halves of the chains rank the images alike), rounds (enough rounds) or
    seconds (time is up)."""
    stop_when: Literal["any", "all"] = "any"
    """With several stopping rules: stop when any of them is met, or when all are. The rule
    seconds stops in either case."""
    settled_share: float = 0.95
    """Share of the images that must be decided (rule settled)."""
    indifference: float | None = None
    """Half-width, in units of the utility, below which an interval counts as decided whatever its
    sign; 0.1 / images by default."""
    stderr: float = 1e-4
    """Largest standard error allowed, in units of the utility (rule stderr)."""
    rank: float = 0.99
    """Spearman correlation that the two halves must reach (rule rank)."""
    rounds: int = 2000
    """Number of rounds, summed over chains (rule rounds)."""
    seconds: float = 600.0
    """Seconds of sampling, summed over resumed runs (rule seconds). Sampling stops at the last
    complete wave of blocks, so the result depends on the machine's speed."""

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


RULE_SETTINGS = ("rule", "wrong_above", "drop_share", "per_class")
"""Settings of the section value that decide what to keep; no value depends on them."""
STOPPING = (
    *("stop", "stop_when", "settled_share", "indifference", "stderr", "rank", "rounds", "seconds"),
)
"""Fields of `SampleConfig` that decide when to stop; they may change when sampling resumes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainConfig:
    """Step 3: the comparison before and after cleaning. Networks use the recipe of step 1."""

    __pydantic_config__: ClassVar = _STRICT
    probe_seeds: int = 10
    """Number of random draws of the control arm `random`, for the probes on features."""
    standardize: bool = True
    """Scale features to mean 0 and variance 1 for the logistic probe."""
    relabel_above: float = 0.8
    """Probability of the suggested label above which a dropped image is relabelled instead, in the
    training set `relabelled`. That set is trained like the others, so step 3 takes about a quarter
    longer where there are any such images; 1 leaves it out."""

    def __post_init__(self) -> None:
        _check_min("retrain", self, 1, "probe_seeds")
        if not 0 <= self.relabel_above <= 1:
            raise UserError(f"retrain.relabel_above must lie in [0, 1], got {self.relabel_above}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourcesConfig:
    """Where the work runs. No field here changes a result."""

    __pydantic_config__: ClassVar = _STRICT
    num_cpus: int | None = None
    """CPUs of the Ray cluster that the command starts; all cores by default. Ignored when it joins
    a running cluster."""
    gpus_per_training: float | None = None
    """GPUs per training; by default 1 if the cluster has any, else 0. If set, trainings wait for a
    node that has them, and an autoscaling cluster adds one."""
    gpus_per_extraction: float | None = None
    """GPUs per extraction task; by default 0.25 (four tasks share a GPU) if the cluster has any,
    else 0."""
    read_threads: int = 16
    """Images that a task reads concurrently, ahead of decoding, to hide the latency of an object
    store."""
    decode_threads: int = 2
    """Threads per task that decode images ahead of the network."""
    num_workers: int | None = None
    """Number of actors for sampling; by default one per core of the cluster. A larger number makes
    an autoscaling cluster grow."""
    worker_resource: str = ""
    """Custom Ray resource of which every sampling actor and every task without a GPU takes one, so
    that they run only on nodes that offer it and keep off GPU nodes."""
    checkpoint_s: float = 30.0
    """Seconds between checkpoints (sampling only)."""
    hedge_s: float = 60.0
    """Seconds after which a second actor also computes an outstanding block (sampling only)."""

    def __post_init__(self) -> None:
        _check_min("resources", self, 1, "read_threads", "decode_threads")
        if self.num_workers is not None:
            _check_min("resources", self, 1, "num_workers")
        if self.checkpoint_s <= 0 or self.hedge_s <= 0:
            raise UserError("resources.checkpoint_s and resources.hedge_s must be positive")
        if self.worker_resource in _RESOURCES_OF_RAY:
            raise UserError(
                f"resources.worker_resource must be a name of your own, got {self.worker_resource}"
            )
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
    """Read settings from a YAML file; what it leaves out takes its default.

    Raises:
        UserError: the file is not YAML, or has unknown keys or wrong values; all are named.
        OSError: the file cannot be read.
    """
    return parse_config(load_yaml(Location(path).read_bytes(), path) or {}, path)


def load_yaml(content: bytes, origin: str) -> Any:
    """The content of a YAML file as plain dicts, lists and scalars.

    Raises:
        UserError: it is not YAML.
    """
    try:
        return yaml.safe_load(content)
    except _DAMAGE as error:
        raise UserError(f"{origin}: not YAML ({' '.join(str(error).split())})") from None


def parse_config(content: Any, origin: str) -> Config:
    """Build settings from plain dicts and lists.

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
    """Fields of `ValueConfig` that reproduce a published setting.

    study: Liang et al. 2022, with K = 10, Euclidean distance, a clean validation set and the rule
    that keeps value > 0.
    """
    assert name == "study"
    return {
        "k": 10,
        "metric": "euclidean",
        "class_weights": "none",
        "validation": "clean",
        "rule": "zero",
    }


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
        of_field = len(error["loc"]) > 1  # checks of whole sections name their fields themselves
        return f"{where}: {message}" if of_field else message
    return f"{where}: {message[0].lower()}{message[1:]}, got {error['input']!r}"


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(entry) for entry in value]
    return value


STEPS = tuple(entry.name for entry in fields(Config) if entry.name != "resources")
"""Names of the sections whose settings can change a result."""
