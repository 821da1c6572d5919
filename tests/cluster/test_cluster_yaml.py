"""cluster.yaml as Ray's launcher and AWS read it, and its like for Kubernetes; no network."""

import copy
import json
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import ParamValidationError
from jsonschema import ValidationError
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import (
    _default_utilization_scorer,
    get_nodes_for,
)
from ray.autoscaler._private.util import prepare_config, validate_config

from dcai_ray.cli.flags import Run, parse, settings_of
from dcai_ray.cluster.connection import actor_options, task_options
from dcai_ray.config import Config, read_config
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "cluster.yaml").read_text()
TYPES = {"head", "chains", "gpu"}


@pytest.fixture
def written():
    """What the file says."""
    return yaml.safe_load(TEXT)


@pytest.fixture
def filled(written):
    """With what Ray adds."""
    return prepared(written)


@pytest.fixture
def settings():
    return read_config(str(REPOSITORY / "jobs/aws.yaml")).resources


def prepared(config):
    filled = prepare_config(copy.deepcopy(config))
    validate_config(filled)
    return filled


def test_ray_accepts_it(filled):
    assert set(filled["available_node_types"]) == TYPES
    assert filled["head_node_type"] == "head"


@pytest.mark.parametrize(
    "where",
    ["max_worker", "auth/ssh_users", "available_node_types/chains/min_worker", "setup_command"],
)
def test_a_key_that_ray_does_not_know_is_refused(written, where):
    *path, key = where.split("/")
    section = written
    for name in path:
        section = section[name]
    section[key] = 1
    with pytest.raises(ValidationError, match=key):
        prepared(written)


def test_a_value_of_the_wrong_kind_is_refused(written):
    written["idle_timeout_minutes"] = "5m"
    with pytest.raises(ValidationError, match="5m"):
        prepared(written)


def test_ray_adds_no_command_of_its_own(written, filled):
    lists = [key for key in filled if key.endswith("commands")]
    assert len(lists) == 6
    for key in lists:
        # Ray puts the common setup before that of the head and of the workers.
        common = written["setup_commands"] if "_setup_" in key else []
        assert filled[key] == common + written[key], key


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    """A function that starts a node of a type: Ray's own code on an EC2 that is none."""
    home = tmp_path_factory.mktemp("home")  # a key pair is written there
    (home / ".ssh").mkdir()
    filled = prepared(yaml.safe_load(TEXT))
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("HOME", str(home))
        patch.setenv("AWS_DEFAULT_REGION", filled["provider"]["region"])
        for name in ("dcai-ray-head", "dcai-ray-worker"):
            boto3.client("iam").create_instance_profile(InstanceProfileName=name)
        image = boto3.client("ec2").describe_images()["Images"][0]["ImageId"]
        text = re.sub(r"resolve:ssm:[^\"]*", image, json.dumps(filled))  # there is no SSM here
        config = AWSNodeProvider.bootstrap_config(json.loads(text))
        aws = AWSNodeProvider(config["provider"], config["cluster_name"])

        def start(name, **changes):
            tags = {
                "ray-node-type": "head" if name == "head" else "worker",
                "ray-user-node-type": name,
                "ray-node-status": "uninitialized",
                "ray-node-name": name,
            }
            node = {**config["available_node_types"][name]["node_config"], **changes}
            (made,) = aws.create_node(node, tags, 1).values()
            return made

        yield start


@pytest.mark.slow
def test_aws_starts_every_type_the_head_on_demand_and_the_others_spot(provider, written):
    for name in TYPES:
        made = provider(name)
        wanted = written["available_node_types"][name]["node_config"]
        assert made.instance_type == wanted["InstanceType"]
        assert made.iam_instance_profile["Arn"].endswith(wanted["IamInstanceProfile"]["Name"])
        assert made.instance_lifecycle == (None if name == "head" else "spot"), name


@pytest.mark.slow
def test_a_field_that_aws_does_not_know_is_refused(provider):
    with pytest.raises(ParamValidationError, match="InstanceMarketOption"):
        provider("chains", InstanceMarketOption={"MarketType": "spot"})


def test_cores_and_gpus_are_those_of_the_machines(filled):
    with mock_aws():
        ec2 = boto3.client("ec2", region_name="us-west-2")
        for name, node in filled["available_node_types"].items():
            kind = node["node_config"]["InstanceType"]
            (found,) = ec2.describe_instance_types(InstanceTypes=[kind])["InstanceTypes"]
            gpus = sum(gpu["Count"] for gpu in found.get("GpuInfo", {}).get("Gpus", []))
            cores = 0 if name == "head" else found["VCpuInfo"]["DefaultVCpus"]
            assert node["resources"]["CPU"] == cores, name
            assert node["resources"].get("GPU", 0) == gpus, name


def test_workers_begin_at_none_and_all_of_them_fit(written):
    workers = [node for name, node in written["available_node_types"].items() if name != "head"]
    assert all(node["min_workers"] == 0 for node in workers)
    assert sum(node["max_workers"] for node in workers) == written["max_workers"]


