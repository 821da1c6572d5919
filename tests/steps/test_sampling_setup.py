"""Settings to a sampling: utilities by name, path and factory; when it stops."""

import json
import pickle
import re
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from dcai_ray.config import Config, SampleConfig, ValueConfig, parse_config
from dcai_ray.errors import UserError
from dcai_ray.steps.sampling_session import block_fingerprint
from dcai_ray.steps.sampling_setup import (
    aggregator_of,
    new_utility,
    plan_of,
    semivalues_of,
    size_bytes,
    stop_rule,
)
from dcai_ray.valuation.plan import Plan
from dcai_ray.valuation.stopping import AllOf, AnyOf, MaxRounds, Progress, Settled
from dcai_ray.valuation.utilities.knn import Knn
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy
from dcai_ray.valuation.utilities.least_squares import LeastSquares
from dcai_ray.valuation.utilities.logistic import Logistic
from dcai_ray.valuation.utilities.refit import Refit


def points(count, seed):
    rng = np.random.default_rng(seed)
    return np.float32(rng.standard_normal((count, 3))), rng.integers(0, 2, count)


TRAIN, CLEAN = points(30, 0), points(12, 1)


def settings(utility="knn", *, options=None, value=None, **sample):
    return Config(
        value=ValueConfig(
            method="sample", utility=utility, utility_options=options or {}, **(value or {})
        ),
        sample=SampleConfig(**sample),
    )


def utility_of(config):
    return new_utility(TRAIN, CLEAN, config.value, config.sample)


def planned(*arguments, **settings_given):
    """The plan of some settings."""
    config = settings(*arguments, **settings_given)
    return plan_of(utility_of(config), config)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("knn", Knn, {}),
        ("knn-accuracy", KnnAccuracy, {"few": "default"}),
        ("least-squares", LeastSquares, {"ridge": 2.0, "num_features": 2}),
        ("logistic", Logistic, {"c": 0.1, "score": "auroc"}),
        ("sklearn.naive_bayes.GaussianNB", Refit, {"var_smoothing": 1e-8, "score": "accuracy"}),
    ],
)
def test_a_utility_has_a_name_or_an_import_path_and_takes_its_options(name, kind, options):
    assert isinstance(utility_of(settings(name, options=options)), kind)


def test_a_factory_of_ones_own_gets_the_points_and_its_options(tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text(
        "from dcai_ray.valuation.utilities.knn import Knn\n"
        "def make(x_train, y_train, x_val, y_val, near=3):\n"
        "    return Knn(x_train, y_train, x_val, y_val, k=near)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = utility_of(settings("mine_for_test:make", options={"near": 2}))
    assert found.marginal_range == pytest.approx(1 / 2)
    sys.modules.pop("mine_for_test")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("knnn", {}, "value.utility knnn: not one of knn, knn-accuracy, least-squares, logistic"),
        ("no_such_module:make", {}, "no_such_module:make: cannot be imported"),
        ("math:no_such", {}, "math:no_such: cannot be imported"),
        ("sklearn.svm.SVCC", {}, "sklearn.svm.SVCC"),
        ("sklearn.svm.SVC", {"sea": 1}, "sea"),
        ("knn", {"sea": 1}, "value.utility_options of knn: .*sea"),
        ("logistic", {"c": -1.0}, "c must be positive"),
    ],
)
def test_what_is_no_utility_is_one_line_that_names_it(name, options, message):
    with pytest.raises(ValueError, match=message) as failed:
        utility_of(settings(name, options=options))
    assert "\n" not in str(failed.value)


def test_semivalues_are_named_once_and_the_main_one_first():
    config = settings(value={"semivalue": "banzhaf"}, semivalues=("shapley", "banzhaf", "beta"))
    assert semivalues_of(config) == ("banzhaf", "shapley", "beta")
    plan = plan_of(utility_of(config), config)
    assert plan.semivalues == ("banzhaf", "shapley", "beta")
    assert len(plan.observation_ranges) == 3


