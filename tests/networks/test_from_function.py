"""Networks of a user's own, by the name of a function."""

import sys

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from dcai_ray.cli import main
from dcai_ray.errors import UsageError
from dcai_ray.networks.backbones import check, input_pixels, weights_sha256
from dcai_ray.networks.features import extract
from dcai_ray.networks.heads import classifier, feature_extractor, head_parameters
from dcai_ray.storage.features import read_split
from dcai_ray.storage.location import Location

HERE = "tests.support.own_networks"


def plain(resize, crop, interpolation, mean, std):
    return v2.Compose(
        [
            v2.Resize(resize, interpolation),
            v2.CenterCrop(crop),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
BICUBIC, BILINEAR = v2.InterpolationMode.BICUBIC, v2.InterpolationMode.BILINEAR


@pytest.mark.parametrize(
    ("function", "transform"),
    [
        ("averages", plain(224, 224, BILINEAR, *IMAGENET)),
        ("described", plain(64, 48, BICUBIC, [0.5] * 3, [0.25] * 3)),
        ("by_preset", plain(256, 224, BILINEAR, *IMAGENET)),
    ],
)
def test_features_are_the_functions_for_the_input_it_describes(function, transform, three_pictures):
    name = f"{HERE}:{function}"
    pixels = input_pixels(name, None)
    network = feature_extractor(name, "imagenet", pixels.size_px)
    found = extract(network, three_pictures, pixels=pixels)
    expected = torch.stack([transform(Image.open(f.uri)).mean(dim=(1, 2)) for f in three_pictures])
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)


def test_a_head_is_left_out_of_features_and_new_for_fine_tuning():
    name = f"{HERE}:with_head"
    features = feature_extractor(name, "imagenet", 32)
    assert features(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    network = classifier(name, 3, "imagenet", 32, seed=1)
    assert [tuple(p.shape) for p in head_parameters(network, name)] == [(3, 5), (3,)]
    assert torch.equal(network[0][1].weight, features[0][1].weight)
    headless = classifier(f"{HERE}:averages", 4, "imagenet", 32, seed=1)
    assert headless(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_weights_from_a_file_are_loaded_and_hashed(tmp_path):
    name, torch_file = f"{HERE}:with_head", str(tmp_path / "w.pth")
    network = classifier(name, 4, "imagenet", 32, seed=1)
    with torch.no_grad():
        network[0][1].weight.fill_(0.5)
    torch.save(network.state_dict(), torch_file)
    loaded = feature_extractor(name, torch_file, 32)
    assert (loaded[0][1].weight == 0.5).all()
    assert weights_sha256(name, torch_file) != weights_sha256(name, "imagenet")
    published = weights_sha256(name, "imagenet")
    assert published == weights_sha256(name, "imagenet")
    assert published == weights_sha256(name, "none")  # they are not random


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_module", "must return a torch.nn.Module, .* got str"),
        ("unknown_entry", "the description has unknown size; it may have input_size, mean"),
        ("wrong_head", "head 'fc' names no linear or convolutional layer of it"),
        ("maps", r"expected a tensor of shape \(b, d\) for b = 1 images, got \(1, 2, 224, 224\)"),
    ],
)
def test_what_a_function_returns_is_checked(function, message):
    with pytest.raises(ValueError, match=f"{HERE}:{function}.*{message}"):
        check(f"{HERE}:{function}", "imagenet", None)


def test_an_error_inside_a_users_network_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        check(f"{HERE}:faulty", "imagenet", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such:f", "cannot be imported .*No module named 'no'.*working directory"),
        (f"{HERE}:nothing", f"{HERE} has no function nothing"),
        (f"{HERE}:SMALL", f"{HERE} has no function SMALL"),
    ],
)
def test_a_function_that_is_not_there_is_wrong_usage(name, message):
    with pytest.raises(UsageError, match=f"unknown backbone {name}: {message}"):
        check(name, "imagenet", None)


SOURCE = """
from torch import nn

class Mean(nn.Module):
    def forward(self, x):
        return {factor} * x.mean(dim=(2, 3))

def network():
    return Mean(), {{"input_size": (3, 32, 32), "mean": (0.0,) * 3, "std": (1.0,) * 3}}
"""


@pytest.mark.slow
def test_workers_import_the_function_from_the_drivers_working_directory(
    tmp_path, monkeypatch, small_data, ray_cluster
):
    (tmp_path / "of_my_own.py").write_text(SOURCE.format(factor=2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    flags = ("--data", str(small_data), "--run", "run", "--backbone", "of_my_own:network")
    assert main(["extract", *flags]) == 0
    features = read_split(Location("run/features/train"))
    blue = Image.open(small_data / "train/blue/05.png").convert("RGB")
    expected = 2 * plain(32, 32, BILINEAR, [0.0] * 3, [1.0] * 3)(blue).mean(dim=(1, 2))
    found = torch.tensor(features.x[features.ids.index("blue/05.png")])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert features.backbone == "of_my_own:network"


def test_another_source_of_the_function_makes_features_stale(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = []
    for factor in (2, 3):
        (tmp_path / "changing.py").write_text(SOURCE.format(factor=factor))
        sys.modules.pop("changing", None)
        digests.append(weights_sha256("changing:network", "imagenet"))
    sys.modules.pop("changing", None)
    assert digests[0] != digests[1]
