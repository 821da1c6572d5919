"""The line that says how far a review has come."""

import pyarrow as pa

from dcai_ray.review.decisions import Decision
from dcai_ray.review.expected import Expected, looked_at

GIVEN = {"a": "cat", "b": "dog", "c": "dog", "d": "cat"}
VALUES = pa.table({"id": list(GIVEN), "wrong_probability": [0.9, 0.75, 0.5, None]})


def decided(*rows):
    found = {}
    for split, name, given, decision in rows:
        label = "x" if decision == "relabel" else ""
        at = "2026-01-01T12:00:00Z"
        found[split, name] = Decision(name, split, given, decision, label, "ann", at, "")
    return found


def test_wrong_ones_are_counted_and_the_rest_is_expected():
    records = decided(
        ("train", "a", "cat", "drop"),
        ("train", "b", "cat", "drop"),  # another label now
        ("train", "d", "cat", "keep"),
        ("val", "c", "dog", "drop"),
    )
    assert looked_at(records, GIVEN, Expected.of(VALUES), "images") == (
        "looked at 2 of 4 images, 1 wrong; about 1 of the other 2 are wrong"  # .75 + .5
    )
    relabelled = decided(("train", "b", "dog", "relabel"), ("train", "c", "dog", "unsure"))
    assert looked_at(relabelled, GIVEN, Expected.of(VALUES), "images") == (
        "looked at 2 of 4 images, 1 wrong; about 1 of the other 2 are wrong"  # .9
    )


def test_without_probabilities_nothing_is_expected():
    values = VALUES.drop_columns(["wrong_probability"])
    line = looked_at({}, GIVEN, Expected.of(values), "examples")
    assert line == "looked at 0 of 4 examples, 0 wrong"
