"""The files of weights: found in PyTorch's cache, read, or downloaded with a word about it.

Nothing is downloaded that is on this machine already, and nothing in silence: a line says what,
how much and to where. There is one try; where it fails, the message says where to put the file.
"""

import hashlib
import os
from http.client import HTTPException
from tempfile import NamedTemporaryFile
from urllib.request import urlopen

from dcai_ray.errors import UserError
from dcai_ray.progress import say
from dcai_ray.storage.location import Location

PUBLISHED, RANDOM = "imagenet", "none"
"""Settings of weights that are not the name of a file."""
NO_DOWNLOAD = (
    "efficientnet_lite0 needs no download (--backbone, or --finetune.backbones of retrain and "
    "--backbones of finetune)"
)
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


def cached_file(url: str) -> str:
    """Where PyTorch's cache keeps the file of an address, whether it is there or not."""
    return os.path.join(_cache(), "hub", "checkpoints", os.path.basename(url))


def _cache() -> str:
    """PyTorch's cache, as its documentation says where it is."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.expanduser(os.environ.get("TORCH_HOME") or os.path.join(caches, "torch"))


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
