"""Copies under other labels, from the files or the features to the table, summary and report."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dcai_ray.config import Config
from dcai_ray.images.image_set import image_table
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.conflicts import near_in_val
from dcai_ray.steps.feature_set import read_points
from dcai_ray.storage import parquet
from dcai_ray.storage.features import read_split, write_split
from dcai_ray.storage.location import Location
from tests.support import in_process
from tests.support.image_sets import image_set
from tests.support.small_runs import done, files

BLUE_COPY, RED_COPY = "blue/90.png", "red/91.png"
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def data(small_data, tmp_path_factory):
    """The small pictures, with one of train and one of shapley_val in train under another label."""
    data = shutil.copytree(small_data, tmp_path_factory.mktemp("copies") / "data")
    shutil.copy(data / "train/red/05.png", data / "train" / BLUE_COPY)
    shutil.copy(data / "shapley_val/green/01.png", data / "train" / RED_COPY)
    shutil.copy(data / "train/red/06.png", data / "train/red/92.png")  # the same label: no conflict
    return data


def test_equal_files_under_other_labels_are_named_decided_and_shown_first(
    data, small_settings, tmp_path, ray_cluster, capsys
):
    run = tmp_path / "run"
    arguments = ("run", "--data", data, "--run", run, "--config", small_settings, "--no-finetune")
    done(*arguments)
    values = pd.read_parquet(run / "values/values.parquet").set_index("id")
    conflict = values.conflict.dropna()
    assert conflict.to_dict() == {
        BLUE_COPY: "same picture as train/red/05.png, labelled red",
        "red/05.png": f"same picture as train/{BLUE_COPY}, labelled blue",
        RED_COPY: "same picture as shapley_val/green/01.png, labelled green",
    }
    assert values.decision[RED_COPY] == "drop"
    assert values.reason[RED_COPY] == "clean copy is labelled green"
    assert values.suggested_label[RED_COPY] == "green"
    assert values.suggested_probability[RED_COPY] == 1
    assert "relabelled" in set(pd.read_parquet(run / "cleaned/probes.parquet").arm)
    # Either the evidence knows which of the two is wrong, or both are undecided.
    pair = {values.decision[BLUE_COPY], values.decision["red/05.png"]}
    assert pair in ({"undecided"}, {"keep", "drop"})
    said = (run / "run.log").read_text()  # on the terminal, warnings may leave no room for it
    assert "3 training images have a copy with another label (column conflict of values." in said
    assert "suspects (all in suspects.csv)" in capsys.readouterr().out
    page = (run / "report.html").read_text()
    shown = [page.index(f'<span class="path">train/{name}</span>') for name in values.index]
    assert set(values.index[np.argsort(shown)[:3]]) == set(conflict.index)
    assert conflict[RED_COPY] in page
    before = files(run)
    done(*arguments)
    assert files(run) == before


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """150 training images of which two are near copies, one of a clean image, under other labels;
    60 clean ones."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    centres = 2 * rng.standard_normal((3, 32))
    for split, count in (("train", 150), ("shapley_val", 60)):
        y = np.arange(count) % 3
        x = centres[y] + rng.standard_normal((count, 32))
        if split == "train":
            x[10] = x[3] + 0.05 * rng.standard_normal(32)  # class 1 and class 0
            clean = x[5] + 0.05 * rng.standard_normal(32)  # class 2
        else:
            x[4] = clean  # class 1
        labels = [f"class{c}" for c in y]
        ids = [f"{i:03d}" for i in range(count)]
        write_split(Location(str(folder)) / split, ids, labels, np.float32(x), {}, f"made {split}")
    return folder


NEARLY = {
    "003": "nearly the same picture as train/010, labelled class1",
    "005": "nearly the same picture as shapley_val/004, labelled class1",
    "010": "nearly the same picture as train/003, labelled class0",
}


def valued(features, run, *flags):
    done("value", "--features", features, "--run", run, *flags)
    return pd.read_parquet(run / "values/values.parquet").set_index("id")


def test_features_alone_show_near_copies(features, tmp_path, ray_cluster, capsys):
    values = valued(features, tmp_path / "run")
    leak = "train/005 = shapley_val/004"
    said = "1 image occurs nearly the same in train and in shapley_val, such as "
    assert said + leak in capsys.readouterr().err
    record = json.loads((tmp_path / "run/run.json").read_text())["steps"]["values"]
    assert record["near_copies_across_splits"] == [leak]
    assert values.conflict.dropna().to_dict() == NEARLY
    assert values.decision["005"] == "drop"
    assert values.reason["005"] == "clean copy is labelled class1"


def test_a_literal_rule_names_them_and_keeps_its_decisions(features, tmp_path, ray_cluster):
    values = valued(features, tmp_path / "run", "--rule", "zero")
    assert values.conflict.dropna().to_dict() == NEARLY
    assert (values.decision == np.where(values.value > 0, "keep", "drop")).all()


def test_what_is_no_clean_set_refutes_nothing(features, tmp_path, ray_cluster):
    values = valued(features, tmp_path / "run", "--validation", "self")
    assert values.conflict.dropna().to_dict() == {i: NEARLY[i] for i in ("003", "010")}


def test_sampled_values_have_them_too(features, tmp_path, ray_cluster):
    sampling = ("--method", "sample", "--stop", "rounds", "--rounds", 64)
    values = valued(features, tmp_path / "run", *sampling)
    assert values.conflict.dropna().to_dict() == NEARLY
    assert values.decision["005"] == "drop"


def test_without_a_second_opinion_only_clean_images_are_compared_with(
    features, tmp_path, ray_cluster
):
    values = valued(features, tmp_path / "run", "--second-opinion-up-to", 0)
    assert values.conflict.dropna().to_dict() == {"005": NEARLY["005"]}


def test_near_copies_in_val_are_named_and_those_known_by_their_pixels_are_not(
    features, tmp_path, monkeypatch
):
    in_process.patch(monkeypatch)
    folder = shutil.copytree(features, tmp_path / "features")
    train = read_split(Location(str(folder / "train")))
    x = np.concatenate([np.random.default_rng(1).standard_normal((20, 32)), train.x[[7, 9]] + 0.01])
    ids = [f"{i:03d}" for i in range(22)]
    write_split(
        Location(str(folder / "val")), ids, list(train.labels[:22]), np.float32(x), {}, "made val"
    )
    run = RunDirectory(Location(str(tmp_path)), Location(str(folder)))
    points = read_points(run, with_val=True)
    assert near_in_val(points, Config()) == ["train/007 = val/020", "train/009 = val/021"]
    images = image_set(tmp_path, ["train/007", "val/020"], ["a", "b"]).images
    parquet.write_table(
        run.images, image_table([replace(image, pixels="same") for image in images]), "made"
    )
    assert near_in_val(points, Config()) == ["train/009 = val/021"]