def test_the_pilot_chooses_only_what_is_left_open():
    assert planned().gain >= 1
    plan = planned(base=2, levels=1)
    assert plan.name == "multilevel base 2 levels 0..1"
    assert (plan.base, plan.levels, plan.gain) == (2, 1, None)
    plan = planned(sampler="antithetic")
    assert plan.sampler.antithetic
    assert (plan.base, plan.levels, plan.gain) == (None, None, None)


@pytest.mark.parametrize("sampler", ["multilevel", "permutation"])
def test_a_plan_from_a_checkpoint_is_the_same_plan(sampler):
    plan = planned(sampler=sampler)
    assert Plan.restore(json.loads(json.dumps(asdict(plan)))) == plan


def test_bernstein_needs_a_known_range():
    config = settings(interval="bernstein")
    plan = plan_of(utility_of(config), config)
    assert aggregator_of(plan, config).half_width.shape == (1, 30)
    config = settings("logistic", options={"score": "neg-log-loss"}, interval="bernstein")
    plan = plan_of(utility_of(config), config)
    with pytest.raises(ValueError, match="must be finite for bernstein intervals"):
        aggregator_of(plan, config)


def test_the_threshold_reaches_the_decisions():
    config = settings()
    plan = plan_of(utility_of(config), config)
    assert aggregator_of(plan, config, threshold=0.25).threshold == 0.25


def test_the_memory_of_a_utility_is_that_of_its_tables():
    utility = utility_of(settings())
    ranks = 12 * 30  # a byte each
    assert ranks < size_bytes(utility) < ranks + 10_000
    assert len(pickle.dumps(utility)) == pytest.approx(size_bytes(utility), rel=0.2)


def test_rules_are_joined_as_asked():
    one = stop_rule(SampleConfig(stop=("rounds",), rounds=7))
    assert one == MaxRounds(rounds=7)
    two = {"stop": ("settled", "rounds"), "indifference": 0.1}
    rules = [Settled(indifference=0.1), MaxRounds(rounds=2000)]
    assert stop_rule(SampleConfig(**two)) == AnyOf(rules=rules)
    assert stop_rule(SampleConfig(**two, stop_when="all")) == AllOf(rules=rules)


def test_the_clock_alone_never_stops_the_aggregator():
    rule = stop_rule(SampleConfig(stop=("seconds",)))
    late = Progress(
        rounds=10**9, waves=10**6, settled=1.0, max_stderr=0.0, rank_correlation=1.0, r_hat=1.0,
        num_players=5,
    )  # fmt: skip
    assert not rule.met(late)
    assert rule.describe() == "until the time is up"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"value": {"utility": "logistic"}}, "value.utility logistic has no exact values"),
        ({"value": {"utility_options": {"c": 1}}}, "value.utility_options c: knn takes none"),
        ({"value": {"rule": "certain"}}, "value.rule certain needs value.method sample"),
        ({"value": {"method": "sample", "validation": "self"}}, "values by shapley_val alone"),
        (
            {"value": {"method": "sample", "utility": "logistic", "rule": "chance"}},
            "value.rule chance needs the utility knn",
        ),
        ({"sample": {"base": 2}}, "sample.base and sample.levels must be given together"),
        ({"sample": {"stop": []}}, "sample.stop must name at least one"),
        ({"sample": {"stop": ["rounds", "rounds"]}}, "none twice"),
        ({"sample": {"confidence": 1.0}}, "sample.confidence must lie in"),
        ({"sample": {"stderr": 0}}, "sample.stderr must be positive"),
        ({"sample": {"chains": 0}}, "sample.chains must be at least 1"),
        ({"resources": {"num_workers": 0}}, "resources.num_workers must be at least 1"),
        ({"resources": {"checkpoint_s": 0}}, "must be positive"),
    ],
)
def test_settings_that_contradict_each_other_are_named(content, message):
    with pytest.raises(ValueError, match=message):
        parse_config(content, "test.yaml")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("logistic", {"c": "much"}, "logistic: c: input should be a valid number, got 'much'"),
        ("knn", {"k": 2.5}, "knn: k: input should be a valid integer, got 2.5"),
        ("logistic", {"score": "best"}, "logistic: score: input should be "),
        ("knn", {"x_train": 1}, "knn: got an unexpected keyword argument 'x_train'"),
    ],
)
def test_an_option_of_the_wrong_kind_is_one_line_that_names_it(name, options, message):
    with pytest.raises(UserError, match=f"^value.utility_options of {message}"):
        utility_of(settings(name, options=options))


