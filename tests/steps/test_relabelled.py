"""The arm `relabelled` in step 3: which images are learnt, and with which labels."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.cleaning.probes import probe_scores
from dcai_ray.config import Config, FinetuneConfig, RetrainConfig
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import probing, training
from dcai_ray.storage import parquet
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location
from dcai_ray.storage.values import Estimates, kept_table, values_table
from tests.support import in_process
from tests.support.image_sets import image_set

CLASSES = ("cat", "dog", "fox")
GIVEN = ["cat"] * 6 + ["dog"] * 2 + ["fox"] + ["cat"] * 6 + ["dog"] * 3  # nine are kept
DROPPED = np.arange(18) >= 9
SUGGESTED = [*GIVEN[:9], *["dog"] * 6, *["cat"] * 3]
PROBABILITY = [0.9] * 15 + [0.6] * 3
RELABELLED = GIVEN[:9] + ["dog"] * 6  # what remains and how it is labelled
IDS = [f"{label}/{i:02d}.png" for i, label in enumerate(GIVEN)]


def write_values(run, suggested=SUGGESTED, probability=PROBABILITY):
    n = len(GIVEN)
    decision = np.where(DROPPED, "drop", "keep")
    estimates = Estimates.exact(id=IDS, label=GIVEN, value=np.zeros(n), decision=decision)
    further = {"suggested_label": suggested, "suggested_probability": probability}
    if probability is None:
        del further["suggested_probability"]
    table = values_table(estimates, further=further)
    made = parquet.new_fingerprint(suggested, probability)
    parquet.write_table(run.values, table, made)
    parquet.write_table(run.kept, kept_table(table), made)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(Location(str(tmp_path / "run")))
    write_values(run)
    return run


def features(run):
    """One feature per class; labels 9 to 14 are wrong, 15 to 17 right."""
    rng = np.random.default_rng(0)
    splits = {"train": (IDS, GIVEN, RELABELLED + GIVEN[15:])}
    for split in ("shapley_val", "val"):
        labels = [*CLASSES] * 7
        splits[split] = ([f"{i}" for i in range(21)], labels, labels)
    arrays = {}
    for split, (ids, labels, true) in splits.items():
        x = np.eye(3)[[CLASSES.index(label) for label in true]]
        x = np.float32(4 * x + rng.standard_normal(x.shape))
        write_split(run.features / split, ids, labels, x, {}, f"made {split}")
        arrays[split] = x, np.array([CLASSES.index(label) for label in labels])
    return arrays


@pytest.mark.parametrize(
    ("above", "labels"), [(0.8, RELABELLED), (0.5, [*RELABELLED, "cat", "cat", "cat"])]
)
def test_probes_learn_the_new_labels(run, monkeypatch, above, labels):
    in_process.patch(monkeypatch)
    arrays = features(run)
    config = Config(retrain=RetrainConfig(probe_seeds=2, relabel_above=above))
    probing.score_probes(run, config, None)
    rows = parquet.read_table(run.probes).to_pylist()
    y = np.array([CLASSES.index(label) for label in labels])
    for name in ("logistic", "10-nn"):
        mine = [r for r in rows if r["arm"] == "relabelled" and r["probe"] == name]
        assert [row["seed"] for row in mine] == [0, 1]
        scores = probe_scores(name, arrays["train"][0][: len(y)], y, *arrays["val"], 3)
        for row in mine:
            assert row["images"] == len(y)
            assert {key: row[key] for key in scores} == scores
    sizes = {row["arm"]: row["images"] for row in rows}
    kept = {"all": 18, "kept": 9, "random": 9, "clean": 21, "kept+clean": 30}
    assert sizes == kept | {"relabelled": len(y)}


@pytest.mark.parametrize("probability", [None, [0.1] * 18, [None] * 18])
def test_there_is_no_such_arm_where_no_label_is_likely(run, monkeypatch, probability):
    in_process.patch(monkeypatch)
    features(run)
    write_values(run, probability=probability)
    probing.score_probes(run, Config(), None)
    arms = {row["arm"] for row in parquet.read_table(run.probes).to_pylist()}
    assert arms == {"all", "kept", "random", "clean", "kept+clean"}


@pytest.fixture
def trained(run, tmp_path, monkeypatch):
    """A function that gives the trainings of step 3, by arm and seed."""
    paths = [f"train/{name}" for name in IDS]
    paths += [f"{split}/{label}/0.png" for split in ("shapley_val", "val") for label in CLASSES]
    images = image_set(tmp_path, paths, [*GIVEN, *CLASSES, *CLASSES])
    found = []

    def taken(function, jobs, step, resources):
        found.extend(jobs)
        row = {"epoch": 1, "split": "val", "loss": 1.0, "accuracy": 0.5, "auroc": 0.5}
        return [[row] for _ in jobs]

    monkeypatch.setattr(training, "run_tasks", taken)

    def jobs(above=0.8):
        found.clear()
        recipe = FinetuneConfig(
            backbones=("squeezenet1_0",), seeds=(0, 1), weights="none", size_px=32
        )
        config = Config(finetune=recipe, retrain=RetrainConfig(relabel_above=above))
        training.retrain_networks(run, images, config, None)
        return {(job.arm, job.seed): job for job in found}

    return jobs


def test_networks_learn_the_new_labels(run, trained):
    jobs = trained()
    for seed in (0, 1):
        files, targets = jobs["relabelled", seed].train
        assert [file.path for file in files] == [f"train/{name}" for name in IDS[:15]]
        assert_array_equal(targets, [CLASSES.index(label) for label in RELABELLED])
        assert_array_equal(jobs["kept", seed].train[1], [0] * 6 + [1, 1, 2])
    assert {arm for arm, _ in jobs} == {"kept", "relabelled", "random", "clean", "kept+clean"}
    images = run.record()["steps"]["cleaned"]["images"]
    assert images == {"kept": 9, "relabelled": 15, "random": 9, "clean": 3, "kept+clean": 12}


def test_other_labels_make_other_trainings_of_that_arm_alone(run, trained):
    before = trained()
    write_values(run, suggested=[*SUGGESTED[:14], "fox", *SUGGESTED[15:]])
    after = trained()
    for seed in (0, 1):
        assert after["relabelled", seed].train[0] == before["relabelled", seed].train[0]
    assert before.keys() == after.keys()
    differs = {key for key in before if before[key].fingerprint != after[key].fingerprint}
    assert differs == {("relabelled", 0), ("relabelled", 1)}
    assert "relabelled" not in {arm for arm, _ in trained(above=0.95)}
