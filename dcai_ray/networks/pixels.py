"""What networks expect of their input: size, crop, interpolation, normalization."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """What a network expects of its input; the defaults are the usual ones of ImageNet."""

    size_px: int
    """Side of the square input, in pixels."""
    resize_px: int
    """Length to which the short side is resized before the centre is cropped."""
    whole: bool = False
    """Resize both sides to `resize_px`, so that nothing is cut off, but the picture is squeezed."""
    interpolation: str = "bilinear"
    """One of `INTERPOLATIONS`."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    """Means and standard deviations of red, green and blue, on a scale of 0 to 1."""

    def resized(self, size_px: int | None) -> "Pixels":
        """The same for another size of the input; the share that is cropped stays."""
        if size_px in (None, self.size_px):
            return self
        return replace(self, size_px=size_px, resize_px=size_px * self.resize_px // self.size_px)

    def describe(self) -> str:
        """In words; part of the fingerprint of features."""
        what = "whole picture" if self.whole else "short side"
        if self == usual_pixels(self.size_px):
            return f"resize {what} to {self.size_px} px, centre crop, ImageNet normalization"
        crop = "" if self.resize_px == self.size_px else f", centre crop to {self.size_px} px"
        if not self.whole:
            crop = crop or ", centre crop"
        return (
            f"resize {what} to {self.resize_px} px ({self.interpolation}){crop}, "
            f"mean {_listed(self.mean)}, standard deviation {_listed(self.std)}"
        )


def usual_pixels(size_px: int) -> Pixels:
    """The centre of the picture, normalized as for ImageNet."""
    return Pixels(size_px=size_px, resize_px=size_px)


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
