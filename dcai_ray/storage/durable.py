"""Additions to local files that a killed process or a power cut does not take back."""

import os


def append(path: str, content: bytes) -> None:
    """Add to a file, which is made if need be; it is on disk when this returns.

    Raises:
        OSError: it could not be written, as on a full disk; a part of it may be there.
    """
    new = not os.path.exists(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if new:  # the file's name is on disk only with its folder
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
