"""Joining a cluster: one line where there is none, nothing where one is joined already."""

import os
import socket
from pathlib import Path

import pytest
import ray

from dcai_ray.cluster import connection
from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ClusterError, UserError


def test_an_address_where_nothing_listens_is_refused_at_once(monkeypatch):
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        with pytest.raises(ClusterError) as failed:
            connection.connect(ResourcesConfig())
    assert str(failed.value).startswith(f"no Ray cluster at RAY_ADDRESS={address} (")
    assert str(failed.value).endswith("; start it or unset it")
    assert "\n" not in str(failed.value)


def test_an_unknown_host_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "no.such.host.invalid:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=r"RAY_ADDRESS=no\.such\.host\.invalid:6379"):
        connection.connect(ResourcesConfig())


def test_too_long_a_folder_for_temporary_files_is_refused_with_the_remedy(monkeypatch, tmp_path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection.tempfile, "gettempdir", lambda: str(folder))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse_the_socket)
    with pytest.raises(UserError, match=r"x+: this folder .* set RAY_TMPDIR to one of at most 38"):
        connection.connect(ResourcesConfig())


def test_a_ray_that_does_not_start_in_time_is_one_line(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for message, kind in (
        ("The current node timed out during startup. This could happen because", ClusterError),
        ("something else", RuntimeError),
    ):
        monkeypatch.setattr(ray, "init", failing(message))
        with pytest.raises(kind, match=r"did not start in time|something else"):
            connection.connect(ResourcesConfig())


def failing(message):
    def init(**_):
        raise RuntimeError(message)

    return init


def refuse_the_socket(**_):
    """As Ray does."""
    raise OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes")


def test_a_local_cluster_has_a_token_where_the_home_cannot_keep_one(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # nobody can write there, root neither
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    connection._ensure_token()
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    connection._ensure_token()
    assert len(os.environ.pop("RAY_AUTH_TOKEN")) == 64
    monkeypatch.setenv("HOME", str(tmp_path))
    connection._ensure_token()
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.ray
def test_a_cluster_that_is_joined_is_not_joined_again(ray_cluster, capsys):
    connection.connect(ResourcesConfig(num_cpus=7))
    assert capsys.readouterr().err == ""
    assert connection.num_cpus() == 2


@pytest.mark.ray
@pytest.mark.parametrize(
    ("requested", "got", "said"),
    [
        (None, 0, "no GPU in the cluster: running on CPUs"),
        (0.5, 0.5, "each task requests 0.5 GPUs; the cluster has none yet: waiting for one"),
        (0, 0, ""),
    ],
)
def test_a_task_requests_a_gpu_only_where_there_is_one_or_the_settings_do(
    ray_cluster, requested, got, said, capsys, monkeypatch
):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert connection.num_gpus(requested, default=1) == got
    connection.check_gpus(requested)
    assert capsys.readouterr().err.strip() == said


@pytest.mark.ray
def test_a_gpu_that_can_never_come_is_refused(ray_cluster, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"requests 1 GPUs, but this local cluster has none; omit"):
        connection.check_gpus(1)


def test_a_local_cluster_offers_what_the_settings_of_a_larger_one_require(monkeypatch, capsys):
    started = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: started.update(options))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 3.0, **started["resources"]})
    monkeypatch.setattr(connection, "working_nodes", lambda: [])
    connection.connect(ResourcesConfig(num_cpus=3, worker_resource="chains"))
    assert started["resources"] == {"chains": 3}
    assert capsys.readouterr().err == "local Ray cluster: 3 CPUs, 0 GPUs\n"


def test_a_cluster_that_does_not_offer_the_resource_yet_is_reported(monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 3.0})
    monkeypatch.setattr(connection, "working_nodes", lambda: [])
    connection.connect(ResourcesConfig(worker_resource="chains"))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "no node of the cluster offers 'chains' yet: waiting for one"


@pytest.mark.parametrize(("requested", "got"), [(None, 0.25), (1, 1), (0, 0)])
def test_where_there_are_gpus_a_task_takes_its_share_and_nothing_is_printed(
    monkeypatch, requested, got, capsys
):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 1.0})
    assert connection.num_gpus(requested, default=0.25) == got
    connection.check_gpus(requested)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({}, 20),
        ({"num_workers": 300}, 300),
        ({"worker_resource": "chains"}, 16),
        ({"worker_resource": "absent"}, 1),  # one, so that an autoscaler adds a node
    ],
)
def test_as_many_actors_as_requested_or_as_the_cluster_has_cores(monkeypatch, settings, got):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 20.0, "chains": 16.0})
    assert connection.num_workers(ResourcesConfig(**settings)) == got


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8265", "10.0.0.1:port"])
def test_what_is_no_address_is_one_line(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=f"^no Ray cluster at RAY_ADDRESS={address} ") as failed:
        connection.connect(ResourcesConfig())
    assert "\n" not in str(failed.value)


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_is_started_here_reports_to_nobody():
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


@pytest.mark.usefixtures("ray_cluster")
def test_rays_processes_get_no_signal_that_goes_to_the_group_of_this_one():
    groups = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:  # ended meanwhile
            continue
        parent, group = map(int, rest.split()[1:3])
        if parent == os.getpid():
            groups[name] = group
    assert groups.keys() >= {"raylet", "gcs_server"}
    assert os.getpgrp() not in {groups["raylet"], groups["gcs_server"]}
