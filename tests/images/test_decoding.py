import io
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, features

from dcai_ray.errors import UserError
from dcai_ray.images import decoding
from dcai_ray.images.decoding import decode, inspect, read
from dcai_ray.storage.location import Location

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
# A quarter turn of an asymmetric picture: six blocks of 16 px, each of one colour.
BLOCKS = np.array([[RED, (0, 255, 0), BLUE], [(0, 0, 0), WHITE, (128, 128, 128)]], np.uint8)
UPRIGHT = BLOCKS.repeat(16, axis=0).repeat(16, axis=1)


def saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def pixels(content):
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("png", {}, 0),
        ("bmp", {}, 0),
        ("gif", {}, 0),  # six colours fit its palette
        ("webp", {"lossless": True}, 0),
        ("tiff", {}, 0),
        ("ppm", {}, 0),
        ("jpeg", {"quality": 100, "subsampling": 0}, 3),  # colours go to YCbCr and back
    ],
)
def test_pictures_of_every_common_kind_keep_their_pixels(kind, options, tolerance):
    got = pixels(saved(Image.fromarray(UPRIGHT), kind, **options))
    assert_allclose(got.astype(int), UPRIGHT, atol=tolerance)


# How EXIF says a camera stored the upright picture: what was done to it to get the stored one.
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),  # needs a quarter turn clockwise to stand upright
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_stands_upright_whatever_its_exif_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT)))
    options = {"quality": 100, "subsampling": 0} if kind == "jpeg" else {}
    got = pixels(saved(stored, kind, exif=exif, **options))
    assert_allclose(got.astype(int), UPRIGHT, atol=3 if kind == "jpeg" else 0)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    content = saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert_array_equal(pixels(content), np.full((4, 4, 3), RED))


def test_grey_becomes_three_equal_channels():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert_array_equal(pixels(saved(Image.fromarray(grey), "png")), np.stack([grey] * 3, axis=-1))
    assert_array_equal(pixels(saved(Image.new("1", (2, 2), 1), "png")), np.full((2, 2, 3), 255))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    grey = np.array([[0, 257, 255], [257 * 100, 257 * 200, 65535]], dtype=np.uint16)
    got = pixels(saved(Image.fromarray(grey), kind))
    assert_array_equal(got[..., 0], [[0, 1, 1], [100, 200, 255]])
    assert_array_equal(got[..., 0], got[..., 2])


def test_a_dark_16_bit_picture_stays_dark():
    content = saved(Image.fromarray(np.full((2, 2), 200, dtype=np.uint16)), "png")
    assert_array_equal(pixels(content), np.full((2, 2, 3), 1))  # 200 / 257, rounded


@pytest.mark.parametrize(("scale", "top"), [(1.0, 1.0), (255.0, 255.0)])
def test_float_grey_is_scaled_from_one_or_taken_as_it_is(scale, top):
    grey = np.array([[0.0, 0.2], [0.6, 1.0]], dtype=np.float32) * np.float32(scale)
    assert grey.max() == top
    assert_array_equal(pixels(saved(Image.fromarray(grey), "tiff"))[..., 1], [[0, 51], [153, 255]])


def test_cmyk_becomes_its_colours():
    ink = np.zeros((8, 24, 4), dtype=np.uint8)  # cyan, magenta, yellow, black
    ink[:, :8, 1:3], ink[:, 8:16, 0:2], ink[:, 16:, 3] = 255, 255, 255
    got = pixels(saved(Image.fromarray(ink, "CMYK"), "jpeg", quality=100)).astype(int)
    for place, colour in ((4, RED), (12, BLUE), (20, (0, 0, 0))):
        assert_allclose(got[4, place], colour, atol=4)  # JPEG rounds


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    assert_array_equal(pixels(saved(clear, "png")), [[WHITE, RED]])
    half = saved(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "png")
    assert_allclose(pixels(half).astype(int), 127, atol=1)  # 255 (1 - 128 / 255)
    grey = saved(Image.merge("LA", [Image.new("L", (1, 1), 9), Image.new("L", (1, 1), 0)]), "png")
    assert_array_equal(pixels(grey), [[WHITE]])


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_palette_with_a_transparent_colour_lies_on_white(kind):
    palette = Image.new("P", (2, 1))
    palette.putpalette([*BLUE, *RED])
    palette.putpixel((1, 0), 1)
    assert_array_equal(pixels(saved(palette, kind, transparency=0)), [[WHITE, RED]])
    assert_array_equal(pixels(saved(palette, kind)), [[BLUE, RED]])


def bomb():
    """The head of a PNG of 50,000 x 50,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT\x35\xaf\x06\x1e"


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"^empty file \(0 bytes\)$"),
        (b"\0" * 100, "^not an image"),
        (b"<html>not found</html>", "^not an image"),
        (bomb(), "pixels: too large to decode"),
        *((saved(NOISE, kind)[:-900], "damaged|not an image") for kind in ("jpeg", "png", "webp")),
        *((saved(NOISE, kind)[:-900], "damaged|not an image") for kind in ("bmp", "gif", "tiff")),
        (saved(NOISE, "png").replace(b"IDAT", b"IDAT\0"), "damaged"),
    ],
)
def test_an_unreadable_file_gives_its_reason_in_one_line(content, reason, tmp_path):
    with pytest.raises(ValueError, match=reason) as caught:
        decode(content)
    assert "\n" not in str(caught.value)
    found = inspect(content)
    assert (found.reason, found.width, found.height) == (str(caught.value), 0, 0)
    file = Location(str(tmp_path / "Käse.png"))
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"Käse\.png: "):
        read(file)


@pytest.mark.parametrize(
    "kind", ["jpeg", "png", "webp", "gif", "tiff", "bmp", "avif", "dds", "ico"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own about the damage
def test_any_damage_gives_a_picture_or_a_reason_and_never_a_crash(kind):
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content, rng, refused = saved(NOISE, kind), np.random.default_rng(1), 0
    for _ in range(80):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(min(len(content), 300), size=4)] = rng.integers(0, 256, 4)
        refused += bool(inspect(damaged[: rng.integers(1, len(content))].tobytes()).reason)
    assert refused


def test_whatever_pillow_raises_over_a_file_is_a_reason(monkeypatch):
    """Its readers know no common error."""

    def fail(*arguments, **options):
        raise ZeroDivisionError("of a height")

    monkeypatch.setattr(Image, "open", fail)
    assert inspect(b"x").reason == "damaged: of a height"


def test_a_mistake_of_ours_over_a_picture_is_no_reason(monkeypatch):
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "png")
    monkeypatch.setattr(decoding, "_to_rgb", lambda image: np.zeros(3) + np.zeros(4))
    with pytest.raises(ValueError, match="broadcast") as caught:
        inspect(content.getvalue())
    assert not isinstance(caught.value, UserError)


def test_heic_is_decoded_where_its_package_is_installed():
    pillow_heif = pytest.importorskip("pillow_heif")
    content = io.BytesIO()
    picture = Image.new("RGB", (64, 48), (200, 30, 30))
    decode(png_of(picture))  # registers the reader
    pillow_heif.from_pillow(picture).save(content, quality=90)
    found = np.asarray(decode(content.getvalue()), dtype=int)
    assert found.shape == (48, 64, 3)
    assert abs(found - (200, 30, 30)).max() <= 6  # lossy


def png_of(picture):
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()
