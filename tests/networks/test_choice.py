"""Which network is taken where none is named."""

import pytest
import torch
from torchvision import models

from dcai_ray.networks import choice
from dcai_ray.networks.choice import PREFERRED, best_at_hand


@pytest.fixture
def without(monkeypatch):
    """Pretend that packages are not installed."""
    found = choice.find_spec

    def hide(*names):
        monkeypatch.setattr(
            choice, "find_spec", lambda n: None if n.startswith(names) else found(n)
        )

    return hide


def put(folder, name):
    """A file of that network in PyTorch's cache."""
    folder.mkdir(parents=True, exist_ok=True)
    url = models.get_model_weights(name)["IMAGENET1K_V1"].url
    torch.save({}, folder / url.rpartition("/")[2])


def test_packages_are_at_hand_and_the_larger_one_is_better(cut_off, without):
    assert best_at_hand()[0] == "efficientnet_lite2"
    without("efficientnet_lite2", "efficientnet_lite1")
    assert best_at_hand()[0] == "efficientnet_lite0"


def test_a_cached_file_counts_and_the_order_is_that_of_published_accuracy(cut_off, without):
    without("efficientnet")
    for name in ("resnet18", "densenet121", "resnet101"):  # ever better
        put(cut_off, name)
        assert best_at_hand()[0] == name
    accuracy = [
        models.get_model_weights(name)["IMAGENET1K_V1"].meta["_metrics"]["ImageNet-1K"]["acc@1"]
        for name in PREFERRED
        if ":" not in name and "lite" not in name
    ]
    assert accuracy == sorted(accuracy, reverse=True)


def test_a_network_of_the_hub_counts_if_it_is_complete(cut_off, in_hub_cache, without):
    folder = in_hub_cache("facebook/dinov2-small")
    for file in ("config.json", "preprocessor_config.json"):
        (folder / file).write_text("{}")
    assert best_at_hand()[0] == "efficientnet_lite2"
    (folder / "model.safetensors").write_bytes(b"")
    assert best_at_hand()[0] == "hf:facebook/dinov2-small"
    without("transformers")
    assert best_at_hand()[0] == "efficientnet_lite2"


def test_the_line_names_the_choice_and_how_to_get_a_better_one(cut_off, without):
    assert best_at_hand()[1] == (
        "features by efficientnet_lite2, the best network at hand; better ones: --backbone "
        "hf:facebook/dinov2-base (downloads 346 MB)"
    )
    without("transformers")
    assert "better ones: pip install 'dcai_ray[hf]' and --backbone" in best_at_hand()[1]


def test_with_nothing_at_hand_and_no_network_the_error_says_what_to_install(cut_off, without):
    without("efficientnet", "transformers")
    with pytest.raises(ValueError, match="--backbone is left out and no network is at") as caught:
        best_at_hand()
    url = models.get_model_weights("resnet18")["IMAGENET1K_V1"].url
    for part in (url, f"put it at {cut_off}", "efficientnet_lite0 needs no download"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
