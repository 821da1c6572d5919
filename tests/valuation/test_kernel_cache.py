"""Compiled kernels have a place even where home and package cannot be written to."""

import os
import stat
from pathlib import Path

import pytest

from dcai_ray.valuation import kernel_cache
from dcai_ray.valuation.kernel_cache import use_writable_cache


@pytest.fixture
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")  # so that what a test sets is undone
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    return monkeypatch


def nowhere(monkeypatch, tmp_path):
    """Folders in a file: nobody can write there, root neither."""
    (tmp_path / "file").touch()
    places = [tmp_path / "file/__pycache__", tmp_path / "file/numba"]
    monkeypatch.setattr(kernel_cache, "_own_places", lambda: places)


def test_where_numba_has_a_place_nothing_is_set(environment, tmp_path):
    (tmp_path / "file").touch()
    places = [tmp_path / "file/__pycache__", tmp_path / "home/numba"]
    environment.setattr(kernel_cache, "_own_places", lambda: places)
    use_writable_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_without_a_place_all_processes_of_a_user_share_a_private_folder(environment, tmp_path):
    nowhere(environment, tmp_path)
    use_writable_cache()
    first = Path(os.environ.pop("NUMBA_CACHE_DIR"))
    assert first.parent == tmp_path
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    use_writable_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]) == first


def test_a_folder_that_others_can_write_to_is_not_trusted(environment, tmp_path):
    nowhere(environment, tmp_path)
    planted = tmp_path / f"dcai_ray-kernels-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    use_writable_cache()
    found = Path(os.environ["NUMBA_CACHE_DIR"])
    assert found != planted
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_a_place_that_the_user_has_set_stays(environment, tmp_path):
    nowhere(environment, tmp_path)
    environment.setenv("NUMBA_CACHE_DIR", "/mine")
    use_writable_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "/mine"
