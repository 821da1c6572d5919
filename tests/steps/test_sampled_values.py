"""`dcai-ray value --method sample` on a run: files, resuming, stopping, failing."""

import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from dcai_ray.cli import main
from dcai_ray.storage import schemas
from dcai_ray.valuation.count_values import knn_values
from dcai_ray.valuation.knn_shapley import knn_shapley
from tests.support.feature_sets import write_features
from tests.support.small_runs import Process, done, files

SETTINGS = ("--k", 5, "--rule", "zero", "--seed", 3)
SLOW = ("--rounds-per-block", 4, "--checkpoint-s", 0.2)
N, M = 120, 40
WRITTEN = ("values/values.parquet", "values/evidence.parquet", "kept.parquet")


def clusters(count, seed):
    """Points of three clusters of unequal size, a fifth of those to learn from with a random
    label."""
    rng = np.random.default_rng(seed)
    centres = 1.5 * np.random.default_rng(99).standard_normal((3, 4))
    y = rng.choice(3, count, p=[0.6, 0.25, 0.15])
    x = np.float32(centres[y] + rng.standard_normal((count, 4)))
    return x, np.where(rng.random(count) < 0.2, rng.integers(0, 3, count), y) if seed == 0 else y


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    splits = {"train": (N, 0), "shapley_val": (M, 1), "val": (M, 2)}
    points = {split: clusters(count, seed) for split, (count, seed) in splits.items()}
    return write_features(tmp_path_factory.mktemp("features"), points)


def value(features, run, *flags):
    done("value", "--features", features, "--run", run, "--method", "sample", *SETTINGS, *flags)


@pytest.fixture(scope="module")
def finished(features, tmp_path_factory, ray_cluster):
    run = tmp_path_factory.mktemp("runs") / "finished"
    value(features, run, "--stop", "rounds", "--rounds", 1500, *SLOW[:2])
    return run


def values_of(run):
    return pd.read_parquet(run / "values/values.parquet")


def assert_in_intervals(table, exact):
    assert ((table.low <= exact) & (exact <= table.high)).mean() >= 0.95
    assert_allclose(table.value, exact, atol=5 * table.stderr.max())


def closed_form(class_weights):
    points = (*clusters(N, 0), *clusters(M, 1))
    return knn_shapley(*points, k=5, metric="cosine", class_weights=class_weights)


def test_values_agree_with_the_closed_form_within_their_intervals(finished):
    table = values_of(finished)
    assert_in_intervals(table, closed_form("balanced"))
    assert (table.rounds >= 1500).all()
    assert (table.evaluated > 0).all()
    assert set(table.decision) <= {"keep", "drop", "undecided"}
    assert not table.suggested_label.isna().any()


@pytest.mark.parametrize("few", ["vote", "default"])
def test_the_sampled_accuracy_agrees_with_its_exact_values(few, features, tmp_path, ray_cluster):
    run = tmp_path / "run"
    flags = ("--utility", "knn-accuracy", "--utility-options", "few", few)
    value(features, run, *flags, "--stop", "rounds", "--rounds", 1500, *SLOW[:2])
    points = (*clusters(N, 0), *clusters(M, 1))
    assert_in_intervals(values_of(run), knn_values(*points, k=5, class_weights="balanced", few=few))


@pytest.mark.parametrize(("weights", "others"), [("balanced", "none"), ("none", "balanced")])
def test_a_cross_check_weighs_classes_as_the_closed_form_does(
    features, tmp_path, ray_cluster, weights, others
):
    run = tmp_path / "run"
    done(
        "value", "--features", features, "--run", run, *SETTINGS[:-2], "--class-weights", weights,
        "--check", "knn", "--stop", "rounds", "--rounds", 1000,
    )  # fmt: skip
    exact, check = values_of(run).value, pd.read_parquet(run / "check/values.parquet")
    assert_allclose(exact, closed_form(weights), atol=1e-15)  # summed otherwise
    assert_in_intervals(check, exact)
    # So narrow are the intervals that the other weights would show.
    other = closed_form(others)
    assert ((other < check.low) | (check.high < other)).mean() > 0.2


def test_what_is_dropped_lies_below_zero_and_the_undecided_are_kept(finished):
    table = values_of(finished)
    kept = pd.read_parquet(finished / "kept.parquet")
    assert kept.id.tolist() == table.id[table.decision != "drop"].tolist()
    certain = table[table.high < 0]
    assert len(certain) > 5
    assert (certain.decision == "drop").all()


