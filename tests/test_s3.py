"""Everything on an object store, over the S3 protocol, against the same on a disk."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from object_store import ACCESS_KEY, SECRET_KEY
from small_runs import Process, done, files, write_pictures, write_settings

from dcai_ray.cli import main
from dcai_ray.storage import Location

pytestmark = pytest.mark.ray
SAMPLED = ("--method", "sample", "--k", 5, "--rule", "zero", "--seed", 3, "--stop", "rounds")


def contents(folder):
    return {name: content for name, (_, content) in files(folder).items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def bucket(object_store, data, tmp_path_factory):
    uri = object_store.bucket("pictures")
    for name, content in contents(data).items():
        object_store.put(f"{uri}/data/{name}", content)
    settings = write_settings(tmp_path_factory.mktemp("settings") / "small.yaml")
    object_store.put(f"{uri}/small.yaml", settings.read_bytes())
    return uri


@pytest.fixture(scope="module")
def finished(bucket, ray_cluster):
    """A whole run, networks among it, from the store to the store."""
    flags = ("--data", f"{bucket}/data", "--run", f"{bucket}/run")
    done("run", *flags, "--config", f"{bucket}/small.yaml")
    return f"{bucket}/run"


@pytest.fixture(scope="module")
def on_disk(data, bucket, finished, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    done("run", "--data", data, "--run", run, "--config", f"{bucket}/small.yaml")
    return run


def test_a_run_on_the_store_has_the_bytes_of_one_on_a_disk(finished, on_disk, object_store):
    here, there = contents(on_disk), object_store.objects(finished)
    assert there.keys() == here.keys()
    different = {name for name in here if here[name] != there[name]}
    assert different == {"config.yaml", "run.json", "report.html"}  # say where and how long


def test_the_same_again_writes_nothing(finished, bucket, object_store):
    before = object_store.written(finished)
    flags = ("--data", f"{bucket}/data", "--run", finished)
    done("run", *flags, "--config", f"{bucket}/small.yaml")
    assert object_store.written(finished) == before
