import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dcai_ray.config import parse_config
from dcai_ray.images.demo_digits import SETTINGS, write_digits
from dcai_ray.images.folders import list_splits
from dcai_ray.images.truth import read_truth
from dcai_ray.storage.location import Location
from tests.support.image_sets import image_set


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "digits"
    write_digits(Location(str(root)))
    return root


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes_and_another_does_not(demo, tmp_path):
    write_digits(Location(str(tmp_path / "again")))
    assert contents(tmp_path / "again") == contents(demo)
    write_digits(Location(str(tmp_path / "other")), seed=1)
    assert contents(tmp_path / "other").keys() != contents(demo).keys()


def test_every_digit_is_there_once(demo):
    numbers = [int(path.stem) for path in demo.rglob("*.png")]
    assert sorted(numbers) == list(range(1797))  # as many as scikit-learn has


def test_it_is_an_image_folder_of_ten_classes_with_nothing_to_remark(demo):
    listing = list_splits(Location(str(demo)))
    assert listing.classes == tuple("0123456789")
    assert listing.notes == ()
    assert Counter(image.split for image in listing.images) == {
        "train": 1000,
        "shapley_val": 300,
        "val": 497,
    }


def test_the_validation_splits_have_the_labels_of_scikit_learn(demo):
    target = load_digits().target
    for split in ("shapley_val", "val"):
        for path in (demo / split).rglob("*.png"):
            assert path.parent.name == str(target[int(path.stem)])


def test_exactly_three_in_ten_training_labels_are_wrong_and_the_truth_says_which(demo):
    target = load_digits().target
    rows = list(csv.DictReader(io.StringIO((demo / "truth.csv").read_text())))
    assert len(rows) == 1000
    for row in rows:
        assert row["true_label"] == str(target[int(Path(row["path"]).stem)])
        assert row["path"].split("/")[:2] == ["train", row["label"]]
        assert (demo / row["path"]).is_file()
    assert sum(row["label"] != row["true_label"] for row in rows) == 300
    train = list_splits(Location(str(demo))).split("train")
    truth = read_truth(image_set(demo, [i.path for i in train], [i.label for i in train]))
    assert truth.wrong.sum() == 300
    assert truth.known.all()


def test_wrong_labels_come_in_pairs_that_people_confuse(demo):
    rows = list(csv.DictReader(io.StringIO((demo / "truth.csv").read_text())))
    wrong = Counter((r["true_label"], r["label"]) for r in rows if r["label"] != r["true_label"])
    assert {frozenset(pair) for pair in wrong} == {
        frozenset(pair) for pair in ("06", "17", "23", "49", "58")
    }
    assert len(wrong) == 10  # both ways


def test_the_pictures_show_the_digits_they_are_named_after(demo):
    digits = load_digits().data
    digits = digits - digits.mean(axis=1, keepdims=True)
    digits /= np.linalg.norm(digits, axis=1, keepdims=True)
    for path in sorted(demo.rglob("*.png"))[::25]:
        shown = np.asarray(Image.open(path), dtype=float)
        assert shown.shape == (64, 64)
        small = shown.reshape(8, 8, 8, 8).mean(axis=(1, 3))  # averages 8 x 8 px a pixel
        assert int(np.argmax(digits @ (small - small.mean()).ravel())) == int(path.stem)


def test_an_interrupted_set_has_no_truth_so_that_it_is_not_taken_for_complete(
    tmp_path, monkeypatch
):
    written = []

    def write(location, content):
        if len(written) == 50:
            raise KeyboardInterrupt
        written.append(location.name)

    monkeypatch.setattr(Location, "write_bytes", write)
    with pytest.raises(KeyboardInterrupt):
        write_digits(Location(str(tmp_path / "digits")))
    assert "truth.csv" not in written
    monkeypatch.setattr(Location, "write_bytes", lambda location, _: written.append(location.name))
    write_digits(Location(str(tmp_path / "digits")))
    assert written[-1] == "truth.csv"
    assert written.count("truth.csv") == 1


def test_its_settings_are_settings():
    settings = parse_config(SETTINGS, "demo")
    assert settings.finetune.backbones == (settings.extract.backbone,) == ("efficientnet_lite0",)
