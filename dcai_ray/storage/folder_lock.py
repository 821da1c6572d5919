"""One command at a time in a run folder."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location

logger = logging.getLogger(__name__)

_HELD = (errno.EAGAIN, errno.EACCES)


@contextmanager
def locked(folder: Location) -> Iterator[None]:
    """Hold a local folder, so that no other process works in it; it ends with this process.

    The folder is created if need be, and removed again if nothing was written. Object stores have
    no locks: two commands with other settings that begin there in the same second are not noticed.

    Raises:
        UserError: another process holds it.
    """
    if folder.remote:
        yield
        return
    os.makedirs(folder.uri, exist_ok=True)
    held = os.open(folder.uri, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise UserError(
                    f"{folder}: another command is at work in this run folder; wait until it has "
                    "ended, or use another --run"
                ) from None
            logger.debug("%s: no locks on this file system (%s)", folder, error)
        yield
    finally:
        os.close(held)
        with suppress(OSError):  # not empty, as a rule
            os.rmdir(folder.uri)
