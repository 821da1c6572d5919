"""Networks predict what they were not trained on; tasks run in this process."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2 as transforms

from dcai_ray.config import parse_config
from dcai_ray.errors import UserError
from dcai_ray.images.folders import list_folder, list_splits
from dcai_ray.networks.heads import classifier
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import out_of_fold, pipeline
from dcai_ray.steps.feature_set import read_points
from dcai_ray.steps.out_of_fold import _folds, predict_out_of_fold, read_predictions
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location
from tests.support import in_process
from tests.support.image_sets import image_set
from tests.support.small_runs import SETTINGS, files

FOLDS = 3
SIZE_PX = SETTINGS["finetune"]["size_px"]


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    in_process.patch(monkeypatch)


@pytest.fixture(scope="module")
def config():
    settings = SETTINGS | {"value": {"k": 3, "evidence": "finetune"}}
    return parse_config(
        settings | {"finetune": SETTINGS["finetune"] | {"folds": FOLDS, "epochs": 1}}, "test"
    )


@pytest.fixture(scope="module")
def run(small_data, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out-of-fold") / "run"
    directory = RunDirectory(Location(str(folder)))
    with pytest.MonkeyPatch.context() as patch:
        in_process.patch(patch)
        listing = list_splits(Location(str(small_data)))
        pipeline.run_pipeline(directory, listing, config, networks=False)
    return folder


def at(folder):
    return RunDirectory(Location(str(folder)))


def jobs_of(monkeypatch, tmp_path, images, config):
    """The trainings that are asked for; none is done."""
    found = []
    monkeypatch.setattr(out_of_fold, "train", lambda *arguments: found.extend(arguments[-1]))
    monkeypatch.setattr(out_of_fold, "run_tasks", lambda function, jobs, *_: map(uniform, jobs))
    predict_out_of_fold(at(tmp_path / "run"), images, config)
    return found


def uniform(job):
    return np.full((len(job.val[0]), len(job.classes)), 1 / len(job.classes))


def test_each_labelled_image_is_held_out_once_and_val_is_never_seen(monkeypatch, tmp_path, config):
    paths = [f"{split}/{label}/{i}" for split in ("train", "shapley_val", "val")
             for label in ("a", "b") for i in range(7)]  # fmt: skip
    images = image_set(tmp_path, paths, [path.split("/")[1] for path in paths])
    jobs = jobs_of(monkeypatch, tmp_path, images, config)
    labelled = {path for path in paths if not path.startswith("val/")}
    assert len(jobs) == FOLDS
    assert Counter(file.path for job in jobs for file in job.val[0]) == Counter(labelled)
    for job in jobs:
        learnt, held_out = ({file.path for file in part[0]} for part in (job.train, job.val))
        assert learnt == labelled - held_out
        assert job.seed == 0
        assert job.backbone == "squeezenet1_0"
    assert jobs_of(monkeypatch, tmp_path, images, config) == []  # they are up to date


def test_folds_have_equal_shares_of_each_class_and_copies_together():
    labels = ["a"] * 10 + ["b"] * 5 + ["c"] * 3
    images = image_set("/", [f"train/{i}" for i in range(18)], labels).images
    fold = _folds(images, 3, seed=0)
    for label in "abc":
        counts = np.bincount(fold[[name == label for name in labels]], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(fold, _folds(images, 3, seed=1))
    # One picture six times, under three labels.
    copies = (0, 5, 9, 10, 14, 17)
    same = [replace(im, sha256="x") if i in copies else im for i, im in enumerate(images)]
    together = _folds(same, 3, seed=0)
    assert len(set(together[list(copies)])) == 1
    assert_array_equal(np.unique(together), np.arange(3))


@pytest.mark.slow
def test_more_folds_than_different_images_are_refused():
    images = image_set("/", ["train/1", "train/2", "train/3"], ["a", "b", "b"]).images
    assert sorted(_folds(images, 3, seed=0)) == [0, 1, 2]
    same = [replace(images[0], label="b", id="4"), *images]
    with pytest.raises(UserError, match=r"finetune\.folds is 4, but there are only 3 different"):
        _folds(same, 4, seed=0)


def test_probabilities_are_those_of_the_network_of_the_fold(run, small_data, config):
    """By torchvision's own transforms and the weights in the files."""
    there = parquet.read_table(at(run).out_of_fold).to_pandas()
    assert Counter(there.split) == {"train": 30, "shapley_val": 30}
    p = np.stack(there.probability)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    transform = transforms.Compose(
        [
            transforms.Resize(SIZE_PX),
            transforms.CenterCrop(SIZE_PX),
            transforms.ToImage(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    pictures = torch.stack(
        [transform(Image.open(small_data / row.split / row.id)) for row in there.itertuples()]
    )
    chances = []
    for k in range(FOLDS):
        network = classifier("squeezenet1_0", 3, "none", SIZE_PX, seed=1).eval()
        network.load_state_dict(
            load_file(run / f"crossfit/model-fold-{k}-squeezenet1_0-0.safetensors")
        )
        with torch.inference_mode():
            chances.append(network(pictures).softmax(dim=1).numpy())
    # Which fold an image is in shows in whose probabilities it has: exactly one network's.
    errors = abs(np.stack(chances) - p).max(axis=2)
    fold = errors.argmin(axis=0)
    assert errors.min(axis=0).max() < 1e-6
    assert np.sort(errors, axis=0)[1].min() > 1e-5
    counts = pd.crosstab(fold, [row.id.split("/")[0] for row in there.itertuples()])
    assert counts.to_numpy().min() >= 6  # 20 of a class in 3 folds
    metrics = parquet.read_table(at(run).metrics("crossfit")).to_pandas()
    assert set(metrics.arm) == {f"fold-{k}" for k in range(FOLDS)}


@pytest.mark.slow
def test_they_are_a_piece_of_the_evidence(run, config):
    evidence = parquet.read_table(at(run).evidence).to_pandas().set_index("id")
    there = parquet.read_table(at(run).out_of_fold).to_pandas()
    there = there[there.split == "train"].set_index("id").loc[evidence.index]
    p = np.stack(there.probability)
    odds = np.log(p / (1 - p))
    own = np.array([["blue", "green", "red"]]) == evidence.label.to_numpy()[:, np.newaxis]
    by_hand = odds[own] - np.where(own, -np.inf, odds).max(axis=1)
    assert_allclose(evidence.finetuned, by_hand, rtol=1e-9)


@pytest.mark.slow
def test_the_same_again_changes_no_file_and_another_network_changes_the_values(
    run, small_data, config, monkeypatch
):
    before = files(run)
    listing = list_splits(Location(str(small_data)))
    pipeline.run_pipeline(at(run), listing, config, networks=False)
    assert files(run) == before
    other = replace(config, finetune=replace(config.finetune, epochs=2))
    with pytest.raises(UserError, match=r"finetune\.epochs: 1 in the run, 2 requested"):
        pipeline.run_pipeline(at(run), listing, other, networks=False)
    monkeypatch.setattr(out_of_fold, "FORMAT", out_of_fold.FORMAT + 1)
    pipeline.run_pipeline(at(run), listing, config, networks=False)
    changed = {name for name, entry in files(run).items() if entry != before.get(name)}
    assert {"crossfit/probabilities.parquet", "values/values.parquet"} <= changed
    assert not [name for name in changed if name.endswith(".safetensors")]


@pytest.mark.slow
def test_an_audit_has_them_without_clean_images(small_data, config, tmp_path):
    config = replace(config, value=replace(config.value, validation="self"))
    run = at(tmp_path / "run")
    pipeline.run_audit(run, list_folder(Location(str(small_data))), config)
    (predicted,) = read_predictions(read_points(run), config, of_clean=False)
    assert predicted.name == "finetuned"
    assert predicted.train.shape == (30, 3)
    assert predicted.clean is None
    assert "finetuned" in parquet.read_table(run.evidence).column_names


@pytest.mark.slow
def test_without_them_one_line_says_what_makes_them(small_data, config, tmp_path):
    run = at(tmp_path / "run")
    without = replace(config, value=replace(config.value, evidence="features"))
    pipeline.run_pipeline(run, list_splits(Location(str(small_data))), without, networks=False)
    assert not run.out_of_fold.exists()
    with pytest.raises(UserError, match=r"crossfit/probabilities\.parquet: no such file; with"):
        read_predictions(read_points(run), config, of_clean=True)
