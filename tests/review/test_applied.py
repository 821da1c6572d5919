"""What people decided wins over what a rule keeps."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.review.applied import reviewed_labels
from dcai_ray.review.decision_files import Session
from dcai_ray.review.decisions import Decision
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.location import Location

CLASSES = ("cat", "dog")
IDS = ("a", "b", "c", "d", "e", "f")
Y = np.array([0, 0, 1, 1, 0, 1])
KEPT = np.array([True, False, True, False, False, True])


@pytest.fixture
def run(tmp_path):
    return RunDirectory(Location(str(tmp_path / "run")))


def decided(name, given, decision, label="", split="train"):
    return Decision(name, split, given, decision, label, "ann", "2026-01-01T12:00:00Z", "")


def labels(run):
    return reviewed_labels(run, IDS, Y, KEPT, CLASSES)


def test_without_decisions_that_hold_there_are_no_reviewed_labels(run):
    assert labels(run) is None
    Session(run.decisions).add([
        decided("a", "cat", "unsure"),
        decided("b", "dog", "keep"),  # it is called cat now
        decided("a", "cat", "drop", split="val"),
    ])  # fmt: skip
    assert labels(run) is None


def test_people_keep_drop_and_relabel_and_the_rule_decides_the_rest(run):
    Session(run.decisions).add([
        decided("a", "cat", "drop"),
        decided("b", "cat", "keep"),
        decided("c", "dog", "relabel", "cat"),
        decided("d", "dog", "relabel", "cat"),
    ])  # fmt: skip
    assert_array_equal(labels(run), [-1, 0, 0, 0, -1, 1])
