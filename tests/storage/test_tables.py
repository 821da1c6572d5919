import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.features import (
    Features,
    check_same_features,
    class_numbers,
    feature_table,
    has_features,
    read_split,
    shard_name,
    write_manifest,
)
from dcai_ray.storage.location import Location
from dcai_ray.storage.values import check_ids, kept_mask, kept_table


@pytest.fixture
def folder(tmp_path):
    return Location(str(tmp_path / "features"))


def features(ids, *, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(len(ids), width)).astype(np.float32)


def write_shard(folder, index, ids, x=None, *, labels=None, backbone="resnet18"):
    x = features(ids, seed=index) if x is None else x
    labels = [name.split("/")[0] for name in ids] if labels is None else labels
    table = feature_table(ids, labels, x, {"backbone": backbone})
    parquet.write_table(folder / shard_name(index), table, f"made-{index}")
    return x


def write_split(folder, *shards):
    xs = [write_shard(folder, i, ids) for i, ids in enumerate(shards)]
    write_manifest(folder, "all", [shard_name(i) for i in range(len(shards))])
    return np.concatenate(xs)


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
    parquet.write_table(file, feature_table(["a/1"], ["a"], features("a"), notes), "f")
    footer = int.from_bytes(file.read_bytes()[-8:-4], "little")
    assert (footer > 4096) == (classes == 1000)  # 4,096 bytes are read at first
    assert parquet.fingerprint_of(file) == "f"


def test_many_fingerprints_come_in_the_order_of_the_files(folder):
    files = [folder / shard_name(i) for i in range(50)]
    for i in range(0, 50, 2):
        write_shard(folder, i, ["cat/1"])
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
    x = write_split(folder, ["cat/1.png", "dog/Käse.png"])
    path = tmp_path / "features/part-00000.parquet"
    frame = pd.read_parquet(path)
    assert list(frame) == ["id", "label", "feature"]
    assert list(frame["id"]) == ["cat/1.png", "dog/Käse.png"]
    assert list(frame["label"]) == ["cat", "dog"]
    assert_array_equal(np.stack(frame["feature"]), x)
    assert pq.read_schema(path).field("feature").type == pa.list_(pa.float32(), 3)
    parquet.write_table(folder / "values", values_table(), "f")
    assert list(pd.read_parquet(tmp_path / "features/values")["value"]) == [0.5, -0.5, 0.0]


def test_any_damage_to_a_file_is_one_line_that_names_it(folder):
    write_shard(folder, 0, [f"cat/{i}" for i in range(50)])
    file = folder / shard_name(0)
    content, rng, messages = file.read_bytes(), np.random.default_rng(0), []
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


def test_shards_are_read_in_the_order_of_the_manifest(folder):
    x = write_split(folder, ["cat/1", "cat/2"], ["dog/0"], ["dog/3", "dog/1"])
    found = read_split(folder)
    assert found.ids == ("cat/1", "cat/2", "dog/0", "dog/3", "dog/1")
    assert found.labels == ("cat", "cat", "dog", "dog", "dog")
    assert_array_equal(found.x, x)
    assert found.x.dtype == np.float32
    assert (found.backbone, found.fingerprint) == ("resnet18", "all")


def test_a_set_without_its_manifest_is_not_complete(folder):
    write_shard(folder, 0, ["cat/1"])
    assert not has_features(folder)
    with pytest.raises(ValueError, match=r"no complete set of features .* extract first"):
        read_split(folder)
    write_manifest(folder, "all", [shard_name(0)])
    assert has_features(folder)
    assert len(read_split(folder).ids) == 1


