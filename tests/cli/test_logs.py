"""run.log: what it holds, when it is written, and that it never ends a run."""

import logging
import re
import warnings

import numpy as np
import pytest

from dcai_ray import progress
from dcai_ray.cli import logs, main
from dcai_ray.cluster import connection
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory, package_versions
from dcai_ray.storage import parquet
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location
from tests.support.small_runs import done, files

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
package = logging.getLogger("dcai_ray")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def features(tmp_path):
    """Features with which a run can be valued."""
    rng = np.random.default_rng(0)
    for split in ("train", "shapley_val"):
        ids = [f"{label}/{i}" for label in "ab" for i in range(6)]
        x = np.float32(rng.standard_normal((12, 3)))
        folder = Location(str(tmp_path / "features" / split))
        labels = [name[0] for name in ids]
        write_split(folder, ids, labels, x, {"backbone": "made up"}, "made")
    return tmp_path / "features"


def lines_of(run):
    return (run / "run.log").read_text().splitlines()


def messages(run):
    """Messages without time and level; further lines of a record are indented."""
    return [LINE.sub("", line) for line in lines_of(run)]


def work(message="values: 12 images"):
    package.info(message, extra={"work": True})


def handlers():
    return [*package.handlers, *logging.getLogger("py.warnings").handlers]


def test_every_line_has_a_time_with_its_zone_and_a_level(run):
    with logs.recorded(["value"]):
        logs.keep_in(Location(str(run)))
        work()
        progress.warn("two classes")
    assert all(LINE.match(line) for line in lines_of(run))
    assert lines_of(run)[-1].endswith(" WARNING warning: two classes")


def test_the_head_tells_the_command_and_the_versions(run):
    with logs.recorded(["value", "--run", "my run"]):
        logs.keep_in(Location(str(run)))
        work()
    told = messages(run)
    assert told[0] == "command: dcai-ray value --run 'my run'"
    for name, version in package_versions().items():
        assert f"{name} {version}" in told[2]


def test_what_was_logged_before_the_run_was_known_is_in_it(run):
    with logs.recorded(["demo"]):
        progress.say("writing the demo set")
        logs.keep_in(Location(str(run)))
        work()
    assert "writing the demo set" in messages(run)


def test_without_work_no_file_is_written(run):
    with logs.recorded(["value"]):
        logs.keep_in(Location(str(run)))
        progress.say("train: 2 files passed over")
        progress.say("dcai-ray: made with other settings", logging.ERROR)
    assert list(run.iterdir()) == []


@pytest.mark.parametrize(
    "begin",
    [
        lambda run: progress.step("values", 10, "images").__enter__(),
        lambda run: progress.live("sampling").__enter__(),
        lambda run: RunDirectory(Location(str(run))).record_step("values", "made", 1.25),
        lambda run: progress.say("Traceback", logging.CRITICAL),
    ],
    ids=["step", "sampling", "record", "bug"],
)
def test_work_and_bugs_begin_the_log(begin, run):
    with logs.recorded(["value"]):
        logs.keep_in(Location(str(run)))
        assert not (run / "run.log").exists()
        begin(run)
        assert len(lines_of(run)) >= 4  # at once, so that a killed run has it


def test_a_step_is_logged_with_its_time(run):
    with logs.recorded(["value"]):
        logs.keep_in(Location(str(run)))
        RunDirectory(Location(str(run))).record_step("values", "made", 1.25)
    assert messages(run)[-1] == "step values: done in 1.25 s"