def test_every_ray_wants_the_token_and_the_dashboard_is_local(written):
    starts = [
        line
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in written[key]
        if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert written["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"


def test_versions_are_those_of_the_constraints(written):
    constraints = (REPOSITORY / "constraints.txt").read_text()
    assert set(re.findall(r"ray\[default\]==([\d.]+)", TEXT)) == set(
        re.findall(r"^ray==([\d.]+)", constraints, re.M)
    )
    install = next(line for line in written["setup_commands"] if "pip install" in line)
    assert "--constraint ~/dist/constraints.txt" in install
    assert written["file_mounts"]["/home/ubuntu/dist"] == "./dist"


def test_it_holds_no_credentials():
    # Access keys of AWS, private keys, and Ray's tokens, which are 64 hexadecimal digits.
    secret = r"(AKIA|ASIA)[A-Z0-9]{16}|aws_(secret_)?access_key|PRIVATE KEY|[0-9a-f]{64}"
    assert not re.search(secret, TEXT, re.I)


def test_its_commands_are_ones_that_a_shell_can_read(written):
    lines = [line for key in written if key.endswith("commands") for line in written[key]]
    assert len(lines) >= 8
    refused = [line for line in lines if subprocess.run(["bash", "-n", "-c", line]).returncode]
    assert refused == []


def test_the_settings_send_chains_to_nodes_of_that_type_alone(written, settings):
    types = written["available_node_types"]
    offers = {name for name, node in types.items() if settings.worker_resource in node["resources"]}
    assert offers == {"chains"}
    wanted = actor_options(settings)
    room = types["chains"]["resources"]
    each = min(
        room["CPU"] // wanted["num_cpus"],
        *(room[name] // amount for name, amount in wanted["resources"].items()),
    )
    assert settings.num_workers == each * types["chains"]["max_workers"]


@pytest.mark.parametrize(
    ("asks", "count", "started"),
    [
        # As many as a step submits where there are no cores yet, then on one node, then on all.
        ("task", 4, {"chains": 1}),
        ("task", 64, {"chains": 4}),
        ("task", 2048, {"chains": 32}),
        ("chain", 512, {"chains": 32}),
        ("training", 3, {"gpu": 3}),
        ("training", 9, {"gpu": 4}),
        ("extraction", 8, {"gpu": 2}),
    ],
)
def test_what_waits_makes_the_autoscaler_start_nodes_of_its_type_and_no_other(
    filled, settings, asks, count, started
):
    options = {
        "task": task_options(settings, 1, 0),
        "chain": actor_options(settings),
        "training": task_options(settings, 1, settings.gpus_per_training),
        "extraction": task_options(settings, 1, settings.gpus_per_extraction),
    }[asks]
    demand = {"CPU": options["num_cpus"], **(options["resources"] or {})}
    if options.get("num_gpus"):
        demand["GPU"] = options["num_gpus"]
    up = NodeAvailabilitySummary({})
    scorer = partial(_default_utilization_scorer, node_availability_summary=up)
    types, most = filled["available_node_types"], filled["max_workers"]
    found, _ = get_nodes_for(types, {}, "head", most, [demand] * count, scorer)
    assert found == started


def test_the_settings_send_networks_to_nodes_with_a_gpu(written, settings):
    room = written["available_node_types"]["gpu"]["resources"]
    # One core a task: the defaults of finetune.num_threads and of extraction.
    for share in (settings.gpus_per_training, settings.gpus_per_extraction):
        assert 0 < share <= room["GPU"]
        assert room["GPU"] / share <= room["CPU"]


@pytest.fixture
def rayjob():
    return yaml.safe_load((REPOSITORY / "docs/kubernetes/rayjob.yaml").read_text())["spec"]


def test_on_kubernetes_each_group_offers_what_the_settings_ask_for(rayjob):
    python, script, *flags = shlex.split(rayjob["entrypoint"])
    assert (python, Path(script).name) == ("python", "pipeline.py")
    settings = settings_of(parse(Run, flags, Config(), "run")).resources
    cluster = rayjob["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    chains, gpu = cluster["workerGroupSpecs"]
    (argument,) = shlex.split(chains["rayStartParams"]["resources"])  # as the pod's shell does
    (offered,) = json.loads(argument).items()
    limits = chains["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert offered == (settings.worker_resource, int(limits["cpu"]))
    assert settings.num_workers == offered[1] * chains["maxReplicas"]
    assert gpu["rayStartParams"] == {}
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert settings.gpus_per_training == int(limits["nvidia.com/gpu"])


def test_kubernetes_has_the_token_and_the_versions_of_the_constraints(rayjob):
    pinned = re.search(r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.M)[1]
    assert rayjob["rayClusterSpec"]["rayVersion"] == pinned
    assert rayjob["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    image = (REPOSITORY / "docs/kubernetes/Dockerfile").read_text()
    assert f"FROM rayproject/ray:{pinned}-py311" in image
