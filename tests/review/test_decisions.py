"""Decisions of people: which counts, who differs, how far two agree."""

import random

import pytest
from sklearn.metrics import cohen_kappa_score

from dcai_ray.errors import UserError
from dcai_ray.review.decisions import (
    Decision,
    agreements,
    cohens_kappa,
    conflicts,
    final,
    standing,
)


def decided(image, decision, by="ann", minute=0, label="", given="cat"):
    at = f"2026-01-01T12:{minute:02d}:00+00:00"
    return Decision(image, "train", given, decision, label, by, at, "")


def test_a_later_decision_of_the_same_person_replaces_the_earlier_one():
    records = [decided("a", "drop"), decided("a", "keep", minute=1)]
    assert final(records)["train", "a"].decision == "keep"


def test_undo_brings_back_the_decision_before_and_then_none():
    records = [decided("a", "drop"), decided("a", "keep", minute=1), decided("a", "undo", minute=2)]
    assert final(records)["train", "a"].decision == "drop"
    assert final([*records, decided("a", "undo", minute=3)]) == {}


def test_undo_withdraws_nothing_of_other_people():
    records = [decided("a", "drop", "ann"), decided("a", "undo", "bob", minute=1)]
    assert list(standing(records)["train", "a"]) == ["ann"]


def test_files_may_be_merged_in_any_order_and_twice():
    records = [
        decided("a", "drop"),
        decided("a", "keep", minute=1),
        decided("a", "undo", minute=2),
        decided("a", "keep", "bob"),
        decided("a", "relabel", "eve", label="dog"),
    ]
    truth = final(records)
    assert truth["train", "a"] in records
    for seed in range(10):
        shuffled = records * 2
        random.Random(seed).shuffle(shuffled)
        assert final(shuffled) == truth


def test_times_are_compared_as_moments_not_as_text():
    early = Decision("a", "train", "cat", "keep", "", "ann", "2026-01-01T13:00:00+02:00", "")
    late = Decision("a", "train", "cat", "drop", "", "ann", "2026-01-01T12:00:00Z", "")
    assert final([late, early])["train", "a"] == late


def test_people_who_name_different_classes_conflict():
    records = [
        decided("a", "relabel", "ann", label="dog"),
        decided("a", "relabel", "bob", label="cow"),
        decided("b", "drop", "ann"),
        decided("b", "drop", "bob"),
    ]
    assert conflicts(records) == [("train", "a")]


def test_kappa_equals_scikit_learns():
    chance = random.Random(0)
    pairs = [(chance.choice("kdr"), chance.choice("kkd")) for _ in range(60)]
    assert cohens_kappa(pairs) == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))


def test_agreement_counts_only_images_that_both_decided():
    records = [decided(i, "drop", "ann") for i in "abc"] + [
        decided("a", "drop", "bob"),
        decided("b", "keep", "bob"),
        decided("z", "keep", "bob"),
    ]
    (one,) = agreements(records)
    assert (one.people, one.images, one.equal) == (("ann", "bob"), 2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decision": "maybe"}, "decision must be one of"),
        ({"decision": "relabel"}, "label must be given"),
        ({"decision": "keep", "label": "dog"}, "and only then"),
        ({"decision": "relabel", "label": "cat"}, "must differ"),
        ({"at": "yesterday"}, "at must be a time"),
        ({"at": "2026-01-01T12:00:00"}, "at must be a time"),
        ({"id": ""}, "id must name an image"),
    ],
)
def test_what_is_no_decision_is_refused_in_one_line(change, message):
    good = {"id": "a", "split": "train", "given_label": "cat", "decision": "keep", "label": ""}
    with pytest.raises(UserError, match=message):
        Decision(**{**good, "by": "ann", "at": "2026-01-01T12:00:00Z", "note": "", **change})
