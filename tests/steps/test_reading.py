"""What is said and recorded when images are opened, and what later tasks are told of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dcai_ray.config import Config, ExtractConfig
from dcai_ray.images.folders import list_splits
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.extraction import extract_features
from dcai_ray.steps.reading import read_images
from dcai_ray.storage.location import Location
from tests.support import in_process

RAMP = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)


@pytest.fixture
def folder(tmp_path):
    """Four different pictures per class and split."""
    rng = np.random.default_rng(0)
    for split in ("train", "shapley_val", "val"):
        for label in ("cat", "dog"):
            place = tmp_path / "data" / split / label
            place.mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path, monkeypatch):
    in_process.patch(monkeypatch)
    return RunDirectory(Location(str(tmp_path / "run")))


def read(run, folder):
    return read_images(run, list_splits(Location(str(folder))), Config())


def test_one_scale_is_chosen_for_the_set_and_reaches_the_tasks(folder, run, monkeypatch, capsys):
    for split in ("train", "shapley_val", "val"):
        for label in ("cat", "dog"):
            for i in range(4):
                bright = Image.fromarray(RAMP * 200)
                bright.save(folder / split / label / f"{i}.tiff")
    Image.fromarray(RAMP * np.float32(0.9)).save(folder / "train/cat/0.tiff")
    images = read(run, folder)
    said = capsys.readouterr().err
    assert "24 images with more than 8 bits of grey: 255 is shown as white" in said
    white = {image.path: image.white for image in images.images}
    assert white["train/cat/0.tiff"] == white["val/dog/3.tiff"] == 255
    assert white["train/cat/0.png"] == 0
    record = json.loads((run.location / "run.json").read_bytes())["steps"]["images"]
    assert record["deep_greys_show_as_white"] == [255.0]
    jobs = []
    monkeypatch.setattr(
        "dcai_ray.steps.extraction.run_tasks", lambda _, given, *rest: jobs.extend(given) or []
    )
    config = replace(Config(), extract=ExtractConfig(backbone="resnet18", weights="none"))
    extract_features(run, images, config)
    scaled = {file.path: file.white for file in jobs[0].files}
    assert scaled == {path: 255.0 if path.endswith("tiff") else 0.0 for path in scaled}
    assert sum(map(bool, scaled.values())) == 8
    again = read(run, folder)  # from the table
    assert again.images == images.images


def test_placeholders_leaks_and_blanks_are_named_first(folder, run, capsys):
    placeholder = Image.open(folder / "train/cat/0.png")
    placeholder.save(folder / "train/dog/0.bmp")
    Image.open(folder / "train/dog/1.png").save(folder / "val/dog/1.webp", lossless=True)
    Image.new("RGB", (8, 8), "red").save(folder / "train/cat/2.png")
    read(run, folder)
    said = capsys.readouterr().err
    first, second, third = (
        said.index("1 image occurs under more than one label"),
        said.index("1 image occurs in more than one split"),
        said.index("1 image is blank (one colour only)"),
    )
    assert first < second < third
    assert "train/cat/0.png = train/dog/0.bmp" in said
    assert "train/dog/1.png = val/dog/1.webp" in said
    record = json.loads((run.location / "run.json").read_bytes())["steps"]["images"]
    assert record["blanks"] == ["train/cat/2.png"]
    assert record["duplicates_in_train"] == ["train/cat/0.png = train/dog/0.bmp"]
