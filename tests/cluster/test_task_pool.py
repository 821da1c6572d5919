"""Tasks against what only real processes show; order and limits are tested in test_ledger."""

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray

from dcai_ray import progress
from dcai_ray.cluster import connection, task_pool
from dcai_ray.cluster.ledger import TaskLedger
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ClusterError, UserError, can_be_mended
from dcai_ray.images.picture_files import PictureFile
from dcai_ray.steps.tasks import InspectJob
from dcai_ray.storage.location import Location

pytestmark = pytest.mark.ray
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
RESOURCES = ResourcesConfig(num_cpus=2)
FOREVER_S = 300.0
SOON_S = 30.0


def results(function, jobs, **options):
    step = Step(**{"name": "testing", "unit": "jobs", **options})
    return list(run_tasks(function, jobs, step, RESOURCES))


def wait_for(condition, within_s=SOON_S):
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def idle_cpus():
    return ray.available_resources().get("CPU", 0)


@contextmanager
def interrupted_when(condition):
    """Ctrl-C in this process once the condition holds."""

    def interrupt():
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def refuse(job):
    """Job 1 raises once job 0 is at work; the others would take minutes."""
    folder, number = job
    if number == 1:
        wait_for((folder / "0").exists)
        raise UserError("train/cat/1.png: 0 pixels; remove it")
    (folder / str(number)).touch()
    time.sleep(FOREVER_S)


class Holder:
    """Somebody else's actor."""

    def name(self):
        return "holder"


def end_when_told(job):
    folder, number = job
    (folder / str(number)).touch()
    wait_for((folder / "end").exists)
    (folder / "ended").touch()


def die_the_first_time(job):
    file, number = job
    if number == 2 and not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def die_every_time(job):
    with job.open("a") as stream:
        stream.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def entry_and_ownership(job, shared):
    return float(shared[job]), shared.flags.owndata


def name_in_the_dashboard(job):
    return ray.get_runtime_context().get_task_name()


def tick_halfway(file, tick):
    tick(5)
    wait_for(file.exists)
    tick(10)


def test_no_jobs_need_no_cluster(monkeypatch):
    monkeypatch.setattr(connection, "connect", lambda resources: pytest.fail("connected"))
    assert results(name_in_the_dashboard, []) == []


def test_tasks_are_named_for_the_dashboard_after_their_work_or_their_step(ray_cluster):
    names = ["extract train/part-00000", "extract train/part-00001"]
    assert results(name_in_the_dashboard, [0, 1], task_names=names) == names
    assert results(name_in_the_dashboard, [0, 1]) == ["testing 0", "testing 1"]


def add_what_does_not_fit(job):
    """A mistake of ours."""
    return np.zeros(3) + np.zeros(job)


def read_what_is_not_there(job):
    return Path(job).read_bytes()


def test_a_bug_in_a_task_keeps_the_workers_traceback(ray_cluster):
    with pytest.raises(ValueError, match=r"^operands could not be broadcast") as caught:
        results(add_what_does_not_fit, [4])
    told = "".join(traceback.format_exception(caught.value))
    assert "in add_what_does_not_fit" in told
    assert not can_be_mended(caught.value)


