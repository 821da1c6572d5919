"""timm's networks against timm's own forward pass and transform."""

import sys
import time

import pytest
import timm
import torch
from numpy.testing import assert_allclose
from PIL import Image
from safetensors.torch import save_file

from dcai_ray.errors import UsageError
from dcai_ray.networks.backbones import check, input_pixels, weights_sha256
from dcai_ray.networks.features import extract
from dcai_ray.networks.from_timm import pixels_of_data_config
from dcai_ray.networks.heads import classifier, feature_extractor, head_parameters

pytestmark = pytest.mark.slow  # timm takes seconds to be imported
NAMES = ["test_vit", "test_resnet", "test_convnext"]  # timm's own small ones for tests


@pytest.fixture(params=NAMES)
def theirs(request, tmp_path):
    """(name, network of timm with its head, file of its weights)."""
    torch.manual_seed(len(request.param))
    network = timm.create_model(request.param, pretrained=False).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    return request.param, network, str(tmp_path / "weights.safetensors")


def features_by_timm(network, files, size=None):
    config = timm.data.resolve_data_config(
        {"input_size": (3, size, size)} if size else {}, model=network
    )
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.inference_mode():
        x = torch.stack([transform(Image.open(file.uri)) for file in files])
        return network.forward_head(network.forward_features(x), pre_logits=True).numpy()


def test_features_are_those_of_timm_for_its_own_transform(theirs, three_pictures):
    name, network, weights = theirs
    pixels = input_pixels(f"timm:{name}", None)
    found = extract(
        feature_extractor(f"timm:{name}", weights, pixels.size_px), three_pictures, pixels=pixels
    )
    expected = features_by_timm(network, three_pictures)
    assert found.shape == (3, network.num_features)
    assert expected.std() > 0.01
    assert_allclose(found, expected, rtol=0, atol=2e-5)  # float32, memory laid out otherwise


def test_another_size_keeps_the_share_that_is_cropped(three_pictures, tmp_path):
    network = timm.create_model("test_vit", pretrained=False, img_size=96).eval()
    pixels = input_pixels("timm:test_vit", 96)
    assert (pixels.size_px, pixels.resize_px) == (96, 101)  # 96 / 0.95
    ours = feature_extractor("timm:test_vit", "none", 96)
    missing = network.load_state_dict(ours.state_dict(), strict=False).missing_keys
    assert missing == ["head.weight", "head.bias"]
    expected = features_by_timm(network, three_pictures, 96)
    found = extract(ours, three_pictures, pixels=pixels)
    assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_published_weights_come_from_the_cache_without_a_request(
    cut_off, in_hub_cache, three_pictures
):
    torch.manual_seed(5)
    network = timm.create_model("test_vit", pretrained=False).eval()
    save_file(network.state_dict(), in_hub_cache("timm/test_vit.r160_in1k") / "model.safetensors")
    check("timm:test_vit", "imagenet", None)
    found = feature_extractor("timm:test_vit", "imagenet", 160)
    x = torch.randn(2, 3, 160, 160)
    expected = network.forward_head(network.forward_features(x), pre_logits=True)
    torch.testing.assert_close(found(x), expected, rtol=0, atol=1e-6)
    published = weights_sha256("timm:test_vit", "imagenet")
    with torch.no_grad():
        network.norm.bias[0] += 1e-6
    save_file(network.state_dict(), in_hub_cache("timm/test_vit.r160_in1k") / "model.safetensors")
    assert weights_sha256("timm:test_vit", "imagenet") != published


def test_cut_off_is_said_at_once_and_names_what_to_do(cut_off):
    start = time.monotonic()
    with pytest.raises(ValueError, match="the Hugging Face hub cannot be reached") as caught:
        check("timm:test_vit", "imagenet", None)
    assert time.monotonic() - start < 5  # the hub's library would go on for 46 seconds
    for part in ("hf download timm/test_vit.r160_in1k", "efficientnet_lite0 needs no download"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_classifier_has_a_linear_head_for_the_classes():
    first, again, other = (classifier("timm:test_vit", 3, "none", 160, s) for s in (0, 0, 1))
    with torch.inference_mode():
        assert first.eval()(torch.zeros(2, 3, 160, 160)).shape == (2, 3)
    assert [tuple(p.shape) for p in head_parameters(first, "timm:test_vit")] == [(3, 64), (3,)]
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize(
    ("name", "near"),
    [("test_vitt", "test_vit"), ("resnet18.a1_in2k", "resnet18.a1_in1k"), ("vit_smal", "vit_s")],
)
def test_an_unknown_name_gives_the_nearest(name, near):
    with pytest.raises(UsageError, match=f"unknown backbone timm:{name}; did you mean .*{near}"):
        check(f"timm:{name}", "none", None)


def test_a_size_that_the_network_cannot_take_is_refused_with_its_usual_one():
    with pytest.raises(ValueError, match=r"timm:test_vit.* 8 .*its usual size is 160") as caught:
        check("timm:test_vit", "none", 8)
    assert "\n" not in str(caught.value)


def test_an_input_that_is_no_square_rgb_picture_is_refused():
    config = {"input_size": (3, 256, 128), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(ValueError, match=r"x: takes 3 x 256 x 128 by the crop center; only square"):
        pixels_of_data_config(config, "x")
    with pytest.raises(ValueError, match="by the crop border"):
        pixels_of_data_config({**config, "input_size": (3, 8, 8), "crop_mode": "border"}, "x")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm:test_vit needs: pip install 'dcai_ray\[timm\]'"):
        check("timm:test_vit", "none", None)
