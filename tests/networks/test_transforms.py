"""Pixels against torchvision's own transforms."""

import itertools
import resource
import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torchvision.transforms import RandomResizedCrop, v2

from dcai_ray.networks.pixels import Pixels, usual_pixels
from dcai_ray.networks.transforms import centre_crop, normalized, random_crop
from dcai_ray.storage.read_ahead import read_ahead

RATIO = [3 / 4, 4 / 3]  # torchvision's default


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def ramps(width, height):
    """Red rises by one a column, green by one a row: a crop's colours say where it was cut."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns, rows, 0 * rows], axis=2)
    assert pixels.max() < 256
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (101, 67), (30, 200), (200, 45), (224, 224)])
def test_centre_crop_is_torchvisions_resize_and_centre_crop(size):
    image = noise(*size)
    theirs = v2.Compose([v2.Resize(48), v2.CenterCrop(48), v2.PILToTensor()])
    assert_array_equal(centre_crop(image, usual_pixels(48)), theirs(image))


@pytest.mark.parametrize("size", [(64, 64), (101, 67), (30, 200), (48, 56)])
@pytest.mark.parametrize("mode", v2.InterpolationMode)
def test_every_kind_of_interpolation_is_torchvisions(size, mode):
    image = noise(*size)
    for whole in (True, False):
        resize = v2.Resize([56, 56] if whole else 56, mode)
        theirs = v2.Compose([resize, v2.CenterCrop(48), v2.PILToTensor()])
        pixels = Pixels(size_px=48, resize_px=56, interpolation=mode.value, whole=whole)
        assert_array_equal(centre_crop(image, pixels), theirs(image))


@pytest.mark.parametrize("length", [9, 100, 801, 3000])
@pytest.mark.parametrize("breadth", [1, 2, 7, 90])
def test_the_middle_of_a_long_strip_is_that_of_the_whole_resized(length, breadth):
    """The two passes of the resize are rounded to whole levels in another order when it is tall."""
    whole = v2.Compose([v2.Resize(48), v2.CenterCrop(48), v2.PILToTensor()])
    for size in ((length, breadth), (breadth, length)):
        got, theirs = centre_crop(noise(*size), usual_pixels(48)).int(), whole(noise(*size)).int()
        assert (got - theirs).abs().max() <= 1


@pytest.mark.parametrize("size", [(9, 801), (801, 9), (3000, 90)])
@pytest.mark.parametrize("kind", ["BICUBIC", "LANCZOS", "BILINEAR"])
def test_the_middle_of_a_strip_is_cropped_from_what_any_network_would_resize(size, kind):
    mode = v2.InterpolationMode[kind]
    whole = v2.Compose([v2.Resize(56, mode), v2.CenterCrop(48), v2.PILToTensor()])
    pixels = Pixels(size_px=48, resize_px=56, interpolation=kind.lower())
    got, theirs = centre_crop(noise(*size), pixels).int(), whole(noise(*size)).int()
    assert (got - theirs).abs().max() <= 1  # rounded in another order


def test_a_strip_of_a_few_bytes_takes_little_memory():
    """Resized whole, each of the first two takes 300 MB, and the others 10 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in ((2_000, 1), (1, 2_000), (65_535, 1), (1, 65_535)):
        centre_crop(Image.new("RGB", size), usual_pixels(224))
        random_crop(Image.new("RGB", size), usual_pixels(224), np.random.default_rng(0))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert peak - before < 50_000  # KB


def test_normalized_is_torchvisions_for_imagenet():
    images = [noise(32, 32, seed) for seed in range(3)]
    theirs = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    expected = torch.stack([theirs(image) for image in images])
    batch = normalized(
        [centre_crop(image, usual_pixels(32)) for image in images],
        usual_pixels(32),
        torch.device("cpu"),
    )
    torch.testing.assert_close(batch, expected, rtol=0, atol=1e-6)  # a few float32 roundings at 2
    assert batch.is_contiguous(memory_format=torch.channels_last)


