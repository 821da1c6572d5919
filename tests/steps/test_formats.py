"""A step whose format number is raised runs again, and so do those after it; all others stay.

Tasks run in this process, features are noise and networks are not trained: what is tested is which
steps take their files for out of date.
"""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from dcai_ray.config import parse_config
from dcai_ray.images.folders import list_splits
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import pipeline, sampling_session, tasks
from dcai_ray.storage import parquet
from dcai_ray.storage.features import feature_table, read_manifest, write_manifest
from dcai_ray.storage.location import Location
from dcai_ray.valuation.blocks import run_block
from tests.support import in_process
from tests.support.small_runs import SETTINGS

READING, EXTRACTION = "reading images", "extracting features"
BASELINE, CLEANED = "fine-tuning baseline", "fine-tuning cleaned"
BY_CLEAN, BY_SELF = "valuing by shapley_val", "valuing by the training set (leave-one-out)"
SAMPLING = "sampling"
COMPARED = "comparing labels as a whole"
PROBES = {"probes on features", "removing by value", COMPARED}
PROBE, COPIES = "leave-one-out probe", "looking for near copies"
# Too few clean images to choose how many to drop; labels of noise are looked at as a whole.
VALUES = {PROBE, BY_CLEAN, BY_SELF, COPIES, COMPARED}


def write_noise(job, tick):
    rng = np.random.default_rng([len(job.ids), *job.name.encode()])
    x = rng.normal(size=(len(job.ids), 3)).astype(np.float32)
    parquet.write_table(
        job.target, feature_table(job.ids, job.labels, x, job.notes), job.fingerprint
    )
    return len(x)


def train_nothing(job, tick):
    return [{"epoch": 1, "split": "val", "loss": 1.0, "accuracy": 0.5, "auroc": 0.5}]


@pytest.fixture(scope="module")
def config():
    return parse_config(SETTINGS, "test")


@pytest.fixture(scope="module")
def ran():
    """The names of the steps that had something to do, in this process rather than on Ray."""
    found = []

    def run_tasks(function, jobs, step, resources):
        if jobs:
            found.append(step.name)
        return in_process.run_tasks(function, jobs, step, resources)

    def one_after_the_other(plan, utility, aggregator, resources, after):
        found.append(SAMPLING)
        while not aggregator.done:
            index = aggregator.next_index
            for chain in range(len(aggregator.chains)):
                aggregator.add(run_block(plan, utility, chain, index))

    with pytest.MonkeyPatch.context() as patch:
        in_process.patch(patch, run_tasks)
        patch.setattr(tasks, "extract_shard", write_noise)
        patch.setattr(tasks, "finetune_network", train_nothing)
        patch.setattr(sampling_session, "stream_chains", one_after_the_other)
        patch.setattr(sampling_session.metrics, "sampling", lambda *_: nullcontext())
        yield found


@pytest.fixture(scope="module")
def finished(small_data, config, ran, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats") / "run"
    pipeline.run_pipeline(at(folder), listing(small_data), config, networks=True)
    assert set(ran) == {READING, BASELINE, EXTRACTION, *VALUES, *PROBES, CLEANED}
    return folder


def at(folder):
    return RunDirectory(Location(str(folder)))


def listing(data):
    return list_splits(Location(str(data)))


def raise_format(monkeypatch, step):
    module = import_module(f"dcai_ray.steps.{step}")
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)


