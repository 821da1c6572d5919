"""Two commands cannot work in one folder; what ends, however it ends, holds nothing."""

import multiprocessing
import os
import signal

import pytest

from dcai_ray.errors import UserError
from dcai_ray.storage.folder_lock import locked
from dcai_ray.storage.location import Location


def hold(folder, holding):
    with locked(Location(folder)):
        holding.set()
        signal.pause()


@pytest.fixture
def held(tmp_path):
    """A folder that another process holds, and that process."""
    context = multiprocessing.get_context("spawn")
    holding, folder = context.Event(), str(tmp_path / "run")
    process = context.Process(target=hold, args=(folder, holding))
    process.start()
    assert holding.wait(60)
    yield folder, process
    process.kill()
    process.join()


def test_a_folder_that_another_process_holds_is_refused_until_that_one_is_killed(held):
    folder, process = held
    with (
        pytest.raises(UserError, match=r"run: another command is at work"),
        locked(Location(folder)),
    ):
        pass
    process.kill()
    process.join()
    with locked(Location(folder)):
        pass


def test_an_error_gives_the_folder_back_and_an_empty_one_goes(tmp_path):
    folder = Location(str(tmp_path / "run"))
    with pytest.raises(ValueError, match="mine"), locked(folder):
        raise ValueError("mine")
    assert not folder.exists()
    with locked(folder):
        (folder / "file").write_bytes(b"x")
    assert os.listdir(folder.uri) == ["file"]


def test_a_store_without_locks_is_used_without():
    with locked(Location("s3://bucket/run")):
        pass
