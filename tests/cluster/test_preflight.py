"""The reason why a node cannot take part is one line; a local cluster is not checked."""

import sys

import pytest
import ray

from dcai_ray.cluster import connection, preflight
from dcai_ray.cluster.preflight import (
    Folders,
    check_nodes,
    check_packages,
    installed,
    problem_here,
)
from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location


@pytest.fixture
def folders(tmp_path):
    for name in ("data", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "run/config.yaml").write_bytes(b"value: {}\n")
    return Folders(Location(str(tmp_path / "data")), Location(str(tmp_path / "run")))


def test_the_same_packages_are_no_problem_and_others_are_named_with_both_versions():
    check_packages(installed())
    wanted = {**installed(), "numpy": "1.0.0", "made_up": "3"}
    there = installed()["numpy"]
    with pytest.raises(
        ValueError,
        match=rf"^[\d.]+: has numpy {there} \(driver: 1\.0\.0\), made_up not installed "
        r"\(driver: 3\); install the same packages on every node$",
    ):
        check_packages(wanted)


def test_a_builds_own_suffix_does_not_count(monkeypatch):
    installed.cache_clear()
    monkeypatch.setattr(preflight, "package_versions", lambda: {"torch": "2.14.1+cu130"})
    try:
        found = installed()
    finally:
        installed.cache_clear()
    assert found == {"torch": "2.14.1", "python": sys.version.split()[0]}


@pytest.mark.ray
def test_folders_that_can_be_used_are_no_problem_and_the_check_leaves_nothing_behind(
    ray_cluster, folders, tmp_path
):
    assert problem_here(installed(), folders, b"value: {}\n") == ""
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
    assert problem_here(installed(), None, b"") == ""


@pytest.mark.ray
def test_missing_data_and_another_run_of_the_same_name_are_reported(ray_cluster, folders):
    share = "; give a URI, or a path that every node sees"
    elsewhere = Folders(folders.data / "absent", folders.run)
    assert problem_here(installed(), elsewhere, b"") == f"cannot see {elsewhere.data}{share}"
    line = f"cannot see the run in {folders.run}{share}"
    assert problem_here(installed(), folders, b"value: {k: 3}\n") == line
    elsewhere = Folders(folders.data, folders.run / "absent")
    assert problem_here(installed(), elsewhere, b"") == line.replace("run;", "run/absent;")


@pytest.mark.ray
def test_a_run_that_cannot_be_written_to_is_reported(ray_cluster, folders, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device", self.uri)

    monkeypatch.setattr(Location, "write_bytes", full)
    assert "No space left on device" in problem_here(installed(), folders, b"value: {}\n")


@pytest.fixture
def nothing_passed(monkeypatch):
    """As in a process that has checked no cluster yet."""
    monkeypatch.setattr(preflight, "_passed", set())


@pytest.fixture
def seven_others(ray_cluster, nothing_passed, monkeypatch):
    """A cluster of this node and seven others that do not exist."""
    node = ray.nodes()[0]
    others = [{**node, "NodeID": "x" * 56, "NodeManagerAddress": f"10.0.0.{i}"} for i in range(7)]
    monkeypatch.setattr(connection, "working_nodes", lambda: [node, *others])


@pytest.mark.ray
def test_on_a_single_node_nothing_is_asked(ray_cluster, nothing_passed, monkeypatch):
    asked = []
    monkeypatch.setattr(preflight, "_ask", lambda *question: asked.append(question))
    check_nodes(None)
    assert asked == []


@pytest.mark.ray
def test_every_node_that_cannot_take_part_is_named(seven_others, folders, monkeypatch):
    monkeypatch.setattr(preflight, "_ask", lambda *_: ray.put("has no disk"))
    line = "^7 of 7 other nodes cannot take part: 10.0.0.0: has no disk; 10.0.0.1: "
    with pytest.raises(UserError, match=line) as failed:
        check_nodes(folders)
    assert str(failed.value).endswith("10.0.0.4: has no disk; and 2 more")


@pytest.mark.ray
def test_a_check_that_passed_is_not_made_again_and_one_that_failed_is(
    seven_others, folders, monkeypatch
):
    answers = iter(["has no disk"] * 7 + [""] * 14)
    monkeypatch.setattr(preflight, "_ask", lambda *_: ray.put(next(answers)))
    with pytest.raises(UserError, match="has no disk"):
        check_nodes(folders)
    check_nodes(folders)
    check_nodes(folders)
    assert len(list(answers)) == 7
    elsewhere = Folders(folders.data, folders.run / "elsewhere")
    with pytest.raises(FileNotFoundError):  # another run: its config.yaml is read for the nodes
        check_nodes(elsewhere)
