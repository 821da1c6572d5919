"""What no rule may do, case by case, and whatever the decisions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.safeguards import safeguarded, trusts_suggestions

CLASSES = ["cat", "dog", "owl"]
#             0  1  2  3  4  5  6
Y = np.array([0, 0, 0, 1, 1, 2, 2])
NONE = np.zeros(3, dtype=bool)
OTHERS = (Y + 1) % 3  # no image looks like its label


def guarded(decision, *, lacking=NONE, too_small=NONE, suggested=OTHERS, **how):
    words = {"k": "keep", "d": "drop", "u": "undecided"}
    choice = Choice(decision=np.array([words[letter] for letter in decision]), **how)
    return safeguarded(
        choice, Y, CLASSES, lacking=lacking, too_small=too_small, suggested=suggested
    )


def short(choice):
    return "".join(word[0] for word in choice.decision)


ZERO = {"rule": "zero", "threshold": 0.0}
BY_SELF = {"rule": "validated", "share": 0.4, "ordering": "self"}


def test_what_may_be_is_left_as_it_is_with_its_reason():
    choice = guarded("dkkdkku", **ZERO)
    assert short(choice) == "dkkdkku"
    assert choice.reason.tolist() == [
        "value is not above 0", "", "", "value is not above 0", "", "", ""
    ]  # fmt: skip
    assert guarded("dkkdkkk", **BY_SELF).reason[0] == "among the lowest 40 % by self-valuation"


@pytest.mark.parametrize(
    ("how", "decision"),
    [
        (BY_SELF, "kkkdkkk"),
        ({"rule": "wrong", "probability": 0.5, "ordering": "probability"}, "kkkdkkk"),
        ({"rule": "doubted", "ordering": "self"}, "kkkdkkk"),
        ({"rule": "validated", "share": 0.4}, "dkkdkkk"),  # a right label may harm, too
        (ZERO, "dkkdkkk"),
        ({"rule": "share", "share": 0.4}, "dkkdkkk"),
    ],
)
def test_an_image_that_looks_like_its_label_stays_where_labels_are_judged(how, decision):
    suggested = np.where(np.arange(7) == 0, Y, OTHERS)
    choice = guarded("dkkdkkk", suggested=suggested, **how)
    assert short(choice) == decision
    assert trusts_suggestions(choice) == (decision[0] == "k")
    if decision[0] == "k":
        assert choice.reason[0] == "the suggested label is the label that it has"


def test_a_class_that_the_clean_set_lacks_is_undecided_with_the_reason():
    choice = guarded("dkkdkdk", lacking=np.array([False, True, False]), **ZERO)
    assert short(choice) == "dkkuudk"
    assert choice.reason[3:5].tolist() == ["shapley_val has no image of class dog"] * 2


def test_a_class_too_small_to_judge_is_undecided_with_the_reason():
    choice = guarded("dkkdkdk", too_small=np.array([False, False, True]), **ZERO)
    assert short(choice) == "dkkdkuu"
    assert choice.reason[5] == "too few images of class owl"


def test_a_class_that_would_be_empty_is_undecided_with_the_reason():
    choice = guarded("dddkkdd", **ZERO)
    assert short(choice) == "uuukkuu"
    assert choice.reason[0] == "dropping it would leave no image of class cat"
    assert short(guarded("ddukkkk", **ZERO)) == "ddukkkk"  # an undecided image is kept


@given(
    st.lists(st.sampled_from("kdu"), min_size=7, max_size=7),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.lists(st.integers(0, 2), min_size=7, max_size=7),
    st.sampled_from([ZERO, BY_SELF]),
)
def test_no_class_is_ever_emptied_and_nothing_is_dropped_that_was_not(letters, flags, looks, how):
    choice = guarded(
        letters,
        lacking=np.array(flags[:3]),
        too_small=np.array(flags[3:]),
        suggested=np.array(looks),
        **how,
    )
    assert set(Y[choice.kept]) == {0, 1, 2}
    for before, after in zip(letters, choice.decision, strict=True):
        assert after != "drop" or before == "d"
