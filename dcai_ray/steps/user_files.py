"""Files of arrays that a user has: features, labels, probabilities."""

import hashlib
from typing import Any

from numpy.typing import NDArray

from dcai_ray.storage.array_files import arrays_in, holds_tensors
from dcai_ray.storage.location import Location


def read_arrays(file: Location) -> tuple[dict[str, NDArray[Any]], str]:
    """The arrays of a file by name, and the SHA-256 of the file.

    Raises:
        UserError: the file is damaged, of an unknown kind, or holds programs.
        OSError: the file cannot be read.
    """
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if holds_tensors(content):
        from dcai_ray.networks.tensor_files import tensors_in  # torch: seconds

        return tensors_in(file, content), digest
    return arrays_in(file, content), digest