@pytest.mark.parametrize(
    ("step", "again"),
    [
        ("reading", {READING, BASELINE, EXTRACTION, *VALUES, *PROBES, CLEANED}),
        ("training", {BASELINE, CLEANED}),
        # The networks of step 3 depend on what is kept, and that does not change here.
        ("extraction", {EXTRACTION, *VALUES, *PROBES}),
        ("exact_values", {*VALUES, *PROBES}),
        ("evidence", {*VALUES, *PROBES}),
        ("dropping", {*PROBES, COPIES}),  # what is known about the labels stays
        ("probing", {*PROBES, COPIES}),
        ("sampled_values", set()),
        ("sampling_session", set()),
    ],
)
def test_a_raised_format_makes_its_step_and_those_after_it_run_again(
    finished, small_data, config, ran, step, again, monkeypatch, tmp_path, capsys
):
    run = at(shutil.copytree(finished, tmp_path / "run"))
    raise_format(monkeypatch, step)
    ran.clear()
    pipeline.run_pipeline(run, listing(small_data), config, networks=True)
    assert set(ran) == again
    said = capsys.readouterr().err
    assert ("out of date" in said or "the decoding of images has changed" in said) == bool(again)
    ran.clear()
    pipeline.run_pipeline(run, listing(small_data), config, networks=True)
    assert ran == []


@pytest.fixture(scope="module")
def sampled_once(finished, config, ran, tmp_path_factory):
    """A run of values sampled from extracted features, and the settings of that."""
    value = replace(config.value, method="sample", rule="zero")
    settings = replace(
        config, value=value, sample=replace(config.sample, stop=("rounds",), rounds=64)
    )
    folder = tmp_path_factory.mktemp("sampled")
    shutil.copytree(finished / "features", folder / "features")
    ran.clear()
    run = RunDirectory(Location(str(folder / "run")), Location(str(folder / "features")))
    pipeline.run_valuation(run, settings)
    assert set(ran) == {SAMPLING, *VALUES}
    return run, settings


@pytest.fixture
def sampled(sampled_once, ran, tmp_path):
    """A copy of that run, to be spoiled, and the settings; a run knows where its features are, so
    these are the same, and what is done to their manifest is undone."""
    run, settings = sampled_once
    manifest = run.features / "_train.json"
    content = manifest.read_bytes()
    copy = shutil.copytree(str(run.location), tmp_path / "sampled")
    ran.clear()
    yield RunDirectory(Location(str(copy)), run.features), settings
    manifest.write_bytes(content)


@pytest.mark.parametrize(
    ("step", "again"),
    [
        ("sampling_session", {SAMPLING, *VALUES}),
        ("sampled_values", VALUES),
        ("dropping", VALUES),
        ("evidence", VALUES),
        ("exact_values", VALUES),
        ("extraction", set()),
    ],
)
def test_a_raised_format_of_sampling_makes_it_start_anew_and_others_do_not(
    sampled, ran, step, again, monkeypatch, capsys
):
    run, settings = sampled
    before = run.values.read_bytes()
    raise_format(monkeypatch, step)
    pipeline.run_valuation(run, settings)
    assert set(ran) == again
    said = capsys.readouterr().err
    assert ("sampling starts anew" in said) == (SAMPLING in again)
    assert ("out of date" in said) == bool(again)
    assert (run.values.read_bytes() != before) == bool(again)
    ran.clear()
    pipeline.run_valuation(run, settings)
    assert ran == []


def test_sampling_starts_anew_from_features_that_were_extracted_again(sampled, ran, capsys):
    run, settings = sampled
    manifest = read_manifest(run.features / "train")
    write_manifest(run.features / "train", "other", [shard.name for shard in manifest.shards])
    pipeline.run_valuation(run, settings)
    assert set(ran) == {SAMPLING, *VALUES}
    assert "checkpoints are of other features" in capsys.readouterr().err


def test_a_step_called_from_python_refuses_a_run_of_other_settings(
    finished, small_data, config, ran
):
    other = replace(config, value=replace(config.value, k=4))
    ran.clear()
    with pytest.raises(ValueError, match=r"value\.k: 3 in the run, 4 requested"):
        pipeline.run_valuation(at(finished), other)
    with pytest.raises(ValueError, match=r"value\.k: 3 in the run, 4 requested"):
        pipeline.run_pipeline(at(finished), listing(small_data), other, networks=False)
    assert ran == []


def test_probes_alone_know_the_truth_that_the_pipeline_knows(finished, config, ran):
    """Both make the file of probes from the same wrong labels, so neither finds it out of date."""
    ran.clear()
    pipeline.run_probes(at(finished), config)
    assert ran == []
