"""Extraction against a plain PyTorch loop over the same files."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from dcai_ray.networks.features import extract
from dcai_ray.networks.heads import feature_extractor
from dcai_ray.networks.pixels import usual_pixels
from dcai_ray.storage.location import Location

pytestmark = pytest.mark.slow  # networks of full size
SIZE_PX = 64
PIXELS = usual_pixels(SIZE_PX)


@pytest.fixture(scope="module")
def network():
    return feature_extractor("resnet18", "none", SIZE_PX)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Eleven pictures of different sizes, formats and modes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    modes, endings = ("RGB", "L", "P"), ("png", "jpg", "bmp")
    found = []
    for i in range(11):
        pixels = rng.integers(0, 256, (60 + 9 * i, 150 - 8 * i, 3), dtype=np.uint8)
        mode, ending = modes[i % 3], endings[i // 4]
        image = Image.fromarray(pixels).convert("L" if mode == "P" and ending == "jpg" else mode)
        image.save(folder / f"{i}.{ending}")
        found.append(Location(str(folder / f"{i}.{ending}")))
    return found


def plain_loop(network, files):
    """One picture at a time, as anyone would write it."""
    transform = v2.Compose(
        [
            v2.Resize(SIZE_PX),
            v2.CenterCrop(SIZE_PX),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    with torch.no_grad():
        rows = [network(transform(Image.open(f.uri).convert("RGB"))[None])[0] for f in files]
    return torch.stack(rows).numpy()


@pytest.fixture(scope="module")
def expected(network, files):
    return plain_loop(network, files)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 11, 32])
def test_features_are_those_of_a_plain_loop_in_the_files_order(
    network, files, expected, batch_size
):
    found = extract(network, files, pixels=PIXELS, batch_size=batch_size)
    assert found.dtype == np.float32
    # Features up to 4 in float32, through 18 layers summed in another order.
    assert_allclose(found, expected, rtol=0, atol=3e-5)
    assert found.std(axis=0).max() > 0.01  # the pictures do differ


def test_a_pass_takes_a_batch_at_a_time(network, files):
    sizes = []
    hook = network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    extract(network, files, pixels=PIXELS, batch_size=4)
    hook.remove()
    assert sizes == [4, 4, 3]


def test_the_number_of_threads_does_not_change_a_bit(network, files):
    first = extract(network, files, pixels=PIXELS, batch_size=4, threads=1)
    for threads in (1, 4):
        again = extract(network, files, pixels=PIXELS, batch_size=4, threads=threads)
        assert_array_equal(first, again)


def test_an_unreadable_file_is_named(network, files, tmp_path):
    broken = tmp_path / "cut short.png"
    with open(files[0].uri, "rb") as whole:
        broken.write_bytes(whole.read()[:200])
    with pytest.raises(ValueError, match=f"^{broken}: damaged"):
        extract(network, [*files, Location(str(broken)), *files], pixels=PIXELS, batch_size=4)
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        extract(network, [*files, Location(str(tmp_path / "gone.png"))], pixels=PIXELS)


class Contrast(nn.Module):
    """One over the range of red in a picture: infinite for one of a single colour."""

    def forward(self, x):
        red = x[:, 0].flatten(1)
        return 1 / (red.amax(dim=1) - red.amin(dim=1))[:, None]


def test_a_feature_that_is_not_finite_names_its_file(files, tmp_path):
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white.png")
    white = Location(str(tmp_path / "white.png"))
    with pytest.raises(ValueError, match=r"white\.png: the network outputs NaN or infinite"):
        extract(Contrast(), [*files, white, *files], pixels=PIXELS, batch_size=4)
    assert np.isfinite(extract(Contrast(), files, pixels=PIXELS)).all()
