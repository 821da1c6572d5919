"""Choices by hand: what is kept, and where the cut lies."""

import json
from dataclasses import fields

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.cleaning.choices import ORDERINGS, Choice, Valued, keep_share


def test_share_per_class_drops_that_share_of_each():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [100, 40, 20])
    value = rng.random(160) + y  # without per_class the first class alone would lose
    kept = keep_share(value, 0.25, y, per_class=True)
    assert_array_equal(np.bincount(y[~kept]), [25, 10, 5])
    for c in range(3):
        assert value[(y == c) & ~kept].max() < value[(y == c) & kept].min()
    assert_array_equal(np.bincount(y[~keep_share(value, 0.25, y)]), [40])


@pytest.mark.parametrize(
    ("choice", "cut"),
    [
        ({"threshold": 0.05}, 0.05),
        ({"share": 0.25}, 0.15),  # between .1 and .2
        ({"share": 0.0, "decision": np.array(["keep"] * 4)}, None),
        ({"share": 0.25, "decision": np.array(["keep", "drop", "keep", "keep"])}, None),
        ({"share": 0.25, "ordering": "self"}, None),
        ({"probability": 0.5, "ordering": "probability"}, None),
        ({"ordering": "self"}, None),  # image by image
    ],
)
def test_the_cut_lies_between_dropped_and_kept_where_one_value_can(choice, cut):
    decision = {"decision": np.array(["drop", "keep", "keep", "keep"])}
    found = Choice(rule="share", **(decision | choice)).cut(np.array([0.1, 0.2, 0.3, 0.4]))
    assert found == (None if cut is None else pytest.approx(cut, rel=1e-15))


def test_what_is_not_dropped_is_kept():
    choice = Choice(rule="zero", decision=np.array(["drop", "undecided", "keep"]), threshold=0.0)
    assert_array_equal(choice.kept, [False, True, True])


def test_value_is_always_among_the_orderings():
    value, others = np.array([1.0, 2.0]), np.array([4.0, 3.0])
    valued = Valued(value=value, y=np.array([0, 1]), losses=dict, orderings={"self": others})
    assert valued.scores("value") is value
    assert valued.scores("self") is others
    assert set(ORDERINGS) == {"value", "self", "both", "probability"}


@pytest.mark.parametrize(
    "note",
    [
        {"rule": "zero", "threshold": 0.0},
        {"rule": "share", "share": 0.2, "per_class": True},
        {"rule": "wrong", "ordering": "probability", "probability": 0.7},
        {"rule": "doubted", "ordering": "self"},
        {"rule": "certain", "threshold": 0.0, "false_discovery": 0.05},
        {
            "rule": "validated",
            "share": 0.05,
            "ordering": "both",
            "orderings": {"value": 0.5, "both": 0.4},
            "log_loss": {"0": 0.6, "0.05": 0.4, "0.9": None},
        },
    ],
)
def test_a_choice_comes_back_from_json_as_it_was(note):
    choice = Choice.restore(json.loads(json.dumps(note)), np.array(["keep", "drop"]))
    assert choice.note() == note
    by_default = Choice(rule="any", decision=choice.decision)
    for entry in fields(Choice):
        if entry.name in note and entry.name != "log_loss":
            assert getattr(choice, entry.name) == note[entry.name]
        elif entry.name not in ("rule", "decision", "log_loss"):
            assert getattr(choice, entry.name) == getattr(by_default, entry.name)
    assert choice.log_loss == (
        {0.0: 0.6, 0.05: 0.4, 0.9: None} if note["rule"] == "validated" else None
    )
