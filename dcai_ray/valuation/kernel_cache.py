"""Where numba keeps compiled kernels if neither the package nor the home can be written to.

Containers often run without a home and with a read-only package; numba would refuse to be imported.
"""

import os
import stat
import tempfile
from pathlib import Path


def use_writable_cache() -> None:
    """Let numba use a folder of this user for temporary files, if it has no other.

    To be called before numba is imported; a NUMBA_CACHE_DIR that is set stays.
    """
    if "NUMBA_CACHE_DIR" not in os.environ and not any(map(_is_writable, _own_places())):
        os.environ["NUMBA_CACHE_DIR"] = str(_temporary_folder())


def _own_places() -> list[Path]:
    """Where numba looks for a place by itself."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return [Path(__file__).parent / "__pycache__", home / "numba"]


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _temporary_folder() -> Path:
    """The same for all processes of this user, and nobody else's, as code is loaded from there."""
    folder = Path(tempfile.gettempdir()) / f"dcai_ray-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat(follow_symlinks=False)
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700:
        return folder
    return Path(tempfile.mkdtemp(prefix="dcai_ray-kernels-"))
