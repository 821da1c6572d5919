"""What no rule may do, branch by branch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.rules import RULES
from dcai_ray.cleaning.safeguards import BY_EVIDENCE, safeguarded

CLASSES = ("cat", "dog", "owl")
Y = np.array([0, 0, 0, 1, 1, 2, 2])
NONE = np.zeros(3, bool)
WRONG = {"rule": "wrong", "probability": 0.5, "ordering": "probability"}
ZERO = {"rule": "zero", "threshold": 0.0}


def guarded(decision, how, y=Y, *, lacking=NONE, too_small=NONE, suggested=None):
    """(decision, reason) of each image."""
    choice = Choice(decision=np.array(decision), **how)
    suggested = (y + 1) % 3 if suggested is None else suggested
    found = safeguarded(
        choice, y, CLASSES, lacking=lacking, too_small=too_small, suggested=suggested
    )
    assert {key: getattr(found, key) for key in how} == how  # how it was made is still told
    return list(zip(found.decision.tolist(), found.reason.tolist(), strict=True))


SOME = ["drop", "keep", "undecided", "keep", "drop", "keep", "keep"]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (WRONG, "label is wrong with a probability above 0.5"),
        (
            {"rule": "doubted", "ordering": "self"},
            "neighbours, probe and likeness to planted errors speak against the label",
        ),
        (ZERO, "value is not above 0"),
        ({"rule": "chance", "threshold": 0.00123}, "value is not above 0.0012"),
        ({"rule": "certain", "threshold": 0.0}, "value is not above 0"),
        ({"rule": "share", "share": 0.2}, "among the lowest 20 % by value"),
        (
            {"rule": "validated", "share": 0.35, "ordering": "self"},
            "among the lowest 35 % by self-valuation",
        ),
        (
            {"rule": "validated", "share": 0.05, "ordering": "probability"},
            "among the lowest 5 % by the probability that the label is wrong",
        ),
    ],
)
def test_what_is_dropped_has_its_reason_and_all_else_stays_as_it_is(how, why):
    expected = [(word, why if word == "drop" else "") for word in SOME]
    assert guarded(SOME, how) == expected


def test_every_rule_has_a_reason_here():
    marks = test_what_is_dropped_has_its_reason_and_all_else_stays_as_it_is.pytestmark
    assert {how["rule"] for how, _ in marks[0].args[1]} == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_by_evidence_keeps_what_the_probe_agrees_with(rule):
    how = {"rule": rule, "share": 0.3} | ({"probability": 0.5} if rule == "wrong" else {})
    suggested = np.array([0, 0, 2, 2, 2, 2, 2])
    found = guarded(SOME, how, suggested=suggested)
    assert set(BY_EVIDENCE) == {"validated", "wrong", "doubted"}
    kept = ("keep", "the suggested label is the label that it has")
    assert found[0] == kept if rule in BY_EVIDENCE else found[0][0] == "drop"
    assert found[4][0] == "drop"  # the probe disagrees
    assert [found[i] for i in (1, 2, 3, 5, 6)] == [(SOME[i], "") for i in (1, 2, 3, 5, 6)]


def test_classes_that_nothing_can_judge_are_left_undecided():
    for marks, why in (
        ("lacking", "shapley_val has no image of class dog"),
        ("too_small", "too few images of class dog"),
    ):
        found = guarded(SOME, ZERO, **{marks: np.array([False, True, False])})
        assert found[3:5] == [("undecided", why)] * 2
        assert [word for word, _ in found[:3] + found[5:]] == SOME[:3] + SOME[5:]


def test_a_class_that_would_be_empty_is_left_undecided():
    decision = ["drop", "drop", "undecided", "drop", "drop", "drop", "keep"]
    found = guarded(decision, ZERO)
    assert found[3:5] == [("undecided", "dropping it would leave no image of class dog")] * 2
    dropped = ("drop", "value is not above 0")
    assert found[:3] == [dropped, dropped, ("undecided", "")]  # one is left of that class
    assert found[5:] == [dropped, ("keep", "")]


def test_the_first_reason_that_holds_is_given():
    """An image that may not be judged is not kept for its suggested label; a class whose images are
    all undecided is not empty; a class that the clean set lacks may be small besides."""
    decision, own = ["drop"] * 7, Y.copy()  # every suggested label is the label that it has
    dog = np.array([False, True, False])
    found = guarded(decision, WRONG, suggested=own, lacking=dog, too_small=dog)
    kept = ("keep", "the suggested label is the label that it has")
    lacking = ("undecided", "shapley_val has no image of class dog")
    assert found == [kept] * 3 + [lacking] * 2 + [kept] * 2
    # One image of a class is kept, so the others are dropped.
    suggested = np.array([0, 1, 1, 0, 0, 0, 0])
    found = guarded(decision, WRONG, suggested=suggested, too_small=dog)
    dropped = ("drop", "label is wrong with a probability above 0.5")
    empty = ("undecided", "dropping it would leave no image of class owl")
    small = ("undecided", "too few images of class dog")
    assert found == [kept, dropped, dropped, small, small, empty, empty]


images = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["keep", "drop", "undecided"])),
    min_size=1,
    max_size=12,
)


@given(images, st.lists(st.booleans(), min_size=6, max_size=6), st.sampled_from([WRONG, ZERO]))
def test_no_class_is_ever_emptied(images, marks, how):
    y, suggested, decision = (np.array(column) for column in zip(*images, strict=True))
    found = guarded(
        decision, how, y, lacking=np.array(marks[:3]), too_small=np.array(marks[3:]),
        suggested=suggested,
    )  # fmt: skip
    kept = {int(c) for c, (word, _) in zip(y, found, strict=True) if word != "drop"}
    assert kept == set(y.tolist())
    assert all(reason for before, (word, reason) in zip(decision, found, strict=True)
               if word == "drop" or word != before)  # fmt: skip
    assert all(word != "drop" for before, (word, _) in zip(decision, found, strict=True)
               if before != "drop")  # fmt: skip
