"""Deep greys against what the formats and TIFF 6.0 say, with files written by hand."""

import io
import struct

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from dcai_ray.images.decoding import decode, inspect, read
from dcai_ray.images.depth import Depth, suggested_white, whites
from dcai_ray.images.picture_files import PictureFile
from dcai_ray.storage.location import Location

RAMP = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)


def tiff(pixels, bits, kind=1, **largest):
    """A little-endian grey TIFF; kind 1: whole numbers, 2: signed, 3: floats."""
    tags = {
        256: (4, pixels.shape[1]),
        257: (4, pixels.shape[0]),
        258: (3, bits),
        259: (3, 1),
        262: (3, 1),
        273: (4, 0),
        277: (3, 1),
        278: (4, pixels.shape[0]),
        339: (3, kind),
    }
    if bits == 12:  # two values in three bytes, the highest bits first
        data = int("".join(f"{v:012b}" for v in pixels.ravel()), 2).to_bytes(pixels.size * 3 // 2)
    else:
        data = pixels.tobytes()
    tags[279] = (4, len(data))
    for tag, value in largest.items():
        number = {"max_sample": 281, "s_max_sample": 341}[tag]
        tags[number] = (11, value) if kind == 3 else (3, value)
    tags[273] = (4, 8 + 2 + 12 * len(tags) + 4)
    entries = b"".join(
        struct.pack("<HHI", tag, how, 1) + struct.pack({3: "<Hxx", 4: "<I", 11: "<f"}[how], value)
        for tag, (how, value) in sorted(tags.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + data


def saved(image, kind):
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def grey(content, white=0.0):
    return np.asarray(decode(content, white))[..., 0]


def test_12_bits_are_scaled_by_their_own_range():
    values = np.array([[0, 257, 2048, 4095]] * 2, dtype=np.uint16)
    content = tiff(values, 12)
    assert inspect(content).depth.declared == 4095
    assert_array_equal(grey(content)[0], [0, 16, 128, 255])  # 255 v / 4095


@pytest.mark.parametrize("top", [1023, 4095])
def test_a_declared_largest_value_is_white(top):
    values = np.array([[0, 200, top // 2, top]] * 2, dtype=np.uint16)
    for tag in ("max_sample", "s_max_sample"):
        expected = np.round(values.astype(float) * 255 / top)
        assert_array_equal(grey(tiff(values, 16, **{tag: top})), expected)


def test_a_largest_value_that_was_only_counted_in_the_file_is_no_range():
    values = np.array([[0, 257, 1000, 1211]] * 2, dtype=np.uint16)
    assert_array_equal(grey(tiff(values, 16, max_sample=1211))[0], [0, 1, 4, 5])


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_16_bits_are_scaled_by_the_format_however_dark_the_picture(kind):
    dark = Image.fromarray(np.array([[0, 100, 255, 514]], dtype=np.uint16))
    if kind == "ppm":
        content = b"P5 4 1 65535\n" + np.asarray(dark).astype(">u2").tobytes()
    else:
        content = saved(dark, kind)
    assert_array_equal(grey(content), [[0, 0, 1, 2]])


@pytest.mark.parametrize("odd", [1.01, 7.0, np.inf, np.nan, -3.0])
@pytest.mark.parametrize("scale", [1, 255, 65535])
def test_one_odd_pixel_leaves_the_others_as_they_are(odd, scale):
    values = np.tile(RAMP, (8, 8)) * scale  # 4096 pixels
    expected = grey(tiff(values.astype(np.float32), 32, 3))
    assert expected.max() == 255
    spoilt = values.copy()
    spoilt[0, 0] = odd * scale
    got = grey(tiff(spoilt.astype(np.float32), 32, 3))
    assert_array_equal(got.ravel()[1:], expected.ravel()[1:])
    assert got[0, 0] == (255 if odd > 1 else 0)


def test_the_range_of_a_data_set_is_the_same_for_its_dark_and_its_bright_files():
    bright = [inspect(tiff(RAMP * 255, 32, 3)) for _ in range(30)]
    dark = inspect(tiff(RAMP * np.float32(0.8), 32, 3))  # alone it would be taken as 0 to 1
    assert grey(tiff(RAMP * np.float32(0.8), 32, 3)).max() == 204
    levels = whites([found.depth for found in [*bright, dark]])
    assert set(levels) == {255.0}
    assert grey(tiff(RAMP * np.float32(0.8), 32, 3), levels[-1]).max() == 1


def test_a_stray_file_does_not_decide_for_the_others():
    depths = [Depth("float", 0.0, 1.0)] * 40 + [Depth("float", 0.0, 1e30), None]
    assert whites(depths) == [1.0] * 41 + [0.0]


def test_kinds_are_told_apart_and_declared_ranges_kept():
    depths = [
        Depth("float", 0.0, 200.0),
        Depth("integer", 0.0, 3000.0),
        Depth("integer", 4095.0, 3000.0),
    ]
    assert whites(depths) == [255.0, 65535.0, 4095.0]


@pytest.mark.parametrize(
    ("kind", "high", "white"),
    [
        ("float", 0.0, 1.0),
        ("float", 1.0, 1.0),
        ("float", 1.0001, 255.0),
        ("float", 256.0, 65535.0),
        ("float", 100_000.0, 131_072.0),
        ("integer", 255.0, 255.0),
        ("integer", 256.0, 65535.0),
        ("integer", 70_000.0, 2.0**31 - 1),
    ],
)
def test_the_smallest_usual_range_is_taken(kind, high, white):
    assert suggested_white([Depth(kind, 0.0, high)]) == white


def test_a_file_is_read_by_the_range_that_it_is_given(tmp_path):
    file = Location(str(tmp_path / "a.tif"))
    file.write_bytes(tiff(RAMP, 32, 3))
    assert np.asarray(read(PictureFile(file.parent, file.name, white=2.0))).max() == 128
    assert np.asarray(read(file)).max() == 255


def test_8_bits_have_no_depth():
    for image in (Image.new("RGB", (3, 3)), Image.new("L", (3, 3)), Image.new("1", (3, 3))):
        assert inspect(saved(image, "png")).depth is None
