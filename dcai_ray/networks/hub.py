"""Files of the Hugging Face hub: from its cache on this machine, or downloaded with a word.

What the cache holds is used as it is, without a request. What it lacks is asked for once, with a
time limit, before the hub's own library, which tries again for minutes, is let loose.
"""

import json
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dcai_ray.errors import UserError
from dcai_ray.networks.weight_files import NO_DOWNLOAD, REACH_S, megabytes
from dcai_ray.progress import say

NEEDED = (
    ("config.json",),
    ("preprocessor_config.json",),
    ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
)
"""Files of an image network's repository; of each group one."""
_WHY = {401: "it does not exist or is private", 403: "access is refused", 404: "it does not exist"}


def cached_folder(repository: str, needed: Sequence[Sequence[str]]) -> str | None:
    """The folder of a repository in the cache, if that has the files; nothing is requested.

    Args:
        repository: owner/name.
        needed: alternatives: one file of each group must be there.
    """
    from huggingface_hub import try_to_load_from_cache

    folder = None
    for group in needed:
        paths = [try_to_load_from_cache(repository, file) for file in group]
        there = [path for path in paths if isinstance(path, str)]
        if not there:
            return None
        folder = os.path.dirname(there[0])
    return folder


def fetched_folder(repository: str, needed: Sequence[Sequence[str]], name: str) -> str:
    """The folder of a repository in the cache, with one file of each group, downloaded if need be.

    Args:
        repository: owner/name.
        needed: groups of files; of each the first one that the repository has is taken.
        name: name of the network, for messages.
    Raises:
        UserError: the files cannot be downloaded; the message says what to do.
    """
    folder = cached_folder(repository, needed)
    if folder is not None:
        return folder
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars

    sizes = _sizes(repository, name)
    wanted = []
    for group in needed:
        there = [file for file in group if file in sizes]
        if not there:
            raise UserError(f"{name}: the repository {repository} has no {' or '.join(group)}")
        wanted += [there[0], *(f for f in sizes if fnmatch(f, _shards(there[0])))]
    total = megabytes(sum(sizes[file] for file in wanted))
    say(f"downloading {name}{total} from the Hugging Face hub to {constants.HF_HUB_CACHE}")
    disable_progress_bars()
    try:
        return snapshot_download(repository, allow_patterns=wanted)
    except (OSError, HfHubHTTPError) as error:
        raise UserError(_unreachable(repository, name, error)) from None


def _shards(file: str) -> str:
    """A pattern of the pieces that an index of weights speaks of; empty for other files."""
    return file.replace(".safetensors.index.json", "-*.safetensors") if "index" in file else ""


def _sizes(repository: str, name: str) -> dict[str, int]:
    """The files of a repository with their sizes, by a single request."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError(_unreachable(repository, name, "HF_HUB_OFFLINE is set"))
    address = f"{constants.ENDPOINT}/api/models/{repository}?blobs=true"
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urlopen(Request(address, headers=headers), timeout=REACH_S) as answer:
            found: dict[str, Any] = json.load(answer)
    except HTTPError as error:
        reason = _WHY.get(error.code, f"HTTP {error.code}")
        raise UserError(
            f"{name}: cannot read {address.partition('?')[0]}: {reason}; check the name, and for "
            "a gated repository accept its terms and set HF_TOKEN"
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(_unreachable(repository, name, error)) from None
    return {entry["rfilename"]: entry.get("size") or 0 for entry in found.get("siblings", [])}


def _unreachable(repository: str, name: str, error: object) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"no files for {name}: the Hugging Face hub cannot be reached ({reason}); run `hf download "
        f"{repository}` where it can, and copy the hub's cache here; {NO_DOWNLOAD}"
    )
