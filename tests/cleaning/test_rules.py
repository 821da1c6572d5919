"""Each rule against a table worked out by hand."""

import ast
import inspect
import json
import textwrap
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dcai_ray.cleaning.choices import Choice, Sampled, Valued
from dcai_ray.cleaning.rules import (
    RULES,
    SHARES,
    Certain,
    Chance,
    Doubted,
    Share,
    Validated,
    Wrong,
    Zero,
    check_needs,
    describe,
    explain,
    new_rule,
)
from dcai_ray.config import ValueConfig, parse_config
from dcai_ray.errors import UserError
from dcai_ray.valuation import knn_shapley

#                  0     1    2     3    4    5    6     7     8    9
VALUE = np.array([-0.2, 0.0, 0.05, 0.1, 0.3, 0.0, 0.06, -0.1, 0.4, 0.05])
Y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])


def by_value(*means):
    """Losses of three clean images by the ordering value; None where there is no mean."""
    spread = np.array([-0.3, 0.0, 0.3])  # the same everywhere: differences are certain
    return {"value": [None if mean is None else mean + spread for mean in means]}


def losses(shares):
    """Smallest, and alike, where 30 and 40 % are dropped; above 80 % a class would be empty."""
    return by_value(*(None if s > 0.8 else 0.5 if s in (0.3, 0.4) else 0.6 + s for s in shares))


def no_losses(shares):
    raise AssertionError("trains probes that this rule does not need")


def valued(ask=no_losses, sampled=None):
    return Valued(value=VALUE, y=Y, losses=ask, sampled=sampled)


def dropped(choice):
    return np.flatnonzero(choice.decision == "drop").tolist()


@pytest.mark.parametrize(
    ("rule", "ask", "expected"),
    [
        (Zero(), no_losses, [0, 1, 5, 7]),  # a value of zero is dropped
        (Chance(), no_losses, [0, 1, 2, 5, 7, 9]),  # 1 / (2 x 10) = .05, itself dropped
        (Share(drop_share=0.3), no_losses, [0, 5, 7]),  # of the zeros the highest index
        # 2 of the 4 of class 0, 3 of the 6 of class 1.
        (Share(drop_share=0.5, per_class=True), no_losses, [0, 1, 5, 7, 9]),
        (Validated(), losses, [0, 5, 7]),  # of 30 and 40 % the smaller
        (Validated(per_class=True), losses, [0, 5, 7]),  # round(1.2) of 4, round(1.8) of 6
    ],
)
def test_exact_values_are_kept_or_dropped_as_by_hand(rule, ask, expected):
    choice = rule.choose(valued(ask))
    assert dropped(choice) == expected
    assert set(choice.decision) == {"keep", "drop"}
    assert_array_equal(np.flatnonzero(~choice.kept), expected)
    assert choice.rule == rule.name
    assert choice.false_discovery is None


def test_validated_tries_every_share_once_and_says_how_each_did():
    asked = []
    choice = Validated().choose(valued(lambda shares: [asked.append(shares), losses(shares)][1]))
    assert asked == [SHARES]
    assert (min(SHARES), max(SHARES), len(SHARES)) == (0, 0.9, 19)
    assert choice.share == 0.3
    assert choice.log_loss[0.3] == pytest.approx(0.5, rel=1e-15)
    assert choice.log_loss[0.85] is None
    assert choice.orderings == {"value": pytest.approx(0.5, rel=1e-15)}


def uncertain(means, noise):
    """Losses of 16 clean images: the means, and noise of its own for each share."""
    signs = np.array([[1 if i >> bit & 1 else -1 for i in range(16)] for bit in range(4)])
    return [mean + noise * signs[place] for place, mean in enumerate(means)]


@pytest.mark.parametrize(
    ("noise", "share"),
    [
        # The mean difference to the best is .06; the difference of two independent noises has a
        # standard deviation of sqrt(2) noise, and a standard error of that over sqrt(16).
        (0.10, 0.10),  # .035 x sqrt(16 / 15): more is known to help
        (0.20, 0.05),  # .071 x sqrt(16 / 15): not known
    ],
)
def test_validated_drops_no_more_than_is_known_to_help(noise, share):
    tried = uncertain([0.9, 0.56, 0.5, 0.52], noise)
    rule = Validated().choose(valued(lambda shares: {"value": tried + [None] * 15}))
    assert rule.share == share


