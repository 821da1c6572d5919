"""Features from other people's pickles, read by an unpickler that can make arrays and nothing else.

A pickle is a program: loading one the usual way runs what its author wrote. Here only NumPy arrays
and plain containers can come out; anything else is refused by name.
"""

import hashlib
import io
import pickle

import numpy as np
from numpy.typing import NDArray

from dcai_ray.storage import Location

_ALLOWED = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"wants {module}.{name}")
        return super().find_class(module, name)


def read_feature_pickle(
    file: Location,
) -> tuple[list[str], list[str], NDArray[np.float32], str]:
    """The features of a pickled dict of arrays.

    The dict holds one two-dimensional array, the features, and one one-dimensional array of as many
    labels; the rows keep their order.

    Returns:
        ids (`<label>/<row>`), labels, x (k, d), and the SHA-256 of the file.
    Raises:
        ValueError: the pickle wants to import something, is damaged, or holds something else.
        OSError: the file cannot be read.
    """
    content = file.read_bytes()
    try:
        found = _ArrayUnpickler(io.BytesIO(content)).load()
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file}: refused, only NumPy arrays are read from a pickle ({error})"
        ) from None
    except (EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: not a readable pickle ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected a dict of arrays, got {type(found).__name__}")
    arrays = {key: np.asarray(entry) for key, entry in found.items()}
    features = [a for a in arrays.values() if a.ndim == 2 and np.issubdtype(a.dtype, np.number)]
    labels = [a for a in arrays.values() if a.ndim == 1 and a.dtype.kind in "iubUS"]
    if len(features) != 1 or len(labels) != 1:
        shapes = ", ".join(f"{key} {a.dtype} {a.shape}" for key, a in arrays.items())
        raise ValueError(
            f"{file}: expected one (k, d) array of features and one (k,) array of labels, "
            f"got {shapes}"
        )
    x, y = features[0].astype(np.float32), [_text(label) for label in labels[0].tolist()]
    if len(x) != len(y):
        raise ValueError(f"{file}: {len(x)} rows of features, but {len(y)} labels")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).any(axis=1).sum())
        raise ValueError(f"{file}: {bad} rows with NaN or infinite features")
    ids = [f"{label}/{row:06d}" for row, label in enumerate(y)]
    return ids, y, x, hashlib.sha256(content).hexdigest()


def _text(label: object) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)
