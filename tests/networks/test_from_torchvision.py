"""Any classifier of torchvision against its own forward pass and its weights' transform."""

import hashlib

import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torchvision import models

from dcai_ray.errors import UsageError
from dcai_ray.images import decoding
from dcai_ray.networks.backbones import check, find, input_pixels, weights_sha256
from dcai_ray.networks.heads import classifier, feature_extractor, head_parameters
from dcai_ray.networks.transforms import centre_crop, normalized

pytestmark = pytest.mark.slow  # networks of full size
SMALL = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5", "squeezenet1_1", "googlenet")
# One of each family, with its last layer as its source names it.
HEADS = {
    **{"alexnet": "classifier.6", "convnext_tiny": "classifier.2", "densenet121": "classifier"},
    **{"efficientnet_b0": "classifier.1", "googlenet": "fc", "inception_v3": "fc"},
    **{"maxvit_t": "classifier.5", "mnasnet0_5": "classifier.1", "regnet_y_400mf": "fc"},
    **{"mobilenet_v3_small": "classifier.3", "resnet50": "fc", "shufflenet_v2_x0_5": "fc"},
    **{"squeezenet1_1": "classifier.1", "swin_t": "head"},
    **{"vit_b_16": "heads.head"},
}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_the_last_layer(name):
    backbone = find(f"torchvision:{name}")
    network = backbone.build("none", backbone.pixels(None))
    assert backbone.head_of(network) == HEADS[name]


@pytest.mark.parametrize("name", SMALL)
def test_features_are_what_the_head_would_have_seen(name):
    torch.manual_seed(0)
    network = models.get_model(name, weights=None).eval()
    seen = []
    head = network.get_submodule(HEADS[name])
    head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        network(x)
    features = feature_extractor(f"torchvision:{name}", "none", 96)
    assert not features.load_state_dict(network.state_dict(), strict=False).missing_keys
    expected = seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]
    torch.testing.assert_close(features(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "swin_t", "efficientnet_b0"])
def test_the_input_is_that_of_the_weights_own_transform(name, three_pictures):
    transform = models.get_model_weights(name).DEFAULT.transforms()
    pixels = input_pixels(f"torchvision:{name}", None)
    ours = normalized(
        [centre_crop(decoding.read(file), pixels) for file in three_pictures],
        pixels,
        torch.device("cpu"),
    )
    theirs = torch.stack([transform(Image.open(file.uri)) for file in three_pictures])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # a few float32 roundings


def test_published_weights_come_from_the_cache(cut_off):
    weights = models.get_model_weights("mobilenet_v3_small").DEFAULT
    torch.manual_seed(3)
    network = models.mobilenet_v3_small(weights=None).eval()
    file = cut_off / weights.url.rpartition("/")[2]
    cut_off.mkdir(parents=True)
    torch.save(network.state_dict(), file)
    name = "torchvision:mobilenet_v3_small"
    found = feature_extractor(name, "imagenet", 64)
    assert_array_equal(found.features[0][0].weight, network.features[0][0].weight.detach())
    assert weights_sha256(name, "imagenet") == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "squeezenet1_1"])
def test_a_classifier_of_any_kind_trains_with_a_new_head(name):
    network = classifier(f"torchvision:{name}", 3, "none", 96, seed=0).train()
    network(torch.randn(2, 3, 96, 96)).sum().backward()
    parameters = head_parameters(network, f"torchvision:{name}")
    assert {p.shape[0] for p in parameters} == {3}
    assert all(p.grad is not None for p in parameters)


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(ValueError, match=r"torchvision:vit_b_32 does not take images of 96 x 96"):
        check("torchvision:vit_b_32", "none", 96)


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(UsageError, match=r"unknown backbone torchvision:resnet51; .*resnet50"):
        check("torchvision:resnet51", "none", None)
