"""Step 2a: a frozen network turns images into feature vectors, in the given order.

The network has not been trained on the labels under review: a network fine-tuned on noisy labels
has learnt the noise.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from dcai_ray.errors import UserError
from dcai_ray.images import decoding
from dcai_ray.networks.pixels import Pixels
from dcai_ray.networks.transforms import centre_crop, normalized


def extract(
    network: nn.Module,
    files: Sequence[decoding.Source],
    *,
    pixels: Pixels,
    batch_size: int = 32,
    threads: int = 2,
    readers: int = 16,
    device: torch.device | None = None,
) -> NDArray[np.float32]:
    """Features of every file.

    Args:
        network: maps (b, 3, s, s) to (b, d), with s = pixels.size_px; in evaluation mode.
        files: k image files.
        pixels: what the network expects of its input.
        batch_size: images per forward pass; another size may change the last bits of features.
        threads: threads that decode images ahead of the network.
        readers: threads that read files ahead of the decoders.
        device: device of the network; the CPU by default.
    Returns:
        (k, d) float32.
    Raises:
        UserError: a file is unreadable, or a feature is not finite; the message names the file.
    """
    device = device or torch.device("cpu")
    network = network.to(device).to(memory_format=torch.channels_last)

    def crop(_: int, image: Image.Image) -> torch.Tensor:
        return centre_crop(image, pixels)

    rows: list[NDArray[np.float32]] = []
    batch: list[torch.Tensor] = []
    with torch.inference_mode():
        for picture in decoding.read_each(files, crop, readers=readers, threads=threads):
            batch.append(picture)
            if len(batch) == batch_size or len(rows) * batch_size + len(batch) == len(files):
                rows.append(network(normalized(batch, pixels, device)).float().cpu().numpy())
                batch = []
    x = np.concatenate(rows).reshape(len(files), -1)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise UserError(f"{files[bad[0]]}: the network outputs NaN or infinite features")
    return x
