"""Which errors are a user's to mend, and that they survive the way through Ray."""

import errno
import pickle

import numpy as np
import pyarrow as pa
import pytest

from dcai_ray.errors import ClusterError, ModelError, StorageError, UserError, can_be_mended


def raised(function, *arguments):
    """What a library raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments)
    return caught.value


@pytest.mark.parametrize("kind", [UserError, ModelError, ClusterError, StorageError])
def test_every_kind_of_user_error_can_be_mended_and_travels_with_its_line(kind):
    error = kind("s3://pets/run: access denied")
    assert can_be_mended(error)
    assert isinstance(error, ValueError)
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there)) == (kind, "s3://pets/run: access denied")


def test_a_storage_error_is_an_os_error_too():
    assert issubclass(StorageError, OSError)


def test_an_error_of_the_operating_system_can_be_mended_where_it_names_its_file(tmp_path):
    assert can_be_mended(raised(open, tmp_path / "nowhere"))
    assert not can_be_mended(OSError(errno.ENOSPC, "No space left on device"))
    assert not can_be_mended(ConnectionResetError("by peer"))


@pytest.mark.parametrize(
    "error",
    [
        raised(lambda: np.zeros(3) + np.zeros(4)),
        raised(pa.array, [1, "a"]),
        raised(lambda: list(zip([1], [], strict=True))),
        raised(int, "x"),
        RuntimeError("no such state"),
        KeyError("value"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_libraries_over_our_mistakes_are_no_users(error):
    assert not can_be_mended(error)