def test_validated_takes_the_ordering_whose_own_choice_has_the_smallest_loss():
    same = np.zeros(3)
    tried = {
        # The best of all is at 10 %, but 5 % is as good within an error: .62.
        "value": [same + 0.9, np.array([0.3, 0.66, 0.9]), np.array([0.6, 0.6, 0.6])],
        "self": [same + 0.9, same + 0.61, same + 0.7],
        "probability": [same + 0.9, same + 0.8, None],
    }
    filled = {name: x + [None] * 16 for name, x in tried.items()}
    score = np.arange(10.0)
    known = Valued(
        value=VALUE,
        y=Y,
        losses=lambda shares: filled,
        orderings={"self": score, "probability": score},
    )
    choice = Validated().choose(known)
    assert (choice.ordering, choice.share) == ("self", 0.05)
    assert choice.orderings == {
        "value": pytest.approx(0.62), "self": pytest.approx(0.61), "probability": pytest.approx(0.8)
    }  # fmt: skip
    assert choice.log_loss[0.1] == pytest.approx(0.7)
    assert dropped(Validated().choose(known)) == []  # round(.05 x 10)


def test_validated_drops_nothing_where_nothing_helps_and_says_so():
    choice = Validated().choose(valued(lambda shares: by_value(*(0.5 + s for s in shares))))
    assert choice.share == 0
    assert dropped(choice) == []
    assert describe(choice) == "validated (no share that was tried is better than keeping all)"
    assert explain(choice).startswith("none, as no share of the lowest images is known to help")


def test_a_single_clean_image_has_no_standard_error_to_spare():
    tried = {"value": [np.array([0.9]), np.array([0.51]), np.array([0.5])] + [None] * 16}
    assert Validated().choose(valued(lambda shares: tried)).share == 0.1


def test_wrong_drops_by_the_probability_alone_and_what_is_not_known_stays():
    probability = np.array([0.9, 0.5, 0.51, np.nan, 0.0, 0.2, 0.7, 0.3, 0.1, 0.4])
    known = Valued(value=VALUE, y=Y, losses=no_losses, wrong_probability=probability)
    assert dropped(Wrong().choose(known)) == [0, 2, 6]
    assert dropped(Wrong(wrong_above=0.8).choose(known)) == [0]
    with pytest.raises(UserError, match="needs the probability that a label is wrong"):
        Wrong().choose(valued())


def test_doubted_drops_what_is_doubted():
    doubted = np.arange(10) % 4 == 1
    known = Valued(value=VALUE, y=Y, losses=no_losses, doubted=doubted)
    assert dropped(Doubted().choose(known)) == [1, 5, 9]


# Four intervals: below the threshold, around it, above it, around it.
SAMPLED = Sampled(
    low=np.array([-0.4, -0.1, 0.1, -0.2]),
    decision=np.array(["drop", "undecided", "keep", "undecided"]),
    log_e=np.log([100.0, 45.0, 0.1, 25.0]),
)
FEW = Valued(
    value=np.array([-0.3, -0.02, 0.3, 0.05]),
    y=np.array([0, 1, 0, 1]),
    losses=lambda shares: by_value(*(abs(share - 0.5) for share in shares)),
    sampled=SAMPLED,
)


@pytest.mark.parametrize(
    ("rule", "decision", "bound"),
    [
        # n / (k min e) of the k dropped: 4 / (1 x 100), 4 / (2 x 45).
        (Zero(), ["drop", "undecided", "keep", "undecided"], 0.04),
        (Chance(), ["drop", "undecided", "keep", "undecided"], 0.04),
        (Share(drop_share=0.5), ["drop", "drop", "keep", "keep"], 4 / 90),
        (Share(drop_share=0.7), ["drop", "drop", "keep", "drop"], 4 / 75),
        (Validated(), ["drop", "drop", "keep", "keep"], 4 / 90),
        # One e-value must be 80, two 40, three 26.7, four 20: two are rejected.
        (Certain(), ["drop", "drop", "keep", "undecided"], 0.05),
        # At a rate of .1 one must be 40, two 20, three 13.3, four 10: three are.
        (Certain(confidence=0.9), ["drop", "drop", "keep", "drop"], 0.1),
    ],
)
def test_thresholds_keep_the_undecided_and_ranks_decide_every_image(rule, decision, bound):
    choice = rule.choose(FEW)
    assert choice.decision.tolist() == decision
    assert choice.kept.tolist() == [word != "drop" for word in decision]
    assert choice.false_discovery == pytest.approx(bound, rel=1e-12)  # logarithms


