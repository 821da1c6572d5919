"""The columns of values, listed once."""

from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.storage import schemas
from dcai_ray.storage.location import Location
from dcai_ray.storage.values import (
    Estimates,
    check_ids,
    kept_mask,
    kept_table,
    suggestions,
    values_table,
)


def estimates() -> Estimates:
    return Estimates.exact(
        id=("cat/0", "dog/1"),
        label=("cat", "dog"),
        value=np.array([0.25, -0.5]),
        decision=np.array(["keep", "drop"]),
    )


def test_the_record_and_both_schemas_have_the_same_columns_in_the_same_order():
    assert [entry.name for entry in fields(Estimates)] == schemas.ESTIMATES.names
    assert schemas.VALUES.names[: len(schemas.ESTIMATES)] == schemas.ESTIMATES.names


def test_exact_values_are_their_own_intervals():
    table = estimates().table()
    assert table.schema == schemas.ESTIMATES
    for name in ("value", "low", "high"):
        assert_array_equal(table[name].to_numpy(), [0.25, -0.5])
    for name in ("stderr", "rounds", "evaluated"):
        assert_array_equal(table[name].to_numpy(), [0, 0])
    assert table["decision"].to_pylist() == ["keep", "drop"]


def test_what_is_not_known_yet_is_empty_in_the_table_of_values():
    table = values_table(estimates())
    assert table.schema == schemas.VALUES
    assert table["suggested_label"].to_pylist() == [None, None]
    assert table["stderr_validation"].null_count == 0  # NaN, so that it stays a number
    assert np.isnan(table["stderr_validation"].to_numpy()).all()


def test_values_by_the_training_set_are_the_last_column():
    table = values_table(
        estimates(),
        stderr_validation=np.array([0.1, 0.2]),
        further={"suggested_label": ["cat", "cat"], "value_self": np.array([1.0, 2.0])},
    )
    assert table.column_names == [*schemas.VALUES.names, "value_self"]
    assert table.schema.field("value_self").type == pa.float64()
    assert table["suggested_label"].to_pylist() == ["cat", "cat"]


def test_what_is_not_known_of_an_image_is_null_in_the_columns_of_evidence():
    further = {
        "conflict": np.array([None, "same picture as train/cat/1"], dtype=object),
        "wrong_probability": np.array([0.25, np.nan]),
    }
    table = values_table(estimates(), further=further)
    # In the order of the schema, whatever the order given.
    assert table.column_names == [*schemas.VALUES.names, "wrong_probability", "conflict"]
    assert table["wrong_probability"].to_pylist() == [0.25, None]
    assert table["conflict"].to_pylist() == [None, "same picture as train/cat/1"]


def test_suggestions_are_numbers_of_known_classes_with_their_probabilities():
    known = {"suggested_label": ["dog", None], "suggested_probability": [0.75, 0.5]}
    found = suggestions(values_table(estimates(), further=known), ("cat", "dog"))
    assert found is not None
    assert_array_equal(found[0], [1, -1])
    assert_array_equal(found[1], [0.75, np.nan])
    assert suggestions(values_table(estimates()), ("cat", "dog")) is None


def test_the_undecided_are_kept():
    rows = [
        {"id": f"cat/{i}", "label": "cat", "value": value, "decision": decision}
        for i, (value, decision) in enumerate([(0.5, "keep"), (-0.5, "drop"), (0.0, "undecided")])
    ]
    table = pa.Table.from_pylist(rows, schemas.VALUES)
    assert_array_equal(kept_mask(table), [True, False, True])
    kept = kept_table(table)
    assert kept.schema.equals(schemas.KEPT)
    assert kept["id"].to_pylist() == ["cat/0", "cat/2"]


@pytest.mark.parametrize("ids", [["a", "b"], ["b", "a", "c"], ["a", "b", "d"]])
def test_values_of_other_images_are_refused(ids):
    file = Location("values.parquet")
    check_ids(file, ["a", "b", "c"], ["a", "b", "c"])
    with pytest.raises(ValueError, match=rf"ids do not match .* \({len(ids)} there, 3 now\)"):
        check_ids(file, ids, ["a", "b", "c"])
