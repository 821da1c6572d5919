"""What pictures show: the same in other files, nothing at all, or something on the wrong ground."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageDraw

from dcai_ray.images.decoding import decode, inspect
from dcai_ray.images.shown import blanks, found_in, under_two_labels
from tests.support.image_sets import image_set

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
WHITE, BLACK = [255] * 3, [0] * 3


def saved(image, kind="png", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def test_a_picture_saved_anew_or_turned_by_exif_shows_the_same():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left
    turned = NOISE.transpose(Image.Transpose.ROTATE_90)
    files = [
        saved(NOISE),
        saved(NOISE, compress_level=0),
        saved(NOISE, "bmp"),
        saved(NOISE, "webp", lossless=True),
        saved(NOISE, "tiff", compression="tiff_lzw"),
        saved(turned, exif=exif),
        saved(NOISE.convert("RGBA")),
    ]
    assert len({inspect(file).sha256 for file in files}) == len(files)
    assert len({inspect(file).pixels for file in files}) == 1


def test_other_pictures_do_not():
    other = NOISE.copy()
    other.putpixel((3, 4), (0, 0, 0))
    flat = Image.fromarray(np.asarray(NOISE).reshape(30, 20, 3))
    pictures = [NOISE, other, flat, NOISE.transpose(Image.Transpose.ROTATE_180)]
    assert len({inspect(saved(picture)).pixels for picture in pictures}) == len(pictures)


def test_deep_greys_are_compared_before_they_are_scaled():
    values = np.arange(40, dtype=np.uint16).reshape(5, 8)
    first, second = Image.fromarray(values), Image.fromarray(values + 1)  # alike in 8 bits
    assert_array_equal(decode(saved(first)), decode(saved(first, "tiff")))
    assert inspect(saved(first)).pixels == inspect(saved(first, "tiff")).pixels
    assert inspect(saved(first)).pixels != inspect(saved(second)).pixels
    portable = b"P5 8 5 65535\n" + values.astype(">u2").tobytes()
    assert inspect(saved(first)).pixels == inspect(portable).pixels


@pytest.mark.parametrize(
    ("image", "blank"),
    [
        (Image.new("RGB", (9, 9), (1, 2, 3)), True),
        (Image.new("L", (1, 1)), True),
        (Image.new("P", (4, 4)), True),
        (Image.new("RGBA", (4, 4), (9, 9, 9, 0)), True),
        (Image.fromarray(np.full((4, 4), 700, dtype=np.uint16)), True),
        (Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4)), False),
        (NOISE, False),
    ],
)
def test_a_picture_of_one_colour_is_blank(image, blank):
    assert inspect(saved(image)).blank is blank


def icon(colour, ground=(0, 0, 0, 0)):
    image = Image.new("RGBA", (16, 16), ground)
    ImageDraw.Draw(image).rectangle((4, 4, 8, 11), fill=(*colour, 255))
    return image


@pytest.mark.parametrize(
    ("colour", "ground"),
    [
        ((255, 255, 255), BLACK),
        ((240, 250, 245), BLACK),
        ((0, 0, 0), WHITE),
        ((255, 0, 0), WHITE),
        ((255, 255, 200), WHITE),  # yellow shows on white
    ],
)
def test_a_transparent_picture_lies_on_a_ground_that_shows_it(colour, ground):
    got = np.asarray(decode(saved(icon(colour))))
    assert_array_equal(got[0, 0], ground)
    assert_array_equal(got[5, 5], colour)
    assert not inspect(saved(icon(colour))).blank


def test_white_icons_differ_from_each_other_and_from_nothing():
    other = Image.new("RGBA", (16, 16))
    ImageDraw.Draw(other).ellipse((2, 2, 13, 13), fill="white")
    shown = [inspect(saved(image)).pixels for image in (icon((255,) * 3), other, icon((0,) * 3))]
    empty = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    assert len({*shown, inspect(saved(empty)).pixels}) == 4
    assert_array_equal(np.asarray(decode(saved(empty))), np.full((16, 16, 3), 255))


def test_opaque_pictures_keep_their_pixels_however_bright():
    bright = Image.fromarray(np.asarray(NOISE) // 16 + 239)
    assert_array_equal(np.asarray(decode(saved(bright.convert("RGBA")))), np.asarray(bright))


def test_one_picture_under_two_labels_and_blanks_are_named(tmp_path):
    paths = ["train/cat/1", "train/dog/1", "train/cat/2", "val/cat/3", "train/dog/4"]
    images = image_set(tmp_path, paths, ["cat", "dog", "cat", "cat", "dog"]).images
    shows = ["p", "p", "q", "q", "r"]
    images = [
        replace(image, pixels=shown, blank=shown == "p")
        for image, shown in zip(images, shows, strict=True)
    ]
    assert under_two_labels(images) == ["train/cat/1 = train/dog/1"]
    assert blanks(images) == ["train/cat/1", "train/dog/1"]
    assert found_in(2, "are blank") == "2 images are blank"
    assert found_in(1, "occur more than once") == "1 image occurs more than once"
