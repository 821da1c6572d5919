"""Everything on an object store, over the S3 protocol, against the same on a disk."""

import io
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.testing import assert_array_equal, assert_equal
from safetensors.numpy import load
from safetensors.torch import save
from torchvision.models import squeezenet1_0

from dcai_ray.api import read_features
from tests.support.object_store import ACCESS_KEY, SECRET_KEY
from tests.support.small_runs import Process, done, files

SAMPLED = ("--method", "sample", "--k", 5, "--rule", "zero", "--seed", 3, "--stop", "rounds")


def contents(folder):
    return {name: content for name, (_, content) in files(folder).items()}


@pytest.fixture(scope="module")
def bucket(object_store, small_data, small_settings):
    uri = object_store.bucket("pictures")
    for name, content in contents(small_data).items():
        object_store.put(f"{uri}/data/{name}", content)
    object_store.put(f"{uri}/small.yaml", small_settings.read_bytes())
    return uri


@pytest.fixture(scope="module")
def finished(bucket, ray_cluster):
    """A whole run, networks among it, from the store to the store."""
    flags = ("--data", f"{bucket}/data", "--run", f"{bucket}/run")
    done("run", *flags, "--config", f"{bucket}/small.yaml")
    return f"{bucket}/run"


def test_a_run_on_the_store_has_the_bytes_of_one_on_a_disk(finished, small_run, object_store):
    here, there = contents(small_run), object_store.objects(finished)
    assert there.keys() == here.keys()
    different = {name for name in here if here[name] != there[name]}
    models = {name for name in different if name.endswith(".safetensors")}
    # Where it was and how long it took.
    assert different - models == {"config.yaml", "run.json", "run.log", "report.html"}
    for name in models:  # the notes in their heads come in any order
        assert_equal(load(here[name]), load(there[name]))


def test_the_same_again_writes_nothing(finished, bucket, object_store):
    before = object_store.written(finished)
    flags = ("--data", f"{bucket}/data", "--run", finished)
    done("run", *flags, "--config", f"{bucket}/small.yaml")
    assert object_store.written(finished) == before


def test_status_report_and_export_work_on_the_store(finished, bucket, object_store, capsys):
    done("status", "--run", finished)
    assert "cleaned   done" in capsys.readouterr().out
    done("report", "--run", finished)
    assert f"report: {finished}/report.html" in capsys.readouterr().out
    done("export", "--run", finished, "--to", f"{bucket}/cleaned")
    kept = {f"train/{row['id']}" for row in kept_rows(object_store, finished)}
    copied, given = (
        object_store.objects(f"{bucket}/cleaned"),
        object_store.objects(f"{bucket}/data"),
    )
    assert {name for name in copied if name.startswith("train/")} == kept
    assert b"shapley_val" in copied.pop("README.md")
    assert copied.pop("changes.csv").startswith(b"change,split,id,")
    assert all(copied[name] == given[name] for name in copied)


def kept_rows(object_store, run):
    content = object_store.objects(run)["kept.parquet"]
    return pq.read_table(pa.BufferReader(content)).to_pylist()


def test_weights_lie_on_the_store_too(bucket, object_store, tmp_path, ray_cluster):
    state = squeezenet1_0().state_dict()
    content = io.BytesIO()
    torch.save(state, content)
    object_store.put(f"{bucket}/weights.pth", content.getvalue())
    object_store.put(f"{bucket}/weights.safetensors", save(state))
    features = []
    for name in ("weights.pth", "weights.safetensors"):
        flags = ("--backbone", "squeezenet1_0", "--size-px", 32, "--weights", f"{bucket}/{name}")
        run = f"{bucket}/audited-{name}"
        done("audit", f"{bucket}/data/val", "--run", run, *flags)
        features.append(read_features(f"{run}/features/train").x)
    assert len(features[0]) == 12
    assert_array_equal(features[0], features[1])


def test_sampling_killed_with_its_checkpoints_on_the_store_goes_on_from_them(
    finished, bucket, object_store, tmp_path, capfd, ray_cluster
):
    flags = ("--features", f"{finished}/features", *SAMPLED, "--rounds", 300)
    flags = (*flags, "--rounds-per-block", 4)
    done("value", "--run", tmp_path / "whole", *flags)
    run = f"{bucket}/sampled"
    arguments = ("value", "--run", run, *flags, "--checkpoint-s", 0.1)
    process = Process(tmp_path / "log", *arguments, address=ray_cluster)
    process.wait_until(lambda: any("checkpoint/wave" in key for key in object_store.written(run)))
    process.send(signal.SIGKILL)
    process.finish()
    assert "kept.parquet" not in object_store.objects(run)
    done("value", "--run", run, *flags)
    there = object_store.objects(run)
    for name in ("values/values.parquet", "kept.parquet"):
        assert there[name] == (tmp_path / "whole" / name).read_bytes()
    assert "sampling resumes after" in capfd.readouterr().err
    assert SECRET_KEY not in process.said()


def test_no_credentials_are_in_what_a_run_wrote(finished, small_run, object_store):
    written = {**object_store.objects(finished), **contents(small_run)}
    for name, content in written.items():
        if name.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(content))
            content += str(table.schema.metadata).encode() + str(table.to_pylist()).encode()
        for secret in (ACCESS_KEY, SECRET_KEY):
            assert secret.encode() not in content, name
