import csv
import io
import json
import shutil
import signal
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dcai_ray.cli import main
from tests.support.page_scripts import foreign_scripts
from tests.support.small_runs import CLASSES, Process, done, files

RESULTS = (
    "values/values.parquet",
    "values/evidence.parquet",
    "kept.parquet",
    "baseline/metrics.parquet",
    "cleaned/metrics.parquet",
    "cleaned/probes.parquet",
    "cleaned/removal.parquet",
)
ARMS = {"all", "kept", "relabelled", "random", "clean", "kept+clean", "truth"}
SCORES = ["loss", "accuracy", "auroc"]
COLUMNS = {  # docs/design.md
    "images.parquet": [
        *("split", "id", "label", "path", "bytes", "width", "height", "sha256"),
        *("pixels", "blank", "white"),
    ],
    "baseline/metrics.parquet": ["arm", "backbone", "seed", "epoch", "split", *SCORES],
    "cleaned/metrics.parquet": ["arm", "backbone", "seed", "epoch", "split", *SCORES],
    "cleaned/probes.parquet": ["arm", "probe", "seed", "images", *SCORES],
    "cleaned/removal.parquet": ["order", "share", "images", "accuracy"],
    "features/val/part-00000.parquet": ["id", "label", "feature"],
    "values/values.parquet": [
        *("id", "label", "value", "stderr", "low", "high", "rounds", "evaluated", "decision"),
        *("suggested_label", "stderr_validation", "path", "value_self", "suggested_probability"),
        *("margin", "wrong_probability", "tier", "reason", "conflict"),
    ],
    "values/evidence.parquet": [
        *("id", "label", "value_k5", "value_k10", "self_k5", "self_k10"),
        *("margin_0.1", "margin_0.3", "margin_1", "margin_3", "margin_10", "margin_30"),
    ],
    "kept.parquet": ["id", "label", "value"],
}


@pytest.fixture(scope="module")
def data(small_data):
    return small_data


@pytest.fixture(scope="module")
def config(small_settings):
    return small_settings


@pytest.fixture(scope="module")
def finished(small_run):
    return small_run


@pytest.fixture
def again(finished, tmp_path):
    """A copy of the finished run, to be spoiled."""
    return shutil.copytree(finished, tmp_path / "again")


def results(run):
    return {name: (run / name).read_bytes() for name in RESULTS}


def changed(before, after):
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.mark.parametrize("name", COLUMNS)
def test_tables_of_a_run_are_read_by_pandas_with_the_columns_of_the_design(finished, name):
    table = pd.read_parquet(finished / name)
    assert list(table.columns) == COLUMNS[name]
    assert len(table)
    # No picture is there twice, and most are no suspects.
    known = table.drop(columns=["conflict", "tier"], errors="ignore")
    assert not known.isna().any().any()