def test_the_record_and_the_trace_tell_how_it_went(finished):
    record = json.loads((finished / "run.json").read_text())["sampling"]
    trace = pd.read_parquet(finished / "values/trace.parquet")
    assert record["done"]
    assert record["rounds"] == trace.rounds.iloc[-1] >= 1500
    assert record["insertions"] > 1500 * N
    assert record["workers_lost"] == 0
    assert record["compute_seconds"] > 0
    assert trace.rounds.is_monotonic_increasing
    assert trace.seconds.is_monotonic_increasing
    assert trace.max_stderr.iloc[-1] == values_of(finished).stderr.max()


def test_status_tells_of_the_sampling(finished, capsys):
    done("status", "--run", finished)
    said = capsys.readouterr().out
    assert "sampling  done: knn, " in said
    assert "until 1500 rounds" in said


def test_the_same_again_changes_no_file(finished, features):
    before = files(finished)
    value(features, finished, "--stop", "rounds", "--rounds", 1500, *SLOW[:2])
    assert files(finished) == before


def test_any_number_of_workers_gives_the_same_bytes(finished, features, tmp_path):
    for workers in (1, 4):
        run = tmp_path / str(workers)
        value(
            features, run, "--stop", "rounds", "--rounds", 1500, *SLOW[:2],
            "--num-workers", workers,
        )  # fmt: skip
        for name in WRITTEN:
            assert (run / name).read_bytes() == (finished / name).read_bytes()


