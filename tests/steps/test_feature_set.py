"""The features of a run: known by their manifests, read when used, and once."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.config import ValueConfig
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.feature_set import check_clean, read_points
from dcai_ray.storage import features, parquet
from dcai_ray.storage.features import shard_name, write_split
from dcai_ray.storage.location import Location


@pytest.fixture
def run(tmp_path):
    return RunDirectory(Location(str(tmp_path / "run")))


def write_features(run, split, labels, *, width=3, backbone="resnet18"):
    x = np.arange(len(labels) * width, dtype=np.float32).reshape(-1, width)
    ids = [f"{label}/{i}" for i, label in enumerate(labels)]
    folder, notes = run.features / split, {"backbone": backbone}
    write_split(folder, ids, labels, x, notes, f"all of {split}")
    return x


@pytest.fixture
def reads(monkeypatch):
    """The shards that are read."""
    found = []

    def read(shard):
        found.append(shard)
        return parquet.read_table(shard)

    monkeypatch.setattr(features, "read_table", read)
    return found


def test_the_fingerprint_is_known_before_any_shard_is_read(run, reads):
    write_features(run, "train", ["dog", "cat"])
    alone = read_points(run).fingerprint
    write_features(run, "shapley_val", ["cat"])
    with_clean = read_points(run).fingerprint
    write_features(run, "val", ["dog"])
    with_val = read_points(run, with_val=True).fingerprint
    assert len({alone, with_clean, with_val}) == 3
    assert read_points(run).fingerprint == with_clean
    assert reads == []


def test_each_split_is_read_once_and_only_if_it_is_used(run, reads):
    x = write_features(run, "train", ["dog", "cat"])
    write_features(run, "shapley_val", ["cat"])
    write_features(run, "val", ["dog"])
    points = read_points(run, with_val=True)
    for _ in range(2):
        assert_array_equal(points.train.x, x)
        assert_array_equal(points.train.y, [1, 0])
        assert (points.classes, points.ids) == (("cat", "dog"), ("dog/0", "cat/1"))
        assert_array_equal(points.val.y, [1])
    assert reads == [run.features / split / shard_name(0) for split in ("train", "val")]


def test_without_a_shapley_val_there_are_no_clean_points_and_valuing_by_them_is_refused(run):
    write_features(run, "train", ["dog", "cat"])
    points = read_points(run)
    assert (points.clean.x.shape, points.clean.y.shape) == ((0, 3), (0,))
    with pytest.raises(ValueError, match=r"no features of shapley_val .* --validation self"):
        check_clean(run, points, "exact")


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["cow"], {}, "class cow does not occur in train"),
        (["cat"], {"width": 4}, "train and val must have the same width"),
        (["cat"], {"backbone": "alexnet"}, "train and val must have the same backbone"),
    ],
)
def test_a_split_that_does_not_fit_train_is_refused(run, labels, options, message):
    write_features(run, "train", ["dog", "cat"])
    write_features(run, "val", labels, **options)
    points = read_points(run, with_val=True)
    with pytest.raises(ValueError, match=message):
        _ = points.val


def test_training_images_of_one_class_are_refused(run):
    write_features(run, "train", ["cat", "cat"])
    with pytest.raises(ValueError, match=r"train: only one class \(cat\); at least two"):
        _ = read_points(run).train


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_that_was_not_extracted_is_named(run, split):
    write_features(run, "val" if split == "train" else "train", ["dog", "cat"])
    with pytest.raises(ValueError, match=rf"features/{split}: no complete set of features"):
        read_points(run, with_val=True)


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        ("exact", {"method": "exact", "validation": "self"}),
        ("sample", {"method": "exact", "validation": "self"}),
    ],
)
def test_advice_for_a_run_without_clean_images_leads_somewhere(run, method, advice):
    write_features(run, "train", ["dog", "cat"])
    points = read_points(run)
    flags = " ".join(f"--{name} {value}" for name, value in advice.items())
    said = flags if method == "sample" else flags.partition(" --")[2]
    with pytest.raises(UserError, match=said):
        check_clean(run, points, method)
    assert ValueConfig(**advice).chosen_rule == "doubted"  # such settings are accepted