def test_a_run_has_a_model_a_training_and_complete_features(finished):
    models = {path.name for path in finished.glob("*/model-*.safetensors")}
    assert models == {f"model-{arm}-squeezenet1_0-{s}.safetensors" for arm in ARMS for s in (0, 1)}
    assert not list(finished.rglob("*.checkpoint"))
    assert not list(finished.rglob("*.tmp"))
    for split, count in (("train", 30), ("shapley_val", 30), ("val", 12)):
        folder = finished / "features" / split
        shards = [f"part-{i:05d}.parquet" for i in range(-(-count // 4))]
        assert json.loads((folder.parent / f"_{folder.name}.json").read_text())["shards"] == shards
        table = pq.read_table([folder / shard for shard in shards])
        assert table.schema.field("feature").type == pa.list_(pa.float32(), 512)
        assert table["id"].to_pylist() == [
            f"{label}/{i:02d}.png" for label in CLASSES for i in range(count // 3)
        ]
    assert (finished / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert {"python", "torch", "ray"} <= json.loads((finished / "run.json").read_text())[
        "versions"
    ].keys()


def test_every_arm_is_scored_for_every_seed_epoch_and_split(finished):
    curves = pd.concat(
        pd.read_parquet(finished / step / "metrics.parquet") for step in ("baseline", "cleaned")
    )
    cells = set(zip(curves.arm, curves.seed, curves.epoch, curves.split, strict=True))
    assert cells == {
        (arm, seed, epoch, split)
        for arm in ARMS for seed in (0, 1) for epoch in (1, 2) for split in ("train", "val")
    }  # fmt: skip
    assert len(curves) == len(cells)
    assert set(pd.read_parquet(finished / "cleaned/probes.parquet").arm) == ARMS


def test_wrong_labels_have_the_lowest_values_and_their_true_label_is_suggested(finished, data):
    truth = pd.read_csv(data / "truth.csv")
    values = pd.read_parquet(finished / "values/values.parquet").set_index("id")
    values["true"] = truth.true_label.set_axis(truth.path.str.removeprefix("train/"))
    wrong = values[values.true != values.label]
    right = values[values.true == values.label]
    assert len(wrong) == 6
    assert wrong.value.max() < right.value.min()
    assert (values.suggested_label == values.true).all()


def test_kept_are_the_images_that_the_values_say(finished):
    values = pd.read_parquet(finished / "values/values.parquet")
    kept = pd.read_parquet(finished / "kept.parquet")
    assert 0 < len(kept) < len(values)
    assert kept.id.tolist() == values.id[values.decision != "drop"].tolist()


def test_running_again_changes_no_file(finished, data, config, capsys):
    before = files(finished)
    done("run", "--data", data, "--run", finished, "--config", config)
    assert changed(before, files(finished)) == set()
    assert "report.html" in capsys.readouterr().out


def test_the_steps_one_by_one_give_the_results_of_run(finished, data, config, tmp_path):
    run = tmp_path / "steps"
    for step in ("finetune", "extract", "value", "retrain", "report"):
        images = ("--data", data) if step in ("finetune", "extract") else ()
        settings = () if step == "report" else ("--config", config)
        done(step, *images, "--run", run, *settings)
    assert results(run) == results(finished)
    assert files(run).keys() == files(finished).keys()


def test_a_feature_shard_that_is_gone_is_computed_alone(again, data, config):
    before = files(again)
    lost = "features/train/part-00002.parquet"
    (again / lost).unlink()
    done("run", "--data", data, "--run", again, "--config", config)
    after = files(again)
    assert changed(before, after) == {lost, "run.json", "run.log"}
    assert after[lost][1] == before[lost][1]
    steps = json.loads(after["run.json"][1])["steps"]
    assert steps["features"]["shards_computed"] == 1


def test_no_finetune_gives_the_values_and_probes_without_a_network(
    finished, data, config, tmp_path
):
    run = tmp_path / "run"
    done("run", "--data", data, "--run", run, "--config", config, "--no-finetune")
    for name in ("values/values.parquet", "values/evidence.parquet", "cleaned/probes.parquet"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    assert not list(run.rglob("*.safetensors"))
    assert not list(run.rglob("metrics.parquet"))


def test_one_worker_process_gives_the_values_of_two(finished, data, config, tmp_path):
    alone = Process(
        tmp_path / "log",
        *("run", "--data", data, "--run", tmp_path / "run", "--config", config),
        *("--no-finetune", "--num-cpus", 1),
    )
    assert alone.finish() == 0, alone.said()
    assert "1 CPUs" in alone.said()
    for name in ("values/values.parquet", "values/evidence.parquet", "cleaned/probes.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


KILLS = (  # what is there once the step works, and what is not before it ends
    ("baseline/*.checkpoint", "baseline/metrics.parquet"),
    ("features/train/part-*", "features/_val.json"),
    ("choosing how many to drop", "values/values.parquet"),
    ("cleaned/*.checkpoint", "cleaned/metrics.parquet"),
)


def test_a_run_killed_in_every_step_goes_on_to_the_same_bits(
    finished, again, data, config, tmp_path, ray_cluster
):
    for folder in ("baseline", "features", "values", "cleaned"):
        shutil.rmtree(again / folder)
    (again / "kept.parquet").unlink()
    arguments = ("run", "--data", data, "--run", again, "--config", config)
    before = {}
    for first_sign, last in KILLS:
        process = Process(tmp_path / "log", *arguments, address=ray_cluster)
        process.wait_until(
            lambda p=process, sign=first_sign: any(again.glob(sign)) or sign in p.said()
        )
        process.send(signal.SIGKILL)
        assert process.finish() == -signal.SIGKILL
        assert not (again / last).exists(), "killed too late to show anything"
        after = files(again)
        assert changed(before, after) & tables(before) == set()  # what is done is not done again
        before = after
    done(*arguments)
    assert results(again) == results(finished)
    assert changed(before, files(again)) & tables(before) == set()
    assert not list(again.rglob("*.checkpoint"))


def tables(found):
    return {name for name in found if name.endswith((".parquet", ".safetensors"))}


def test_packed_data_gives_the_bits_of_the_folder_it_was_packed_from(
    finished, data, config, tmp_path, ray_cluster
):
    file, run = tmp_path / "set.zip", tmp_path / "run"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(data.rglob("*.png")):
            archive.write(path, path.relative_to(data))
    done("run", "--data", file, "--run", run, "--config", config, "--no-finetune")
    for name in ("values/values.parquet", "kept.parquet", "features/train/part-00000.parquet"):
        assert (run / name).read_bytes() == (finished / name).read_bytes(), name


def test_sigterm_leaves_a_run_that_goes_on(finished, data, config, tmp_path, ray_cluster):
    run = tmp_path / "run"
    arguments = ("run", "--data", data, "--run", run, "--config", config, "--no-finetune")
    process = Process(tmp_path / "log", *arguments)  # with a Ray of its own
    process.wait_until(lambda: any(run.glob("features/train/part-*")))
    process.send(signal.SIGTERM)  # Ctrl-C ends a run in the same way (tests/cli/test_main.py)
    assert process.finish() == 143, process.said()
    # Ray's core may add that it could not report a task of a driver that has gone.
    told = [line for line in process.said().splitlines() if not line.startswith("[20")]
    assert told[-1] == "dcai-ray: stopped; run the same command again to resume"
    assert "SIGTERM" not in process.said()  # Ray's own handler would dump its stack
    assert "Traceback" not in process.said()
    there = files(run)
    assert "features/_val.json" not in there, "interrupted too late to show anything"
    done(*arguments)
    assert (run / RESULTS[0]).read_bytes() == (finished / RESULTS[0]).read_bytes()
    shards = {name for name in there if "part-" in name}
    assert changed(there, files(run)) & shards == set()


def test_images_that_have_changed_are_refused_and_the_run_stays_as_it_is(
    again, data, config, tmp_path, capsys
):
    other = shutil.copytree(data, tmp_path / "data")
    (other / "train/red/05.png").unlink()
    text = (again / "config.yaml").read_text().replace(str(data), str(other))
    (again / "config.yaml").write_text(text)
    before = files(again)
    assert main(["run", "--data", str(other), "--run", str(again), "--config", str(config)]) == 1
    message = capsys.readouterr().err
    assert "was made from other images: 1 differ, the first train/red/05.png" in message
    assert changed(before, files(again)) == set()


def test_an_audit_values_a_plain_folder_whatever_its_names(tmp_path, capsys, ray_cluster):
    rng = np.random.default_rng(0)
    classes = ("<script>alert(1)<", 'a "b" c', "Käse 犬 $x$")
    for shade, label in enumerate(classes):
        for i in range(5):
            file = tmp_path / "my 'own' images & é" / label / f'{i} <b> "q" ü.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 60, (33, 33, 3)) + 90 * shade
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(file)
    run = tmp_path / "run of <i>?"
    done(
        *("audit", tmp_path / "my 'own' images & é", "--run", run, "--value.k", "2"),
        *("--backbone", "squeezenet1_0", "--weights", "none", "--size-px", "32"),
    )
    values = pd.read_parquet(run / "values/values.parquet")
    assert values.id.tolist() == [
        f'{label}/{i} <b> "q" ü.png' for label in sorted(classes) for i in range(5)
    ]
    page = (run / "report.html").read_text()
    assert foreign_scripts(page) == []
    assert "Käse 犬 $x$" in page
    assert not list(run.rglob("*.safetensors"))
    assert str(run / "report.html") in capsys.readouterr().out


def test_sampled_values_go_all_the_way_to_the_report(finished, data, config, tmp_path, capsys):
    run = tmp_path / "run"
    done(
        *("run", "--data", data, "--run", run, "--config", config, "--no-finetune"),
        *("--value.method", "sample", "--value.utility", "knn-accuracy"),
        *("--sample.stop", "rounds", "--sample.rounds", 200),
    )
    values = pd.read_parquet(run / "values/values.parquet")
    assert list(values.columns) == COLUMNS["values/values.parquet"]
    assert (values.low < values.high).all()
    assert set(values.decision) == {"keep", "drop"}  # the rule validated decides by rank
    page = (run / "report.html").read_text()
    assert "How certain the values are" in page
    record = json.loads((run / "run.json").read_text())["sampling"]
    assert record["rounds"] >= 200
    assert f"{record['rounds']:,} in 8 chains" in page
    assert set(pd.read_parquet(run / "cleaned/probes.parquet").arm) == ARMS
    before = files(run)
    done("report", "--run", run)
    assert changed(before, files(run)) == set()


def test_a_second_opinion_is_sampled_beside_the_closed_form(
    finished, data, config, tmp_path, capsys
):
    run = tmp_path / "run"
    arguments = (
        *("run", "--data", data, "--run", run, "--config", config, "--no-finetune"),
        *("--sample.check", "knn-accuracy", "--sample.stop", "rounds", "--sample.rounds", 64),
    )
    done(*arguments)
    for name in ("values/values.parquet", "kept.parquet"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    check = pd.read_parquet(run / "check/values.parquet")
    assert check.id.tolist() == pd.read_parquet(finished / "values/values.parquet").id.tolist()
    assert "Cross-check: knn-accuracy" in (run / "report.html").read_text()
    before = files(run)
    done(*arguments)
    assert changed(before, files(run)) == set()


def test_export_writes_the_kept_and_the_validation_images(finished, data, tmp_path, capsys):
    done("export", "--run", finished, "--to", tmp_path / "cleaned")
    kept = {f"train/{name}" for name in pd.read_parquet(finished / "kept.parquet").id}
    clean = {name for name in files(data) if name.startswith(("val", "shapley_val"))}
    written = files(tmp_path / "cleaned")
    _, card = written.pop("README.md")
    assert b"shapley_val" in card
    _, changes = written.pop("changes.csv")
    dropped = {f"train/{row['id']}" for row in csv.DictReader(io.StringIO(changes.decode()))}
    assert dropped == {name for name in files(data) if name.startswith("train/")} - kept
    assert written.keys() == kept | clean
    assert all(content == (data / name).read_bytes() for name, (_, content) in written.items())
    assert capsys.readouterr().out.startswith(f"{len(written)} images in ")


def test_status_says_what_is_done_and_what_is_not(finished, again, capsys):
    done("status", "--run", finished)
    lines = capsys.readouterr().out.splitlines()
    steps = ["images", "baseline", "features", "values", "probes", "cleaned", "report"]
    assert [line.split()[0] for line in lines] == steps
    assert all(line.split()[1] == "done" for line in lines)
    (again / "report.html").unlink()
    done("status", "--run", again)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["report", "not", "done"]