def test_a_file_that_a_task_cannot_read_is_named(ray_cluster, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        results(read_what_is_not_there, [str(tmp_path / "nowhere")])
    assert caught.value.filename == str(tmp_path / "nowhere")
    assert caught.value.__suppress_context__


def test_a_task_that_raises_ends_the_step_with_its_own_error_alone(ray_cluster, tmp_path):
    with pytest.raises(ValueError, match=r"^train/cat/1\.png: 0 pixels; remove it$") as caught:
        results(refuse, [(tmp_path, number) for number in range(6)])
    assert type(caught.value) is UserError
    assert caught.value.__suppress_context__


def test_a_task_that_raises_cancels_the_others(ray_cluster, tmp_path):
    wait_for(lambda: idle_cpus() == 2)
    with pytest.raises(ValueError, match="remove it"):
        results(refuse, [(tmp_path, number) for number in range(6)])
    wait_for(lambda: idle_cpus() == 2)
    assert not {path.name for path in tmp_path.iterdir()} & {"3", "4", "5"}


def test_ctrl_c_leaves_the_running_tasks_to_end_with_the_driver_or_by_themselves(
    ray_cluster, tmp_path
):
    wait_for(lambda: idle_cpus() == 2)
    with pytest.raises(KeyboardInterrupt), interrupted_when((tmp_path / "0").exists):
        results(end_when_told, [(tmp_path, 0)])
    assert not (tmp_path / "ended").exists()
    (tmp_path / "end").touch()
    wait_for((tmp_path / "ended").exists)
    wait_for(lambda: idle_cpus() == 2)


def test_who_waits_for_cores_that_others_have_taken_says_so(ray_cluster, monkeypatch, capsys):
    monkeypatch.setattr(task_pool, "_PATIENCE_S", 0.5)
    holder = ray.remote(num_cpus=2)(Holder).remote()
    ray.get(holder.name.remote())
    threading.Timer(3, ray.kill, [holder]).start()
    assert len(results(name_in_the_dashboard, [0])) == 1
    line = "testing: waiting for a core that others have taken"
    assert capsys.readouterr().err.splitlines().count(line) >= 2
    assert len(results(name_in_the_dashboard, [0])) == 1
    assert line not in capsys.readouterr().err


def test_a_task_whose_process_is_killed_is_run_again(ray_cluster, tmp_path):
    flag = tmp_path / "killed"
    assert results(die_the_first_time, [(flag, i) for i in range(5)]) == [0, 1, 4, 9, 16]
    assert flag.exists()


def test_a_task_that_kills_its_process_every_time_ends_the_step_in_one_line(
    ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(task_pool, "_RETRIES", 1)
    line = r"^the process or node of a task died 2 times: testing 0; if it was for lack [^\n]*$"
    with pytest.raises(ClusterError, match=line):
        results(die_every_time, [tmp_path / "tries"])
    assert len((tmp_path / "tries").read_text()) == 2


def test_a_task_is_described_by_what_it_holds():
    job = InspectJob([PictureFile(Location("data"), f"train/{n}.png") for n in "ab"], 1)
    described = task_pool.described(job, "read images 0-1")
    assert described == "read images 0-1 (2 images, train/a.png to train/b.png)"
    assert task_pool.described(slice(0, 64), "value 0-63") == "value 0-63"


def test_four_tasks_per_core_may_be_ahead(ray_cluster, monkeypatch):
    limits, submit = set(), TaskLedger.submit
    monkeypatch.setattr(
        TaskLedger, "submit", lambda self, limit: limits.add(limit) or submit(self, limit)
    )
    results(name_in_the_dashboard, [0])
    assert limits == {8}


def test_an_array_bound_to_the_function_is_one_array_in_the_object_store(ray_cluster):
    shared = np.arange(1_000_000, dtype=np.float64)
    found = results(partial(entry_and_ownership, shared=shared), [3, 999_999])
    assert found == [(3.0, False), (999_999.0, False)]


def test_progress_counts_the_units_that_running_tasks_report(ray_cluster, tmp_path, monkeypatch):
    reported = []
    proceed = tmp_path / "proceed"

    @contextmanager
    def step(name, total, unit):
        def report(done):
            reported.append(done)
            if done == 5:
                proceed.touch()

        assert (name, total, unit) == ("testing", 10, "epochs")
        yield report

    monkeypatch.setattr(progress, "step", step)
    results(tick_halfway, [proceed], unit="epochs", sizes=[10], reports_progress=True)
    assert 5 in reported
    assert reported == sorted(reported)


def test_progress_counts_finished_tasks_by_their_size(ray_cluster, tmp_path, monkeypatch):
    reported = []

    @contextmanager
    def step(name, total, unit):
        assert total == 7
        yield reported.append

    monkeypatch.setattr(progress, "step", step)
    results(die_the_first_time, [(tmp_path / "flag", i) for i in (0, 1)], sizes=[3, 4])
    assert reported[-1] == 7
    assert reported == sorted(reported)