def test_the_nodes_of_the_cluster_are_logged(monkeypatch, run):
    nodes = [
        {"NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 4.0}},
        {"NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 8.0, "GPU": 1.0}},
    ]
    monkeypatch.setattr(connection, "working_nodes", lambda: nodes)
    with logs.recorded(["value"]):
        logs.keep_in(Location(str(run)))
        connection.log_nodes()
        work()
    assert {"node 10.0.0.1: 4 CPUs, 0 GPUs", "node 10.0.0.2: 8 CPUs, 1 GPUs"} <= set(messages(run))


def test_the_log_grows_from_command_to_command(run):
    for name in ("extract", "value"):
        with logs.recorded([name]):
            logs.keep_in(Location(str(run)))
            work()
    commands = [line for line in messages(run) if line.startswith("command")]
    assert commands == ["command: dcai-ray extract", "command: dcai-ray value"]


def test_no_name_commands_the_terminal_or_forges_a_record(run, capsys):
    name = "cat\x1b]0;title\a\n2026-01-01T00:00:00+0000 INFO command: dcai-ray export"
    with logs.recorded(["value"]):
        logs.keep_in(Location(str(run)))
        work(name)
        package.warning("%s", name)
    text = (run / "run.log").read_text() + capsys.readouterr().err
    assert text.replace("\n", "").isprintable()
    assert "cat\\x1b]0;title\\x07" in text
    assert len([line for line in messages(run) if line.startswith("command")]) == 1


def test_no_credentials_are_logged(run):
    secrets = (
        "s3://AKIA:hush@bucket/x",
        "--weights=s3://AKIA:hush@bucket/x",
        "https://host/x?X-Amz-Signature=hush",
        "--data=s3://bucket/x?secret_key=hush",
    )
    with logs.recorded(["run", *secrets, "--data", "s3://bucket/x"]):
        logs.keep_in(Location(str(run)))
        work()
    text = (run / "run.log").read_text()
    assert "hush" not in text
    assert "--weights=(a URI with credentials)" in text
    assert "--data s3://bucket/x" in text


def test_warnings_of_python_are_logged_and_shown(run, capsys):
    with logs.recorded(["value"]):
        logs.keep_in(Location(str(run)))
        work()
        warnings.warn("no convergence", RuntimeWarning, stacklevel=1)
    assert "RuntimeWarning: no convergence" in capsys.readouterr().err
    assert any("RuntimeWarning: no convergence" in line for line in lines_of(run))


def test_what_is_said_is_shown_once_and_logged_once(run, capsys):
    with logs.recorded(["value"], debug=True):
        logs.keep_in(Location(str(run)))
        work()
        progress.say("two classes")
    assert capsys.readouterr().err.count("two classes") == 1
    assert messages(run).count("two classes") == 1


def test_a_lost_actor_is_shown_and_logged(run, capsys):
    with logs.recorded(["value"], quiet=True):
        logs.keep_in(Location(str(run)))
        work()
        logging.getLogger("dcai_ray.cluster.actor_pool").warning("actor lost (%d so far)", 1)
    assert capsys.readouterr().err == "actor lost (1 so far)\n"
    assert messages(run)[-1] == "actor lost (1 so far)"


def test_quiet_shows_warnings_and_errors_alone_and_logs_the_rest(run, capsys):
    with logs.recorded(["value"], quiet=True):
        logs.keep_in(Location(str(run)))
        with progress.step("values", 3, "images") as count:
            count(3)
        with progress.live("sampling") as tell:
            tell("8 rounds")
        progress.say("two classes")
        progress.warn("one is small")
        progress.say("dcai-ray: no run", logging.ERROR)
    assert capsys.readouterr().err == "warning: one is small\ndcai-ray: no run\n"
    assert {"values: 3 images", "sampling: 8 rounds; done", "two classes"} <= set(messages(run))


def test_debug_shows_and_keeps_what_is_logged_for_developers(run, capsys):
    for debug in (False, True):
        with logs.recorded(["value"], debug=debug):
            logs.keep_in(Location(str(run)))
            work()
            parquet.is_up_to_date(Location(str(run / "kept.parquet")), "made")
        line = f"{run / 'kept.parquet'}: fingerprint none, wanted made"
        assert (line in capsys.readouterr().err) == debug
        assert (line in messages(run)) == debug


def test_nothing_of_it_stays_behind(run):
    before, level, show = handlers(), package.level, warnings.showwarning
    with pytest.raises(UserError), logs.recorded(["value"], debug=True, quiet=True):  # noqa: PT012
        assert handlers() != before
        raise UserError("no")
    assert (handlers(), package.level, warnings.showwarning) == (before, level, show)
    progress.say("shown again")


@pytest.mark.parametrize("place", ["a folder", "a link"])
def test_a_log_that_cannot_be_written_is_given_up_with_one_warning(place, run, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    if place == "a folder":
        (run / "run.log").mkdir()
    else:
        (run / "run.log").symlink_to(elsewhere)
    with logs.recorded(["value"]):
        logs.keep_in(Location(str(run)))
        for _ in range(3):
            work()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"warning: {run}/run.log: cannot be written (")
    assert elsewhere.read_text() == "mine"


def test_on_an_object_store_the_log_is_written_with_each_step_and_at_the_end(object_store):
    run = f"{object_store.bucket('logged')}/run"

    def there():
        content = object_store.objects(run).get("run.log", b"").decode()
        return [LINE.sub("", line) for line in content.splitlines()]

    with logs.recorded(["extract"]):
        logs.keep_in(Location(run))
        progress.say("train: 2 files passed over")
        assert there() == []
        work("extracting begins")
        assert there()[-1] == "extracting begins"
        progress.say("two of three")
        assert there()[-1] == "extracting begins"
        work("extracting is done")
        assert there()[-2:] == ["two of three", "extracting is done"]
        progress.say("bye")
    assert there()[-1] == "bye"
    with logs.recorded(["value"]):
        logs.keep_in(Location(run))
        work()
    assert [line for line in there() if line.startswith("command")] == [
        "command: dcai-ray extract",
        "command: dcai-ray value",
    ]


def test_a_store_that_does_not_answer_costs_the_log_and_not_the_run(monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(Location, "read_bytes", lambda self: b"")
    with logs.recorded(["value"]):
        logs.keep_in(Location("s3://bucket/run"))
        work()
        work()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "s3://bucket/run/run.log: cannot be written" in said[0]


@pytest.mark.ray
def test_a_command_with_work_is_logged_and_the_same_again_changes_no_file(
    features, tmp_path, capsys, ray_cluster
):
    run = tmp_path / "run"
    arguments = ("value", "--run", run, "--features", features, "--rule", "zero")
    done(*arguments)
    told = messages(run)
    assert told[0].startswith("command: dcai-ray value --run ")
    assert any(line.startswith("step values: done in ") for line in told)
    shown = capsys.readouterr().err.splitlines()
    assert set(shown) <= set(told)
    before = files(run)
    done(*arguments)
    done("status", "--run", run)
    assert main(["value", "--run", str(run), "--k", "3"]) == 1  # refused: other settings
    assert files(run) == before
    done("report", "--run", run)
    assert messages(run)[-1] == f"report: {run}/report.html"


@pytest.mark.ray
def test_quiet_leaves_stderr_empty_and_the_results_on_stdout(
    features, tmp_path, capsys, ray_cluster
):
    run = tmp_path / "run"
    done("value", "--run", run, "--features", features, "--rule", "zero", "--quiet")
    said = capsys.readouterr()
    assert said.err == ""
    assert f"report: {run}/report.html" in said.out
