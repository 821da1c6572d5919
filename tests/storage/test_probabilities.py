"""Probabilities of networks as the file of a run."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.probabilities import Probabilities, select


def test_a_table_gives_back_what_it_was_made_of_whatever_classes_are_called(tmp_path):
    p = np.array([[0.25, 0.75], [1.0, 0.0]])
    made = Probabilities(["train", "shapley_val"], ["a/1", "a/1"], ["split", "id"], p)
    pq.write_table(made.table(), tmp_path / "p.parquet")
    found = Probabilities.of(pq.read_table(tmp_path / "p.parquet"))
    assert (found.splits, found.ids, found.classes) == (made.splits, made.ids, made.classes)
    assert_array_equal(found.p, p)
    wanted = {"shapley_val": ["a/1"]}
    file = Location(str(tmp_path / "p.parquet"))
    assert_array_equal(select(file, found, wanted, ["id", "split"])["shapley_val"], [[0.0, 1.0]])
    with pytest.raises(UserError, match="no probabilities of class 'other'"):
        select(file, found, wanted, ["id", "other"])
