"""Image networks of transformers against the library's own forward pass and processors."""

import sys
import time

import numpy as np
import pytest
import torch
import transformers as tf
from numpy.testing import assert_allclose
from PIL import Image

from dcai_ray.errors import UsageError
from dcai_ray.networks.backbones import check, input_pixels, weights_sha256
from dcai_ray.networks.features import extract
from dcai_ray.networks.from_transformers import pixels_of_processor
from dcai_ray.networks.heads import classifier, feature_extractor, head_parameters

pytestmark = pytest.mark.slow  # transformers takes seconds to be imported
IMAGE = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "image_size": 32, "patch_size": 8},
}
TEXT = {
    **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 50},
    **{"num_attention_heads": 2, "max_position_embeddings": 8},
    **{"bos_token_id": 1, "eos_token_id": 2},
}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}


def network_of(kind):
    """A network with random weights, as a checkpoint holds it, and its image processor."""
    torch.manual_seed(0)
    if kind == "vit":
        return tf.ViTForImageClassification(tf.ViTConfig(**IMAGE)), tf.ViTImageProcessor(**SQUARE)
    if kind == "clip":
        config = tf.CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=16)
        return tf.CLIPModel(config), tf.CLIPImageProcessor(**CROPPED)
    if kind == "siglip":
        config = tf.SiglipConfig(text_config=TEXT, vision_config=IMAGE)
        return tf.SiglipModel(config), tf.SiglipImageProcessor(**SQUARE)
    if kind == "dinov2":
        return tf.Dinov2Model(tf.Dinov2Config(**IMAGE)), tf.BitImageProcessor(**CROPPED)
    config = tf.DINOv3ViTConfig(**IMAGE, num_register_tokens=2)
    return tf.DINOv3ViTModel(config), tf.DINOv3ViTImageProcessor(**SQUARE)


def pooled(kind, network, x):
    """Features as the library's documentation gives them."""
    with torch.inference_mode():
        if kind == "clip":
            return network.vision_model(pixel_values=x).pooler_output
        if kind == "siglip":
            return network.vision_model(pixel_values=x).pooler_output
        if kind == "vit":
            return network.vit(pixel_values=x).last_hidden_state[:, 0]
        return network(pixel_values=x).pooler_output


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, network, processor) of a kind, saved by the library."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            network, processor = network_of(kind)
            network.save_pretrained(folder)
            processor.save_pretrained(folder)
            made[kind] = str(folder), network.eval(), processor
        return made[kind]

    return of


@pytest.mark.parametrize("kind", ["vit", "clip", "siglip", "dinov2", "dinov3"])
def test_features_are_those_of_the_library_for_its_own_processor(kind, saved, three_pictures):
    folder, network, _ = saved(kind)
    name = f"hf:{folder}"
    pixels = input_pixels(name, None)
    found = extract(feature_extractor(name, "imagenet", 32), three_pictures, pixels=pixels)
    images = [Image.open(file.uri) for file in three_pictures]
    by_pillow = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    x = by_pillow(images, return_tensors="pt")["pixel_values"]
    expected = pooled(kind, network, x).numpy()
    assert found.shape == (3, 32)
    assert expected.std() > 0.01
    # DINOv3 has no processor by Pillow: torchvision resizes tensors, without rounding in between.
    tolerance = 0.02 * expected.std() if kind == "dinov3" else 2e-5
    assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["vit", "clip", "dinov2"])
