"""Which files are pictures: by their ending, and by their first bytes where that says nothing."""

from dcai_ray.errors import UserError
from dcai_ray.images.decoding import NO_HEIC, extensions, is_heic
from dcai_ray.storage.location import Location

_SYSTEM = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))
# Files that lie beside images and are none; all others without a known ending are opened.
_TEXTS = frozenset((
    ".cls", ".csv", ".db", ".doc", ".docx", ".htm", ".html", ".ini", ".json", ".jsonl", ".log",
    ".mat", ".md", ".npy", ".npz", ".parquet", ".pdf", ".pkl", ".py", ".rst", ".sh", ".sqlite",
    ".tar", ".toml", ".tsv", ".txt", ".url", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip",
))  # fmt: skip
_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG, also MPO
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"\0\0\0\x0cjP  ",  # JPEG 2000
)
_ENDINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"\0\0\0\x0cjP  ": ".jp2",
}
HEAD_BYTES = 32


def is_hidden(path: str) -> bool:
    """Whether a path belongs to the system: hidden, or thumbnails and bins of NAS and Windows."""
    names = path.split("/")
    return (
        any(name.startswith((".", "#recycle", "@Recycle")) or name in _SYSTEM for name in names)
        or names[-1].lower() in _SYSTEM_FILES
    )


def is_image(root: Location, path: str) -> bool:
    """Whether a file is a picture; it is opened only if its ending says nothing.

    Raises:
        UserError: it is a HEIC picture, which Pillow cannot decode here.
        OSError: the file cannot be read.
    """
    ending = ending_of(path)
    if ending in extensions():
        return True
    return ending not in _TEXTS and _looks_like_image(root / path)


def has_ending_of_image(path: str) -> bool:
    """Whether a name ends as those of pictures do.

    Raises:
        UserError: it is that of a HEIC picture, which cannot be decoded here.
    """
    if ending_of(path) in (".heic", ".heif") and ".heic" not in extensions():
        raise UserError(f"{path}: {NO_HEIC}")
    return ending_of(path) in extensions()


def ending_of(path: str) -> str:
    """The ending of a file's name in lower case, with the dot; empty for none."""
    name = path.rsplit("/", 1)[-1]
    return "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""


def _looks_like_image(file: Location) -> bool:
    try:
        head = file.read_bytes(HEAD_BYTES)
    except (FileNotFoundError, PermissionError):  # a broken link is no picture
        return False
    if is_heic(head):
        raise UserError(f"{file}: {NO_HEIC}")
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith(_SIGNATURES) or head[4:12] == b"ftypavif"


def ending_of_content(content: bytes) -> str:
    """The usual ending of a picture's file by its first bytes; "" if unknown."""
    for start, ending in _ENDINGS.items():
        if content.startswith(start):
            return ending
    return ".webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else ""
