"""Arrays by name from files of torch and safetensors; nothing in them is executed."""

import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load

from dcai_ray.errors import UserError
from dcai_ray.storage.array_files import ONLY
from dcai_ray.storage.location import Location


def tensors_in(file: Location, content: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a file as arrays; lists of text or numbers count as arrays, too.

    Args:
        file: what messages call it.
        content: its bytes.
    Raises:
        UserError: the file is damaged, or holds more than tensors and plain containers.
    """
    try:
        if content[8:9] == b"{":
            found: Any = load(content)
        else:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{file}: refused, only tensors, text and plain containers are read from a file of "
            "torch; save a dict of tensors"
        ) from None
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: not a readable file of tensors ({line})") from None
    if isinstance(found, torch.Tensor):
        found = {ONLY: found}
    elif isinstance(found, list | tuple):
        found = {str(place): entry for place, entry in enumerate(found)}
    if not isinstance(found, Mapping):
        raise UserError(f"{file}: expected tensors, got {type(found).__name__}")
    return {str(name): _array(file, str(name), entry) for name, entry in found.items()}


def _array(file: Location, name: str, entry: Any) -> NDArray[Any]:
    if isinstance(entry, torch.Tensor):
        plain = entry.detach().to_dense()
        return np.asarray(plain.float() if plain.dtype == torch.bfloat16 else plain)
    if isinstance(entry, list | tuple):
        return np.array(entry, dtype=object)
    raise UserError(f"{file}: {name} must be a tensor or a list, got {type(entry).__name__}")
