"""Parquet files with fingerprints: read back whole, by other programs too, or refused."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.features import (
    feature_table,
)
from dcai_ray.storage.location import Location


@pytest.fixture
def folder(tmp_path):
    return Location(str(tmp_path / "features"))


def values_table():
    rows = [
        {"id": f"cat/{i}", "label": "cat", "value": value, "decision": decision}
        for i, (value, decision) in enumerate([(0.5, "keep"), (-0.5, "drop"), (0.0, "undecided")])
    ]
    return pa.Table.from_pylist(rows, schemas.VALUES)


def test_the_same_table_gives_the_same_bytes(folder):
    for name in ("a", "b"):
        parquet.write_table(folder / name, values_table(), "f", backbone="resnet18")
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def test_a_table_comes_back_with_its_notes(folder):
    parquet.write_table(folder / "t", values_table(), "f", backbone="Käse", classes='["a"]')
    table = parquet.read_table(folder / "t")
    assert table.equals(values_table())
    assert parquet.read_note(table, "backbone") == "Käse"
    assert parquet.read_note(table, "classes") == '["a"]'
    assert parquet.read_note(table, "nothing") == ""


def test_a_file_is_made_if_it_carries_the_wanted_fingerprint_only(folder):
    file = folder / "t"
    assert not parquet.is_up_to_date(file, "f")
    parquet.write_table(file, values_table(), "f")
    assert parquet.is_up_to_date(file, "f")
    assert not parquet.is_up_to_date(file, "another")
    content = file.read_bytes()
    for damaged in (b"", b"not parquet", content[:-20], content[:-8] + bytes(8)):
        file.write_bytes(damaged)
        assert parquet.fingerprint_of(file) == ""


@pytest.mark.parametrize("classes", [2, 1000], ids=["a short footer", "a long one"])
def test_a_fingerprint_is_read_from_a_footer_of_any_length(folder, classes):
    notes = {"classes": json.dumps([f"class number {i}" for i in range(classes)])}
    file = folder / "t"
    parquet.write_table(
        file, feature_table(["a/1"], ["a"], np.ones((1, 3), np.float32), notes), "f"
    )
    footer = int.from_bytes(file.read_bytes()[-8:-4], "little")
    assert (footer > 4096) == (classes == 1000)  # 4,096 bytes are read at first
    assert parquet.fingerprint_of(file) == "f"


def test_many_fingerprints_come_in_the_order_of_the_files(folder):
    files = [folder / str(i) for i in range(50)]
    for i in range(0, 50, 2):
        parquet.write_table(files[i], values_table(), f"made-{i}")
    expected = ["" if i % 2 else f"made-{i}" for i in range(50)]
    assert parquet.fingerprints_of(files) == expected
    assert parquet.fingerprints_of([]) == []


def test_the_fingerprint_hangs_on_values_and_order_but_not_on_the_order_of_keys():
    base = parquet.new_fingerprint({"k": 10, "metric": "cosine"}, [1, 2])
    assert base == parquet.new_fingerprint({"metric": "cosine", "k": 10}, [1, 2])
    others = ({"k": 11, "metric": "cosine"}, [1, 2]), ({"k": 10, "metric": "cosine"}, [2, 1])
    assert len({base, *(parquet.new_fingerprint(*other) for other in others)}) == 3
    assert len(base) == 16
    assert int(base, 16) >= 0


def test_other_programs_read_the_files(folder, tmp_path):
    x = np.float32([[0.5, -1, 2], [3, 0.25, 1e-7]])
    table = feature_table(["cat/1.png", "dog/Käse.png"], ["cat", "dog"], x, {})
    parquet.write_table(folder / "vectors", table, "f")
    path = tmp_path / "features/vectors"
    frame = pd.read_parquet(path)
    assert list(frame) == ["id", "label", "feature"]
    assert list(frame["id"]) == ["cat/1.png", "dog/Käse.png"]
    assert list(frame["label"]) == ["cat", "dog"]
    assert_array_equal(np.stack(frame["feature"]), x)
    assert pq.read_schema(path).field("feature").type == pa.list_(pa.float32(), 3)
    parquet.write_table(folder / "values", values_table(), "f")
    assert list(pd.read_parquet(tmp_path / "features/values")["value"]) == [0.5, -0.5, 0.0]


def test_any_damage_to_a_file_is_one_line_that_names_it(folder):
    file, rng, messages = folder / "vectors", np.random.default_rng(0), []
    x = np.float32(rng.standard_normal((50, 3)))
    ids = [f"cat/{i}" for i in range(50)]
    parquet.write_table(file, feature_table(ids, ["cat"] * 50, x, {}), "f")
    content = file.read_bytes()
    for trial in range(300):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=3):
            damaged[place] ^= int(rng.integers(1, 256))
        cut = rng.integers(len(content)) if trial % 2 else len(content)
        file.write_bytes(bytes(damaged[:cut]))
        parquet.fingerprint_of(file)  # raises nothing
        try:
            parquet.read_table(file)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) >= 150  # every cut file at least
    assert all(message.startswith(f"{file}: not a readable Parquet file") for message in messages)
    assert not any("\n" in message for message in messages)


def test_one_flipped_bit_in_a_page_is_noticed(tmp_path):
    file = Location(str(tmp_path / "x.parquet"))
    x = np.random.default_rng(0).normal(size=500)
    parquet.write_table(file, pa.table({"x": x}), "made")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"x\.parquet: not a readable Parquet file"):
        parquet.read_table(file)
