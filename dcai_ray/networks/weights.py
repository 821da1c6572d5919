"""The weights in networks: loading files of two formats, and hashing."""

import hashlib
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from dcai_ray.errors import UserError

# What the two loaders raise for a file that is damaged or has another format.
_DAMAGED = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
)
# torchvision's DenseNet files predate the present names of its layers.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def load_weights(
    network: nn.Module, content: bytes, name: str, weights: str, heads: Sequence[str]
) -> None:
    """Load the content of a file, a state dict of the whole network or of all but its heads.

    Args:
        network: changed in place.
        content: the bytes of the file.
        name: name of the network, for messages.
        weights: name of the file, for messages.
        heads: dotted names of layers that the file may lack, or have in another shape.
    Raises:
        UserError: the file is damaged or does not fit.
    """
    state = {
        _OLD_DENSENET.sub(r"\1\2", key): value
        for key, value in _state_dict(content, weights).items()
    }
    starts = tuple(f"{head}." for head in heads if head)
    own = network.state_dict()
    fitting = {
        key: value
        for key, value in state.items()
        if not (key.startswith(starts) and (key not in own or own[key].shape != value.shape))
    }
    # Files written before PyTorch 0.4.1 lack these counters.
    own_keys = {key for key in own if not key.endswith("num_batches_tracked")}
    missing = sorted(key for key in own_keys - fitting.keys() if not key.startswith(starts))
    surplus = sorted(fitting.keys() - own.keys())
    if missing or surplus:
        what, keys = ("lacks", missing) if missing else ("has unknown", surplus)
        raise UserError(f"weights {weights} do not fit {name}: {what} {', '.join(keys[:3])}")
    versioned = OrderedDict(fitting)
    versioned._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]  # MNASNet's
    try:
        network.load_state_dict(versioned, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"weights {weights} do not fit {name}: {reason}") from None


def sha256_of(network: nn.Module) -> str:
    """The SHA-256 of a network's state: names, types, shapes and values."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _state_dict(content: bytes, weights: str) -> dict[str, torch.Tensor]:
    try:
        if content[:1] == b"{" or content[8:9] == b"{":  # safetensors: a length, then JSON
            return load_safetensors(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(
            f"weights {weights}: neither safetensors nor a state dict of torch.save ({reason})"
        ) from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"weights {weights}: expected a state dict (names and tensors)")
    return state