def test_certain_needs_e_values():
    with pytest.raises(UserError, match="rule certain needs sampled values"):
        Certain().choose(valued())


few = st.lists(st.integers(-2, 2), min_size=4, max_size=12)


@given(few, st.randoms(use_true_random=False))
@pytest.mark.parametrize("rule", [Zero(), Chance(), Certain()])
def test_a_threshold_decides_on_an_image_whatever_its_place(rule, numbers, random):
    order = random.sample(range(len(numbers)), len(numbers))
    value, y = np.array(numbers) / 10, np.arange(len(numbers)) % 2
    low, log_e = value - 0.1, -4 * value * len(value)  # the lower a value, the more evidence

    def choice(of):
        decision = np.where(value[of] > 0, "keep", "undecided")
        sampled = Sampled(low=low[of], decision=decision, log_e=log_e[of])
        known = sampled if rule.needs.sampled_values else None
        return rule.choose(Valued(value=value[of], y=y[of], losses=no_losses, sampled=known))

    assert_array_equal(choice(order).decision, choice(np.arange(len(value))).decision[order])


@given(few, st.randoms(use_true_random=False))
@pytest.mark.parametrize("rule", [Share(drop_share=0.4), Validated()])
def test_among_equal_values_a_rank_drops_the_highest_index(rule, numbers, random):
    value, y = np.array(numbers) / 10, np.zeros(len(numbers), int)
    for order in (np.arange(len(y)), random.sample(range(len(y)), len(y))):
        there = value[order]
        kept = rule.choose(Valued(value=there, y=y, losses=losses)).kept
        count = int((~kept).sum())
        assert sorted(there[~kept]) == sorted(value)[:count]  # whatever the order
        for tie in np.unique(there):
            places = np.flatnonzero(there == tie)
            assert kept[places].tolist() == sorted(kept[places].tolist(), reverse=True)


def test_chance_moves_zero_to_the_game_whose_empty_set_guesses():
    rng = np.random.default_rng(0)
    n, k, classes = 5, 2, 3
    x, point, label = rng.random((n, 2)), rng.random((1, 2)), [1]
    y = np.array([0, 1, 2, 1, 0])

    def v(coalition):
        if not coalition:
            return 1 / classes
        nearest = sorted(coalition, key=lambda i: ((x[i] - point[0]) ** 2).sum())[:k]
        return sum(y[i] == label[0] for i in nearest) / k

    expected = np.zeros(n)  # the mean marginal over all orders of arrival
    for order in permutations(range(n)):
        for place, i in enumerate(order):
            expected[i] += (v(order[: place + 1]) - v(order[:place])) / 120
    values = knn_shapley(x, y, point, np.array(label), k=k, metric="euclidean")
    assert_allclose(values - Chance().threshold(y), expected, atol=1e-14)  # 120 terms / 120


@pytest.mark.parametrize("rule", [Zero(), Share(), Validated(), Wrong(), Doubted(), Certain()])
def test_the_threshold_of_all_others_is_zero(rule):
    assert rule.threshold(Y) == 0


CHOICES = [
    (
        Validated(),
        {
            "rule": "validated",
            "share": 0.5,
            "ordering": "self",
            "orderings": {"value": 0.5, "self": 0.45},
            "log_loss": {"0": 0.5, "0.05": 0.45, "0.9": None},
        },
        "validated (the lowest 50 % by self-valuation)",
        "the lowest 50\u00a0% by self-valuation, the smallest share that is as good as the best "
        "for the log loss of a quick classifier on shapley_val (rule validated).",
    ),
    (
        Wrong(),
        {"rule": "wrong", "ordering": "probability", "probability": 0.8},
        "wrong (P(wrong) > 0.8)",
        "those whose label is wrong with a probability above 0.8 (rule wrong).",
    ),
    (
        Doubted(),
        {"rule": "doubted", "ordering": "self"},
        "doubted (neighbours, probe and planted errors agree)",
        "those whose label all evidence from the other training images doubts: their neighbours, a "
        "quick classifier, and likeness to planted errors (rule doubted).",
    ),
    (
        Zero(),
        {"rule": "zero", "threshold": 0.0, "false_discovery": 0.25},
        "zero (keep value > 0)",
        "those estimated to lower the accuracy (rule zero: keep value > 0).",
    ),
    (
        Chance(),
        {"rule": "chance", "threshold": 0.00012345},
        "chance (keep value > 0.00012)",
        "those whose value is no better than chance (rule chance: keep value > "
        "1 / (classes x images) = 0.00012).",
    ),
    (
        Share(per_class=True),
        {"rule": "share", "share": 0.2, "per_class": True},
        "share (the lowest 20 %)",
        "the lowest 20\u00a0% of each class by value, as requested (rule share).",
    ),
    (
        Certain(),
        {"rule": "certain", "threshold": 0.0, "false_discovery": 0.05},
        "certain (false-discovery rate 5 %)",
        "those that are harmful with certainty (rule certain: false-discovery rate 5\u00a0%).",
    ),
]


