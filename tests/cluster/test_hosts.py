"""Submitted jobs on several machines with an object store, whatever happens to the machines.

Three machines with a network of their own (`hosts`): the head, with the object store, and two that
compute. What comes out has the bits of a run on one machine.
"""

import hashlib
import json
import signal
import subprocess
import time
from functools import cached_property

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.support.hosts import lacking, network
from tests.support.small_runs import SETTINGS, Process, write_pictures

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=lacking()),
]
ROUNDS = 280
RESULTS = ("values/values.parquet", "kept.parquet")
S3 = {
    "AWS_ENDPOINT_URL": "http://10.77.0.1:5000",
    "AWS_ACCESS_KEY_ID": "known",
    "AWS_SECRET_ACCESS_KEY": "to-the-test-alone",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
WAIT_S = 400.0
WATCH = """
import sys
from pyarrow import fs
s3, _ = fs.FileSystem.from_uri("s3://bucket")
checkpoints = fs.FileSelector("bucket/run/values/checkpoint", allow_not_found=True)
for _ in sys.stdin:
    print(max([0, *(int(file.base_name[5:13]) for file in s3.get_file_info(checkpoints))]))
"""


def settings():
    """A pipeline whose sampling takes some ten seconds."""
    sample = {"stop": ["rounds"], "rounds": ROUNDS, "rounds_per_block": 2, "chains": 4}
    value = {"k": 3, "method": "sample", "utility": "sklearn.naive_bayes.GaussianNB"}
    finetune = {**SETTINGS["finetune"], "seeds": [0], "epochs": 1}
    return {
        **SETTINGS,
        "finetune": finetune,
        "value": {**value, "rule": "zero"},
        "sample": sample,
        "resources": {"num_workers": 2, "checkpoint_s": 0.5, "hedge_s": 3.0},
    }


class Cluster:
    """The head with the object store, and what one does there."""

    def __init__(self, net):
        self.head, self.one, self.two = (net.host(name) for name in ("head", "one", "two"))
        self.head.start_ray(
            "--head", "--num-cpus=0", "--dashboard-host=127.0.0.1",
            RAY_health_check_period_ms="1000", RAY_health_check_timeout_ms="3000",
            RAY_health_check_failure_threshold="3",
        )  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.head.popen("moto_server", "-H", "10.77.0.1", "-p", "5000", **quiet)
        self.boot(self.one, self.two)

    def boot(self, *hosts):
        """Let nodes join, all at the same time."""
        for host in hosts:
            host.power_on_with_ray("--address=10.77.0.1:6379", "--num-cpus=1")
        for host in hosts:
            host.wait_for_ray()

    def python(self, program, *arguments):
        """Run there with the store's file system as `s3`; the last line it prints."""
        start = (
            "import sys, json; from pyarrow import fs; "
            "s3, _ = fs.FileSystem.from_uri('s3://bucket')\n"
        )
        code, said = self.head.run("python", "-c", start + program, *arguments)
        assert code == 0, said
        return said.strip().splitlines()[-1] if said.strip() else ""

    def submit(self, name, script, *flags):
        """A submitted job, as a process whose output is the job's."""
        return self.head.popen(
            *("ray", "job", "submit", "--address", "http://127.0.0.1:8265"),
            *("--submission-id", name, "--working-dir", str(REPOSITORY), "--"),
            *("python", f"jobs/{script}.py", *flags),
            stdout=(self.head.log.parent / f"{name}.job").open("w"),
            stderr=subprocess.STDOUT,
        )

    def said(self, name):
        return (self.head.log.parent / f"{name}.job").read_text()

    @cached_property
    def watcher(self):
        """A process there that answers each line with the waves in the newest checkpoint."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return self.head.popen("python", "-u", "-c", WATCH, **pipes)

    def waves_done(self):
        self.watcher.stdin.write("\n")
        self.watcher.stdin.flush()
        return int(self.watcher.stdout.readline())

    def wait_for_waves(self, count, job):
        end = time.monotonic() + WAIT_S
        while (there := self.waves_done()) < count:
            assert job.poll() is None, f"{job.args} ended early"
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.2)
        return there


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data and settings."""
    folder = tmp_path_factory.mktemp("laptop")
    write_pictures(folder / "data")
    (folder / "small.yaml").write_text(yaml.safe_dump(settings()))
    return folder


@pytest.fixture(scope="module")
def laptop(folder):
    """A run on this machine, which goes on while the others boot."""
    alone = Process(
        folder / "log", "run", "--data", folder / "data", "--run", folder / "run",
        "--config", folder / "small.yaml",
    )  # fmt: skip
    yield alone
    alone.send(signal.SIGKILL)
    alone.finish()


@pytest.fixture(scope="module")
def machines(folder, laptop, tmp_path_factory):
    with network(tmp_path_factory.mktemp("hosts"), **S3) as net:
        cluster = Cluster(net)
        cluster.python(
            "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')\n"
            "fs.copy_files(sys.argv[1] + '/data', 's3://bucket/data')\n"
            "fs.copy_files(sys.argv[1] + '/small.yaml', 's3://bucket/small.yaml')",
            str(folder),
        )
        yield cluster


def test_a_relative_path_is_refused_in_a_job_and_the_job_fails(machines):
    job = machines.submit("relative", "pipeline", "--data", "data/set", "--run", "s3://bucket/x")
    assert job.wait(WAIT_S) == 1
    said = machines.said("relative")
    assert "dcai-ray: --data data/set: lies in the submitted job's own folder" in said
    assert "failed with exit code 1" in said


def test_a_folder_that_other_nodes_cannot_see_is_refused_with_their_addresses(machines):
    # Each machine has a /dev/shm of its own.
    code, said = machines.head.run(
        "python", "-c",
        "import os, subprocess, sys; from pyarrow import fs\n"
        "fs.copy_files('s3://bucket/data', '/dev/shm/data')\n"
        "sys.exit(subprocess.run(['dcai-ray', 'extract', '--data', '/dev/shm/data', '--run', "
        "'s3://bucket/shm', '--config', 's3://bucket/small.yaml'],"
        "env={**os.environ, 'RAY_ADDRESS': '10.77.0.1:6379'}).returncode)",
    )  # fmt: skip
    assert code == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("dcai-ray: 2 of 2 other nodes cannot take part: 10.77.0.")
    assert "10.77.0.3: cannot see /dev/shm/data; give a URI, or a path that every node" in last


def test_a_job_stopped_and_machines_lost_change_no_bit(machines, folder, laptop):
    flags = ("--data", "s3://bucket/data", "--run", "s3://bucket/run")
    flags += ("--config", "s3://bucket/small.yaml")
    first = machines.submit("first", "pipeline", *flags)
    there = machines.wait_for_waves(5, first)
    address = ("--address", "http://127.0.0.1:8265")
    assert machines.head.run("ray", "job", "stop", *address, "first")[0] == 0
    first.wait(WAIT_S)
    assert "dcai-ray: stopped; run the same command again to resume" in machines.said("first")

    second = machines.submit("second", "pipeline", *flags)
    there = machines.wait_for_waves(there + 10, second)
    machines.one.cut()  # silence: nobody is told
    there = machines.wait_for_waves(there + 10, second)  # the other one goes on alone
    machines.two.power_off()
    machines.boot(machines.two)
    assert second.wait(WAIT_S) == 0, machines.said("second")
    said = machines.said("second")
    assert "sampling resumes after" in said
    assert "wrong labels: detection AUC" in said

    record = json.loads(machines.python("print(json.dumps(json.load(s3.open_input_file("
                                        "'bucket/run/run.json'))))"))  # fmt: skip
    assert record["sampling"]["workers_lost"] >= 1
    assert record["sampling"]["rounds"] >= ROUNDS
    assert laptop.finish() == 0, laptop.said()
    for name in RESULTS:
        digest = machines.python(
            "import hashlib; print(hashlib.sha256(s3.open_input_file(sys.argv[1]).read())"
            ".hexdigest())",
            f"bucket/run/{name}",
        )
        assert digest == hashlib.sha256((folder / "run" / name).read_bytes()).hexdigest(), name
