"""From the settings to a sampling: its utility, its plan, its aggregator and its stopping rule."""

import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from dcai_ray.config import Config, SampleConfig, ValueConfig
from dcai_ray.errors import UserError
from dcai_ray.valuation import stopping
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.plan import Plan, new_plan
from dcai_ray.valuation.sampling import new_aggregator
from dcai_ray.valuation.stopping import StopRule
from dcai_ray.valuation.utilities import Utility
from dcai_ray.valuation.utilities.knn import Knn
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy
from dcai_ray.valuation.utilities.least_squares import LeastSquares
from dcai_ray.valuation.utilities.logistic import Logistic
from dcai_ray.valuation.utilities.refit import Refit, classifier

Points = tuple[NDArray[np.floating], NDArray[np.integer]]  # features (k, d) and labels (k,)

_REFIT_OPTIONS = ("score", "empty")  # of the utility; all others go to the classifier


def plan_of(utility: Utility, config: Config) -> Plan:
    """The plan of the settings; a pilot fills in what they leave open.

    Args:
        utility: to be sampled.
        config: its sections value and sample.
    Raises:
        ModelError: a model fails in the pilot; the message names the coalition.
        Exception: anything else that the utility raises, which is a bug of its code.
    """
    sample = config.sample
    return new_plan(
        utility,
        sampler=sample.sampler,
        base=sample.base,
        levels=sample.levels,
        semivalues=semivalues_of(config),
        beta=config.value.beta,
        seed=sample.seed,
        half_width=sample.indifference,
        rounds_per_block=sample.rounds_per_block,
    )


def aggregator_of(
    plan: Plan,
    config: Config,
    *,
    threshold: float = 0.0,
    state: Mapping[str, Any] | None = None,
) -> Aggregator:
    """The aggregator of the settings, new or restored from a checkpoint's state.

    Args:
        plan: the plan of the sampling.
        config: its section sample is used.
        threshold: the threshold between harmful and useful points.
        state: the state of an aggregator of the same sampling.
    Raises:
        UserError: for Bernstein intervals of a utility whose range is not known.
    """
    sample = config.sample
    return new_aggregator(
        plan,
        num_chains=sample.chains,
        confidence=sample.confidence,
        simultaneous=sample.simultaneous,
        interval=sample.interval,
        indifference=sample.indifference,
        threshold=threshold,
        stop=stop_rule(sample),
        state=state,
    )


def semivalues_of(config: Config) -> tuple[str, ...]:
    """The semivalues that are estimated from the same orders; the first one decides."""
    return tuple(dict.fromkeys((config.value.semivalue, *config.sample.semivalues)))


def size_bytes(utility: Utility) -> int:
    """Memory of a utility, which the actors of a node share."""
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(utility, protocol=5, buffer_callback=buffers.append)
    return len(rest) + sum(buffer.raw().nbytes for buffer in buffers)


def new_utility(train: Points, clean: Points, value: ValueConfig, sample: SampleConfig) -> Utility:
    """The utility by its name, import path or factory.

    Raises:
        UserError: it is unknown, or refuses its options; the message names it.
        ModelError: its model fails while it is made; the message names the coalition.
    """
    points: tuple[Any, ...] = (*train, *clean)
    options: dict[str, Any] = dict(value.utility_options)
    knn: dict[str, Any] = {
        "k": value.k,
        "metric": value.metric,
        "class_weights": value.class_weights,
        "num_components": sample.parts,
    }
    makers: dict[str, Callable[..., Utility]] = {
        "knn": partial(Knn, *points, **knn),
        "knn-accuracy": partial(KnnAccuracy, *points, **knn),
        "least-squares": partial(LeastSquares, *points),
        "logistic": partial(Logistic, *points),
    }
    name = value.utility
    if name in makers:
        maker = makers[name]
    elif ":" in name:
        maker = _factory(name, points)
    elif "." in name:
        maker = _refit(name, points, sample)
    else:
        known = ", ".join(makers)
        raise UserError(
            f"value.utility {name}: not one of {known}; name a scikit-learn classifier by its "
            "import path (sklearn.svm.SVC), a factory of your own as package.module:function"
        )
    try:
        inspect.signature(maker).bind(**options)
    except TypeError as error:
        raise UserError(f"value.utility_options of {name}: {error}") from None
    if name in makers:
        _check_kinds(name, makers[name], options)
    return maker(**options)


def stop_rule(sample: SampleConfig) -> StopRule:
    """The stopping rule of the settings, except for the time limit, which the driver checks."""
    rules: dict[str, StopRule] = {
        "settled": stopping.Settled(share=sample.settled_share, indifference=sample.indifference),
        "stderr": stopping.StandardError(tolerance=sample.stderr),
        "rank": stopping.RankStability(correlation=sample.rank),
        "rounds": stopping.MaxRounds(rounds=sample.rounds),
    }
    chosen = [rules[name] for name in sample.stop if name != "seconds"]
    if not chosen:
        return Never()
    if len(chosen) == 1:
        return chosen[0]
    if sample.stop_when == "all":
        return stopping.AllOf(rules=chosen)
    return stopping.AnyOf(rules=chosen)


@dataclass(frozen=True, slots=True)
class Never:
    """A stopping rule that is never met: only the time limit ends sampling."""

    def met(self, progress: stopping.Progress) -> bool:
        """Never."""
        return False

    def describe(self) -> str:
        """The rule in words."""
        return "until the time is up"


def _check_kinds(name: str, maker: Callable[..., Utility], options: Mapping[str, Any]) -> None:
    """Refuse options of a built-in utility that do not have the type of its parameters."""
    kinds = get_type_hints(maker.func.__init__)  # type: ignore[attr-defined]
    for key, option in options.items():
        try:
            TypeAdapter(kinds[key]).validate_python(option, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UserError(
                f"value.utility_options of {name}: {key}: {reason[0].lower()}{reason[1:]}, "
                f"got {option!r}"
            ) from None


def _factory(name: str, points: tuple[Any, ...]) -> Callable[..., Utility]:
    path, _, function = name.partition(":")
    problem = "not an import path"
    if path.strip(".") == path != "":
        try:
            module = import_module(path)
        except ImportError as error:
            problem = str(error)
        else:
            if callable(found := getattr(module, function, None)):
                return partial(found, *points)
            problem = f"{path} has no function {function}"
    raise UserError(
        f"value.utility {name}: cannot be imported ({problem}); is its folder in PYTHONPATH?"
    )


def _refit(name: str, points: tuple[Any, ...], sample: SampleConfig) -> Callable[..., Utility]:
    def make(**options: Any) -> Utility:
        own = {key: options.pop(key) for key in _REFIT_OPTIONS if key in options}
        model = classifier(name, **options)
        return Refit(model, *points, every=sample.every, truncation=sample.truncation, **own)

    return make