def test_another_size_interpolates_the_positions(kind, saved):
    folder, network, _ = saved(kind)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tower = {"vit": lambda n: n.vit, "clip": lambda n: n.vision_model, "dinov2": lambda n: n}
    options = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        output = tower[kind](network)(pixel_values=x, **options)
        expected = output.last_hidden_state[:, 0] if kind == "vit" else output.pooler_output
        found = feature_extractor(f"hf:{folder}", "imagenet", 64)(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert input_pixels(f"hf:{folder}", 64).size_px == 64


def test_the_head_of_a_classifier_is_linear_on_the_features(saved):
    name = f"hf:{saved('dinov2')[0]}"
    network = classifier(name, 3, "imagenet", 32, seed=0).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = feature_extractor(name, "imagenet", 32)(x)
        torch.testing.assert_close(network(x), network.head(features), rtol=0, atol=1e-6)
    assert [tuple(p.shape) for p in head_parameters(network, name)] == [(3, 32), (3,)]
    network.train()(x).sum().backward()  # what is probed can still be trained
    assert all(p.grad is not None for p in network.head.parameters())


def test_the_hash_is_of_the_weights_and_not_of_the_folder(saved, tmp_path):
    folder, network, processor = saved("dinov2")
    network.save_pretrained(tmp_path / "same")
    processor.save_pretrained(tmp_path / "same")
    there = weights_sha256(f"hf:{folder}", "imagenet")
    assert weights_sha256(f"hf:{tmp_path}/same", "imagenet") == there
    other = tf.Dinov2Model(tf.Dinov2Config(**IMAGE))
    other.save_pretrained(tmp_path / "same")
    assert weights_sha256(f"hf:{tmp_path}/same", "imagenet") != there
    assert weights_sha256(f"hf:{folder}", "none") == "none"


def test_half_precision_weights_are_used_in_full(saved, tmp_path):
    _, _, processor = saved("dinov2")
    network_of("dinov2")[0].half().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = feature_extractor(f"hf:{tmp_path}", "imagenet", 32)
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert found(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_weights_that_lack_a_layer_are_refused_rather_than_random(saved, tmp_path):
    _, network, processor = saved("dinov2")
    state = {k: v for k, v in network.state_dict().items() if k != "layernorm.bias"}
    network.save_pretrained(tmp_path, state_dict=state)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"its weights lack layernorm\.bias, which would be rand"):
        check(f"hf:{tmp_path}", "imagenet", None)


def test_a_folder_without_a_file_is_named(saved, tmp_path):
    saved("dinov2")[1].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"the folder has no preprocessor_config.json; save the"):
        check(f"hf:{tmp_path}", "imagenet", None)
    with pytest.raises(UsageError, match="unknown backbone hf:/no/such: no such folder"):
        check("hf:/no/such", "imagenet", None)


def test_a_file_as_weights_is_refused(saved):
    with pytest.raises(ValueError, match=r"has weights of its own; save others with"):
        check(f"hf:{saved('vit')[0]}", "w.pth", None)


def test_a_size_that_the_network_cannot_take_is_refused_before_any_image_is_read(saved):
    with pytest.raises(ValueError, match=r"does not take images of 4 x 4 .*its usual size is 32"):
        check(f"hf:{saved('siglip')[0]}", "imagenet", 4)


def test_a_hub_id_comes_from_the_cache_and_otherwise_one_line_says_what_to_do(
    saved, cut_off, in_hub_cache
):
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"hub cannot be reached.*hf download some/tiny") as caught:
        check("hf:some/tiny", "imagenet", None)
    assert "\n" not in str(caught.value)
    _, network, processor = saved("dinov2")
    folder = in_hub_cache("some/tiny")
    network.save_pretrained(folder)
    with pytest.raises(ValueError, match="cannot be reached"):  # no processor there yet
        check("hf:some/tiny", "imagenet", None)
    processor.save_pretrained(folder)
    check("hf:some/tiny", "imagenet", None)
    assert time.monotonic() - start < 10


def test_a_processor_that_does_something_else_is_refused():
    usual = {
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "image_processor_type": "Odd",
    }
    fine = {**usual, "size": {"height": 8, "width": 8}, "resample": 3}
    assert pixels_of_processor(fine, "x").whole
    for odd in (
        {"size": {"longest_edge": 8}},
        {"size": {"height": 8, "width": 4}},
        {"size": {"shortest_edge": 8}},
        {**fine, "do_pad": True},
        {**fine, "do_rescale": False},
        {**fine, "rescale_factor": 1 / 127.5},
    ):
        with pytest.raises(ValueError, match=r"x: its image processor \(Odd\) prepares images in"):
            pixels_of_processor({**usual, **odd}, "x")


def test_what_transformers_cannot_read_is_one_line(tmp_path):
    for file in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(ValueError, match="transformers cannot read it") as caught:
        check(f"hf:{tmp_path}", "imagenet", None)
    assert "\n" not in str(caught.value)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"hf:a/b needs: pip install 'dcai_ray\[hf\]'"):
        check("hf:a/b", "imagenet", None)


def test_a_network_that_gives_nan_names_the_image(saved, three_pictures, tmp_path):
    _, _, processor = saved("dinov2")
    network = network_of("dinov2")[0]
    with torch.no_grad():
        network.layernorm.bias[3] = np.nan
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    with pytest.raises(ValueError, match=r"0\.png: the network outputs NaN or infinite features"):
        extract(
            feature_extractor(name, "imagenet", 32),
            three_pictures,
            pixels=input_pixels(name, None),
        )