def test_a_shard_that_is_gone_is_named(folder):
    write_split(folder, ["cat/1"], ["cat/2"])
    (folder / shard_name(1)).delete()
    with pytest.raises(ValueError, match=r"part-00001.parquet: no such shard; extract again"):
        read_split(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"shards": 3, "fingerprint": ""}', b"\xff"]
)
def test_a_damaged_manifest_is_named(folder, content):
    write_split(folder, ["cat/1"])
    (folder / "_manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"_manifest.json: damaged; delete it"):
        read_split(folder)


def test_a_manifest_that_says_the_same_is_not_written_again(folder, tmp_path):
    write_split(folder, ["cat/1"])
    before = (tmp_path / "features/_manifest.json").stat()
    write_manifest(folder, "all", [shard_name(0)])
    assert (tmp_path / "features/_manifest.json").stat().st_ino == before.st_ino
    write_manifest(folder, "other", [shard_name(0)])
    assert json.loads((folder / "_manifest.json").read_bytes())["fingerprint"] == "other"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_with_file_and_image(folder, bad):
    write_split(folder, ["cat/1"], ["cat/2", "cat/3", "dog/4"])
    x = features(range(3))
    x[1, 2] = x[2, 0] = bad
    write_shard(folder, 1, ["cat/2", "cat/3", "dog/4"], x)
    with pytest.raises(ValueError, match=r"part-00001.parquet: 2 images .*the first cat/3"):
        read_split(folder)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ({"ids": ["cat/9"], "x": features("a", width=5)}, "width 5, those of the other shards 3"),
        ({"ids": ["cat/9"], "backbone": "alexnet"}, "come from alexnet, .* from resnet18"),
        ({"ids": ["cat/9"], "labels": ["dog"]}, "id cat/9 does not match its label dog"),
        ({"ids": ["cat/9"], "labels": [None]}, "empty cells"),
        ({"ids": ["cat/1"]}, "id cat/1 occurs more than once"),
    ],
)
def test_a_shard_that_does_not_fit_is_refused(folder, shard, message):
    write_split(folder, ["cat/1"], ["cat/2"])
    write_shard(folder, 1, **shard)
    with pytest.raises(ValueError, match=message) as error:
        read_split(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["label"]), "column label is missing"),
        (
            lambda t: t.set_column(2, "feature", pa.array([[1.0]], pa.list_(pa.float32()))),
            r"feature must be fixed_size_list<float32>, got list<",
        ),
        (
            lambda t: t.set_column(2, "feature", pa.array([[1.0]], pa.list_(pa.float64(), 1))),
            "feature must be fixed_size_list<float32>",
        ),
    ],
)
def test_a_table_that_is_no_shard_is_refused(folder, change, message):
    write_split(folder, ["cat/1"])
    file = folder / shard_name(0)
    parquet.write_table(file, change(parquet.read_table(file)), "f")
    with pytest.raises(ValueError, match=f"part-00000.parquet: {message}"):
        read_split(folder)


def test_two_splits_must_come_from_one_backbone():
    def split(backbone, width):
        return Features(("cat/1",), ("cat",), features("a", width=width), backbone, "")

    check_same_features(split("alexnet", 3), split("alexnet", 3), ("train", "val"))
    with pytest.raises(ValueError, match=r"train and val .* same width, got 3 and 5"):
        check_same_features(split("alexnet", 3), split("alexnet", 5), ("train", "val"))
    with pytest.raises(ValueError, match=r"same backbone, got alexnet and resnet18"):
        check_same_features(split("alexnet", 3), split("resnet18", 3), ("train", "val"))


@pytest.mark.parametrize("ids", [["a", "b"], ["b", "a", "c"], ["a", "b", "d"]])
def test_values_of_other_images_are_refused(folder, ids):
    check_ids(folder, ["a", "b", "c"], ["a", "b", "c"])
    with pytest.raises(ValueError, match=rf"ids do not match .* \({len(ids)} there, 3 now\)"):
        check_ids(folder, ids, ["a", "b", "c"])


def test_class_numbers_follow_the_classes_and_name_unknown_ones(folder):
    assert_array_equal(class_numbers(["dog", "cat"], ["cat", "dog"], folder), [1, 0])
    with pytest.raises(ValueError, match="class cow, eel does not occur in train"):
        class_numbers(["eel", "cat", "cow"], ["cat"], folder)


def test_the_undecided_are_kept():
    assert_array_equal(kept_mask(values_table()), [True, False, True])
    kept = kept_table(values_table())
    assert kept.schema.equals(schemas.KEPT)
    assert kept["id"].to_pylist() == ["cat/0", "cat/2"]


def test_one_flipped_bit_in_a_page_is_noticed(tmp_path):
    file = Location(str(tmp_path / "x.parquet"))
    x = np.random.default_rng(0).normal(size=500)
    parquet.write_table(file, pa.table({"x": x}), "made")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"x\.parquet: not a readable Parquet file"):
        parquet.read_table(file)