def test_a_driver_killed_again_and_again_ends_with_the_same_bytes(features, tmp_path, ray_cluster):
    arguments = (
        "value", "--features", features, "--method", "sample", *SETTINGS, *SLOW,
        "--stop", "rounds", "--rounds", 3_000,
    )  # fmt: skip
    whole, run = tmp_path / "whole", tmp_path / "run"
    done(*arguments, "--run", whole)
    kills = 0
    for waves in (1, 30):

        def far_enough(least=waves):
            found = sorted((run / "values/checkpoint").glob("wave-*.parquet"))
            return bool(found) and int(found[-1].stem.removeprefix("wave-")) >= least

        process = Process(tmp_path / "log", *arguments, "--run", run, address=ray_cluster)
        process.wait_until(far_enough)
        process.send(signal.SIGKILL)
        kills += process.finish() == -signal.SIGKILL
    assert kills == 2
    so_far = values_of(run)  # can be read whenever one likes
    assert len(so_far) == N
    assert so_far.rounds.iloc[0] < 3_000
    done(*arguments, "--run", run)
    for name in WRITTEN:
        assert (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.ray
def test_a_ray_that_the_command_started_ends_with_its_killed_driver(features, tmp_path):
    process = Process(
        tmp_path / "log", "value", "--features", features, "--run", tmp_path / "run",
        "--method", "sample", *SETTINGS, *SLOW, "--stop", "rounds", "--rounds", 20_000,
    )  # fmt: skip
    process.wait_until(lambda: any((tmp_path / "run/values/checkpoint").glob("*.parquet")))
    there = process.workers()
    process.send(signal.SIGKILL)
    assert process.finish() == -signal.SIGKILL
    assert len(there) > 2  # the object store's, the node's, those of the chains
    assert process.workers() == []


@pytest.mark.ray
def test_ctrl_c_saves_what_is_complete_and_the_same_command_goes_on(features, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = (
        "value", "--features", features, "--run", run, "--method", "sample", *SETTINGS, *SLOW,
        "--stop", "rounds", "--rounds", 20_000,
    )  # fmt: skip
    process = Process(tmp_path / "log", *arguments)
    process.wait_until(lambda: any((run / "values/checkpoint").glob("*.parquet")))
    process.send(signal.SIGINT)
    assert process.finish() == 130
    assert process.said().splitlines()[-1] == (
        "dcai-ray: interrupted; run the same command again to resume"
    )
    assert "Traceback" not in process.said()
    record = json.loads((run / "run.json").read_text())["sampling"]
    assert not record["done"]
    assert 0 < record["rounds"] < 20_000
    # Values so far are for looking at: nothing is trained on them.
    (run / "features").symlink_to(features)
    assert main(["retrain", "--run", str(run), "--no-finetune"]) == 1
    assert "interim values of an unfinished run" in capsys.readouterr().err


def test_a_tighter_stop_goes_on_from_what_is_there(finished, features, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    value(features, run, "--stop", "rounds", "--rounds", 2000, *SLOW[:2])
    assert "sampling resumes after 1,5" in capsys.readouterr().err
    at_once = tmp_path / "at once"
    value(features, at_once, "--stop", "rounds", "--rounds", 2000, *SLOW[:2])
    assert values_of(run).equals(values_of(at_once))
    before = files(run)
    value(features, run, "--stop", "rounds", "--rounds", 100, *SLOW[:2])  # a looser one
    changed = {name for name, entry in files(run).items() if before[name] != entry}
    assert changed <= {"config.yaml", "report.html", "run.log"}  # the report shows the settings


def test_other_settings_are_refused_but_not_another_stop(finished, features, capsys):
    arguments = ["value", "--features", features, "--run", finished, "--method", "sample"]
    given = [str(word) for word in [*arguments, *SETTINGS, "--chains", 4]]
    assert main(given) == 1
    assert "sample.chains: 8 in the run, 4 requested" in capsys.readouterr().err


def test_time_is_up_at_a_complete_set_and_the_rest_is_for_another_time(
    features, tmp_path, ray_cluster
):
    run = tmp_path / "run"
    value(features, run, "--stop", "seconds", "--seconds", 0.5, *SLOW[:2])
    record = json.loads((run / "run.json").read_text())["sampling"]
    assert record["done"]
    assert record["rounds"] % (8 * 4) == 0  # chains x rounds of a block
    assert len(values_of(run)) == N


def test_several_semivalues_come_from_the_same_sweeps(features, tmp_path, ray_cluster):
    run = tmp_path / "run"
    value(
        features, run, "--stop", "rounds", "--rounds", 200, "--semivalues", "banzhaf",
        "leave-one-out",
    )  # fmt: skip
    for name in ("banzhaf", "leave-one-out"):
        table = pd.read_parquet(run / f"values/values-{name}.parquet")
        assert table.id.tolist() == values_of(run).id.tolist()
        assert list(table.columns) == schemas.ESTIMATES.names


def test_only_the_certain_are_dropped_where_that_is_asked(finished, features, tmp_path):
    run = tmp_path / "run"
    value(features, run, "--rule", "certain", "--stop", "rounds", "--rounds", 1500, *SLOW[:2])
    certain, zero = values_of(run), values_of(finished)
    assert (certain.value == zero.value).all()
    dropped = certain[certain.decision == "drop"]
    assert 0 < len(dropped) <= (zero.value < 0).sum()
    assert (dropped.value < 0).all()


@pytest.mark.parametrize(
    ("utility", "flags"),
    [
        ("knn-accuracy", ()),
        ("least-squares", ("--utility-options", "num_features", 2)),
        ("logistic", ("--utility-options", "num_features", 2)),
        ("sklearn.naive_bayes.GaussianNB", ()),
    ],
)
def test_every_utility_is_sampled_from_the_command_line(
    features, tmp_path, utility, flags, ray_cluster
):
    run = tmp_path / "run"
    stop = ("--stop", "rounds", "--rounds", 8, "--rounds-per-block", 1)  # a block a chain
    value(features, run, "--utility", utility, *flags, *stop)
    table = values_of(run)
    assert np.isfinite(table.value).all()
    assert table.value.sum() > 0.1  # what all points add to the score of none


def test_a_model_that_fails_is_named_with_its_coalition_and_nothing_is_lost(
    features, tmp_path, capsys, ray_cluster
):
    arguments = [
        "value", "--features", features, "--run", tmp_path / "run", "--method", "sample",
        "--utility", "sklearn.linear_model.LogisticRegression", "--utility-options", "solver",
        "nonsense", "--rule", "zero",
    ]  # fmt: skip
    assert main([str(word) for word in arguments]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dcai-ray: ")
    assert "LogisticRegression failed on a coalition of" in line
    assert "nonsense" in line


def test_a_dry_run_says_what_it_takes_and_writes_nothing(features, tmp_path, capsys, ray_cluster):
    run = tmp_path / "run"
    value(features, run, "--dry-run")
    said = capsys.readouterr().out
    assert "knn: multilevel base" in said
    assert "rounds, " in said
    assert "MB on each node" in said
    assert not run.exists()


def test_a_dry_run_of_the_closed_form_is_refused(features, tmp_path, capsys):
    arguments = ["value", "--features", features, "--run", tmp_path / "run", "--dry-run"]
    assert main([str(word) for word in arguments]) == 1
    assert "--dry-run is for --method sample" in capsys.readouterr().err