@pytest.mark.parametrize(("rule", "note", "short", "long"), CHOICES)
def test_a_choice_comes_back_from_json_and_says_in_words_what_it_was(rule, note, short, long):
    choice = Choice.restore(json.loads(json.dumps(note)), np.array(["keep", "drop"]))
    assert choice.rule == rule.name
    assert choice.note() == note
    assert describe(choice) == short
    assert explain(choice) == long


def test_every_rule_is_among_those_tried_here():
    assert [rule.name for rule, *_ in CHOICES] == list(RULES)


def test_a_rule_takes_its_fields_from_the_settings():
    settings = {
        "drop_share": 0.35, "per_class": True, "confidence": 0.9, "k": 10, "wrong_above": 0.7
    }  # fmt: skip
    made = [new_rule(name, settings) for name in RULES]
    assert made == [
        Validated(per_class=True),
        Wrong(wrong_above=0.7),
        Doubted(),
        Zero(),
        Chance(),
        Share(drop_share=0.35, per_class=True),
        Certain(confidence=0.9),
    ]


def test_an_unknown_rule_is_refused_everywhere():
    decision = np.array(["keep"])
    for refused in (
        lambda: new_rule("best", {}),
        lambda: describe(Choice(rule="best", decision=decision, share=0.2)),
        lambda: explain(Choice(rule="best", decision=decision, share=0.2)),
        lambda: check_needs("best", **BY_CLEAN),
        lambda: parse_config({"value": {"rule": "best"}}, "file"),
    ):
        with pytest.raises(UserError, match=r"'?validated'?, .*'?certain'?"):
            refused()


BY_CLEAN = {"clean_set": True, "sampled_values": False, "utility": "knn"}


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({}, {"validated", "wrong", "doubted", "zero", "chance", "share"}),
        ({"clean_set": False}, {"doubted", "zero", "chance", "share"}),
        (
            {"sampled_values": True},
            {"validated", "wrong", "doubted", "zero", "chance", "share", "certain"},
        ),
        (
            {"sampled_values": True, "utility": "logistic"},
            {"validated", "wrong", "doubted", "zero", "share", "certain"},
        ),
    ],
)
def test_a_rule_is_refused_where_its_needs_are_not_met_and_others_are_named(change, usable):
    for name in RULES:
        if name in usable:
            check_needs(name, **(BY_CLEAN | change))
            continue
        with pytest.raises(UserError, match=f"^value.rule {name} ") as caught:
            check_needs(name, **(BY_CLEAN | change))
        named = str(caught.value).partition("; use ")[2].split(" or ")
        assert set(named) == usable


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "validated", "validation": "self"}, "needs a clean shapley_val"),
        ({"rule": "certain"}, "needs value.method sample"),
        ({"rule": "chance", "method": "sample", "utility": "logistic"}, "needs the utility knn"),
    ],
)
def test_the_settings_know_the_needs_of_a_rule(settings, message):
    with pytest.raises(UserError, match=f"value.rule {settings['rule']} {message}; use "):
        parse_config({"value": settings}, "file")


def test_the_help_of_the_setting_explains_every_rule():
    body = ast.parse(textwrap.dedent(inspect.getsource(ValueConfig))).body[0].body
    place = next(
        i
        for i, node in enumerate(body)
        if getattr(node, "target", None) and node.target.id == "rule"
    )
    words = body[place + 1].value.value.split()
    assert {f"{rule}:" for rule in RULES} <= set(words)
