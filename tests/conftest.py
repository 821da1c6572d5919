"""Fixtures that many tests use, and the lanes that the tests run in.

`make test` runs three lanes side by side (`--dist loadgroup`):

- `hosts`: tests on simulated machines (`tests.support.hosts`), one after the other;
- `ray`: tests that use `ray_cluster`; they share the one cluster of their process;
- all others, a file at a time by whichever process is free. Those that are marked `ray` start a Ray
  of their own; `-m hosts` means these too.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# Before NumPy and torch are imported: lanes share the cores, and threads that wait for each other
# spin. How many threads there are decides no result (tests/networks/test_features.py).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers would give way to all other lanes: their niceness is 15.
os.environ.setdefault("RAY_worker_niceness", "0")
# Idle workers would end after a second, and the next test would import torch in new ones.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")

import hypothesis
import numpy as np
import pytest
from PIL import Image

from tests.support.object_store import ObjectStore, running_store
from tests.support.small_runs import done, write_pictures, write_settings

# What a test takes depends on what runs beside it.
hypothesis.settings.register_profile("lanes", deadline=None)
hypothesis.settings.load_profile("lanes")

REPOSITORY = Path(__file__).resolve().parents[1]
_LANES = ("hosts", "ray")
_SIMULATED = ("test_hosts", "test_autoscaling")  # files whose tests run on simulated machines


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test with its lane, before any plugin asks for markers."""
    item.add_marker(pytest.mark.xdist_group(_lane(item)))
    if _uses_cluster(item):
        item.add_marker("ray")
    elif item.get_closest_marker("ray"):
        item.add_marker("hosts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long lanes.

    Of the others the numerical core is first: it compiles the kernels while the `ray` lane boots,
    and all that follow find them in numba's cache beside the sources. Then come the tests that wait
    for a Ray of their own.
    """
    items.sort(key=_place)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ungrouped tests would pass too, with several clusters and in twice the time."""
    if "PYTEST_XDIST_WORKER" in os.environ and not all("@" in i.nodeid for i in session.items):
        raise pytest.UsageError("lanes need --dist loadgroup and a pytest-xdist that groups by it")


def _lane(item: pytest.Item) -> str:
    if _uses_cluster(item):
        return "ray"
    if item.path.stem in _SIMULATED:
        return "hosts"
    return f"{item.path.stem}-ray" if item.get_closest_marker("ray") else item.path.stem


def _uses_cluster(item: pytest.Item) -> bool:
    return "ray_cluster" in getattr(item, "fixturenames", ())


def _place(item: pytest.Item) -> int:
    lane = _lane(item)
    if lane in _LANES:
        return _LANES.index(lane)
    if "valuation" in item.path.parts:
        return len(_LANES)
    return len(_LANES) + (1 if lane.endswith("-ray") else 2)


@pytest.fixture(autouse=True)
def _no_cluster_by_accident(request: pytest.FixtureRequest) -> Iterator[None]:
    """A command that joins no cluster starts one: its test must use `ray_cluster`."""
    before = _has_cluster()
    yield
    assert before or not _has_cluster() or "ray_cluster" in request.fixturenames, (
        "started a Ray cluster in the tests' own process; use ray_cluster"
    )


def _has_cluster() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


@pytest.fixture
def image_folder(tmp_path) -> Callable[..., Path]:
    """A factory: `image_folder({"train/cat": 3, "train/dog": 2})` writes as many images and gives
    the root. The images are noise, all different, the same in every run."""

    def write(counts: Mapping[str, int], *, name="data", size_px=8, seed=0) -> Path:
        rng = np.random.default_rng(seed)
        for folder, count in counts.items():
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / folder / f"{i:03d}.png")
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Data sets that are not part of the repository: the study's features, cats and dogs."""
    beside = REPOSITORY.parent / "shared/data"
    folder = Path(os.environ.get("DCAI_RAY_SHARED_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; DCAI_RAY_SHARED_DATA may name their folder")
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> Path:
    """Pictures of `small_runs`; not to be changed."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def small_settings(tmp_path_factory) -> Path:
    """Settings of `small_runs` as a file."""
    return write_settings(tmp_path_factory.mktemp("settings") / "small.yaml")


@pytest.fixture(scope="session")
def small_run(small_data, small_settings, tmp_path_factory, ray_cluster) -> Path:
    """A run on them that nothing disturbed; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    done("run", "--data", small_data, "--run", run, "--config", small_settings)
    return run


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """One object store for all tests; its variables are set until they end."""
    with running_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, text in store.variables.items():
            patch.setenv(name, text)
        yield store


@pytest.fixture(scope="session")
def ray_cluster(object_store) -> Iterator[str]:
    """The address of one local cluster of two worker processes, which this process has joined, for
    all tests that need one; its workers know the object store."""
    import ray

    from dcai_ray.cluster.connection import connect
    from dcai_ray.config import ResourcesConfig

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        connect(ResourcesConfig(num_cpus=2))
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
