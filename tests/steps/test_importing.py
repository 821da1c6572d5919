import struct

import numpy as np
import pytest

from dcai_ray.errors import UserError
from dcai_ray.images.decoding import read
from dcai_ray.images.sources import list_run
from dcai_ray.networks import torchvision_sets
from dcai_ray.steps import importing
from dcai_ray.storage.location import Location

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def mnist(tmp_path):
    """Files as LeCun's page describes them."""
    folder = tmp_path / "data/MNIST/raw"
    folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        images = struct.pack(">4i", 2051, *PIXELS.shape) + PIXELS.tobytes()
        labels = struct.pack(">2i", 2049, len(LABELS)) + LABELS.astype(np.uint8).tobytes()
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{name}-{kind}-ubyte").write_bytes(content)
    return f"torchvision:MNIST:{tmp_path / 'data'}"


def test_the_splits_of_a_class_are_written_once(mnist, tmp_path, monkeypatch):
    run = Location(str(tmp_path / "run"))
    listing = list_run(importing.import_torchvision(mnist, run))
    assert len(listing.split("train")) == 12
    assert listing.classes == ("0 - zero", "1 - one", "2 - two")
    for i, image in enumerate(listing.split("train")):
        assert image.label.startswith(str(LABELS[i]))
        np.testing.assert_array_equal(np.asarray(read(image.file(listing.root)))[..., 0], PIXELS[i])
    monkeypatch.setattr(torchvision_sets, "splits_of", None)  # would fail if it were called
    assert importing.import_torchvision(mnist, run) == listing.root


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("torchvision:CIFAR10", "expected torchvision:NAME:FOLDER"),
        ("torchvision:CIFAR11:/data", "torchvision has no data set CIFAR11"),
        ("torchvision:CIFAR10:/nowhere", r"torchvision:CIFAR10: /nowhere does not hold it"),
        ("torchvision:FakeData:/data", "has neither train= nor split="),
    ],
)
def test_what_cannot_be_imported_is_one_line(tmp_path, data, line):
    with pytest.raises(UserError, match=line):
        importing.import_torchvision(data, Location(str(tmp_path)))