@pytest.mark.parametrize("name", [":make", ".mine:make", "..SVC", ".SVC", "math:pi"])
def test_what_is_no_import_path_of_a_utility_is_refused(name):
    with pytest.raises(UserError, match=re.escape(name)):
        utility_of(settings(name))


def test_a_type_error_inside_a_factory_is_a_bug_and_no_wrong_option(tmp_path, monkeypatch):
    (tmp_path / "broken_for_test.py").write_text(
        "def inner(): pass\ndef make(x_train, y_train, x_val, y_val): return inner(near=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match="unexpected keyword argument 'near'"):
        utility_of(settings("broken_for_test:make"))
    sys.modules.pop("broken_for_test")


def test_a_bug_in_a_utility_is_not_told_as_its_users_mistake_by_the_pilot():
    class Broken(Knn):
        def marginals(self, orders):
            raise RuntimeError("no such state")

    with pytest.raises(RuntimeError, match=r"^no such state$"):
        plan_of(Broken(*TRAIN, *CLEAN, k=3), settings())


@pytest.mark.parametrize("name", ["CPU", "GPU", "memory"])
def test_a_resource_of_ray_is_no_name_of_a_worker_resource(name):
    with pytest.raises(UserError, match="worker_resource must be a name of your own"):
        parse_config({"resources": {"worker_resource": name}}, "test.yaml")


@pytest.mark.parametrize(
    ("section", "change", "starts_anew"),
    [
        ("value", {"rule": "share"}, False),
        ("value", {"wrong_above": 0.9}, False),
        ("value", {"drop_share": 0.3}, False),
        ("value", {"per_class": True}, False),
        ("value", {"second_opinion_up_to": 0}, False),
        ("value", {"self_weight": 1.0}, False),
        ("value", {"k": 4}, True),
        ("value", {"metric": "euclidean"}, True),
        ("value", {"class_weights": "none"}, True),
        ("value", {"semivalue": "banzhaf"}, True),
        ("value", {"utility": "logistic"}, True),
        ("sample", {"rounds": 99}, False),
        ("sample", {"stop": ("rank",)}, False),
        ("sample", {"check": "logistic"}, False),
        ("sample", {"seed": 1}, True),
        ("sample", {"chains": 3}, True),
    ],
)
def test_sampling_starts_anew_where_a_setting_decides_its_blocks(section, change, starts_anew):
    before = settings()
    after = replace(before, **{section: replace(getattr(before, section), **change)})
    same = block_fingerprint(after, "features") == block_fingerprint(before, "features")
    assert same != starts_anew
    assert block_fingerprint(before, "others") != block_fingerprint(before, "features")


@pytest.mark.parametrize("utility", ["knn", "knn-accuracy"])
def test_class_weights_reach_the_utilities_of_neighbours(utility):
    """By class the mean score of all points: of each class alike, or of each image."""
    (x, y), (x_val, _) = TRAIN, CLEAN
    y_val = np.arange(12) // 10  # ten of one class, two of the other
    scores = {}
    for weights in ("balanced", "none"):
        config = settings(utility, value={"k": 3, "class_weights": weights})
        whole = new_utility((x, y), (x_val, y_val), config.value, config.sample)
        scores[weights] = whole.score(np.arange(30))
    by_class = []
    for c in (0, 1):
        of_class = (x_val[y_val == c], y_val[y_val == c])
        config = settings(utility, value={"k": 3, "class_weights": "none"}, parts=1)
        by_class.append(
            new_utility((x, y), of_class, config.value, config.sample).score(np.arange(30))
        )
    assert scores["balanced"] == pytest.approx(np.mean(by_class), abs=1e-12)
    assert scores["none"] == pytest.approx((10 * by_class[0] + 2 * by_class[1]) / 12, abs=1e-12)
    assert scores["balanced"] != pytest.approx(scores["none"], abs=0.01)
