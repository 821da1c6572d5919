"""Shards of features: read in order, complete or refused."""

import json

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.storage import parquet
from dcai_ray.storage.features import (
    Features,
    check_same_features,
    class_numbers,
    feature_table,
    has_features,
    is_complete,
    open_split,
    read_split,
    shard_name,
    write_manifest,
)
from dcai_ray.storage.location import Location


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
    (folder.parent / "_features.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"_features.json: damaged; delete it"):
        read_split(folder)


def test_a_manifest_that_says_the_same_is_not_written_again(folder, tmp_path):
    write_split(folder, ["cat/1"])
    before = (tmp_path / "_features.json").stat()
    write_manifest(folder, "all", [shard_name(0)])
    assert (tmp_path / "_features.json").stat().st_ino == before.st_ino
    write_manifest(folder, "other", [shard_name(0)])
    assert json.loads((folder.parent / "_features.json").read_bytes())["fingerprint"] == "other"


def test_a_split_is_complete_while_its_manifest_and_the_sizes_of_its_shards_say_so(folder):
    write_split(folder, ["cat/1"], ["cat/2"])
    assert is_complete(folder, "all")
    assert not is_complete(folder, "other")
    shard = folder / shard_name(1)
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert not is_complete(folder, "all")
    shard.delete()
    assert not is_complete(folder, "all")
    shard.write_bytes(content)
    assert is_complete(folder, "all")


def test_a_manifest_that_records_no_sizes_vouches_for_nothing(folder):
    write_split(folder, ["cat/1"])
    manifest = {"fingerprint": "all", "shards": [shard_name(0)]}
    (folder.parent / "_features.json").write_bytes(json.dumps(manifest).encode())
    assert not is_complete(folder, "all")
    assert read_split(folder).ids == ("cat/1",)


def test_before_other_shards_are_written_the_manifest_of_the_old_ones_goes(folder):
    write_split(folder, ["cat/1"])
    open_split(folder, "all")
    assert is_complete(folder, "all")
    for content in (None, b"damaged"):
        if content:
            (folder.parent / "_features.json").write_bytes(content)
            assert not is_complete(folder, "all")
        open_split(folder, "other")
        assert not (folder.parent / "_features.json").exists()


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


def test_class_numbers_follow_the_classes_and_name_unknown_ones(folder):
    assert_array_equal(class_numbers(["dog", "cat"], ["cat", "dog"], folder), [1, 0])
    with pytest.raises(ValueError, match="class cow, eel does not occur in train"):
        class_numbers(["eel", "cat", "cow"], ["cat"], folder)
