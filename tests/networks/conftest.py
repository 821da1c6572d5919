"""Pictures, and a machine that is cut off from all networks."""

import socket

import numpy as np
import pytest
from PIL import Image

from dcai_ray.storage.location import Location


@pytest.fixture(scope="session")
def three_pictures(tmp_path_factory) -> list[Location]:
    """A wide, a high and a square picture."""
    folder, rng = tmp_path_factory.mktemp("three"), np.random.default_rng(0)
    files = []
    for i, (height, width) in enumerate([(90, 140), (150, 70), (64, 64)]):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        files.append(Location(str(folder / f"{i}.png")))
    return files


@pytest.fixture
def cut_off(monkeypatch, tmp_path):
    """No network, and empty caches: gives the folder of PyTorch's."""
    from huggingface_hub import constants

    def refuse(*args, **options):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path / "hub/checkpoints"


@pytest.fixture
def in_hub_cache(tmp_path, monkeypatch):
    """`in_hub_cache(repository)` gives the folder of a repository in a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))

    def folder(repository):
        place = tmp_path / f"hf/models--{repository.replace('/', '--')}"
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs/main").write_text("0" * 40)
        (place / "snapshots" / ("0" * 40)).mkdir(parents=True, exist_ok=True)
        return place / "snapshots" / ("0" * 40)

    return folder