def edges(crop):
    """(left, top, width, height) in pixels of `ramps` that an unflipped crop covers."""
    red, green, _ = crop.numpy().astype(float)
    step_x, step_y = (np.ptp(c) / (len(crop[0]) - 1) for c in (red, green))
    left, top = red.min() - step_x / 2 + 0.5, green.min() - step_y / 2 + 0.5
    return left, top, step_x * len(crop[0]), step_y * len(crop[0])


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.25, 0.5)])
def test_random_crop_is_spread_as_torchvisions(scale):
    image, count = ramps(256, 200), 1000
    ours = np.array(
        [
            edges(
                random_crop(
                    image, usual_pixels(64), np.random.default_rng(i), scale=scale, flip=False
                )
            )
            for i in range(count)
        ]
    )
    torch.manual_seed(0)
    draws = [RandomResizedCrop.get_params(image, list(scale), RATIO) for _ in range(count)]
    theirs = np.array(draws)[:, [1, 0, 3, 2]]  # from top, left, height, width
    for box in (ours, theirs):  # ours is read from colours: to a pixel or two
        area = box[:, 2] * box[:, 3] / (256 * 200)
        assert scale[0] * 0.9 < area.min() < area.max() < min(1.0, scale[1] * 1.1)
        ratio = box[:, 2] / box[:, 3]
        assert 0.7 < ratio.min() < ratio.max() < 1.4
    for power in (1, 2):
        a, b = ours**power, theirs**power
        tolerance = 4 * np.sqrt((a.var(axis=0) + b.var(axis=0)) / count)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < tolerance + 1).all()


@pytest.mark.parametrize("size", [(200, 40), (40, 200), (60, 80), (64, 64)])
def test_a_crop_that_never_fits_is_torchvisions_fallback(size):
    """The whole area with other sides does not fit: the centre, as near to the whole as may be."""
    image = noise(*size)
    theirs = v2.Compose([RandomResizedCrop(48, scale=(1, 1)), v2.PILToTensor()])
    crop = random_crop(
        image, usual_pixels(48), np.random.default_rng(0), scale=(1.0, 1.0), flip=False
    )
    assert_array_equal(crop, theirs(image))


def test_half_of_the_crops_are_mirrored_on_request():
    image, mirrored = ramps(100, 100), 0
    for i in range(1000):
        red = random_crop(image, usual_pixels(32), np.random.default_rng(i), scale=(0.2, 1.0))[
            0
        ].float()
        mirrored += bool(red[:, 0].mean() > red[:, -1].mean())
        plain = random_crop(
            image, usual_pixels(32), np.random.default_rng(i), scale=(0.2, 1.0), flip=False
        )[0]
        assert plain[:, 0].float().mean() < plain[:, -1].float().mean()
    assert abs(mirrored - 500) < 80  # five standard deviations of sqrt(1000) / 2


def test_a_crop_depends_on_its_generator_alone():
    image = noise(80, 60)
    crops = [
        random_crop(image, usual_pixels(32), np.random.default_rng(seed)) for seed in (1, 2, 1)
    ]
    assert_array_equal(crops[0], crops[2])
    assert (crops[0] != crops[1]).any()


@pytest.mark.parametrize("threads", [1, 3])
def test_read_ahead_keeps_the_order(threads):
    def slow_if_even(i):
        if i % 2 == 0:
            threading.Event().wait(0.01)
        return i * i

    assert list(read_ahead(slow_if_even, range(20), threads)) == [i * i for i in range(20)]


def test_read_ahead_is_only_a_little_ahead():
    asked = itertools.count()
    results = read_ahead(lambda i: i, iter(lambda: next(asked), -1), 2)
    assert [next(results) for _ in range(10)] == list(range(10))
    results.close()
    assert next(asked) < 10 + 3 * 2  # two a thread waiting, whatever the number of arguments


def test_an_error_while_reading_ahead_comes_out_in_its_place():
    results = read_ahead(lambda i: 1 / (3 - i), range(100), 2)
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
