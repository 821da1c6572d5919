"""What the image benchmarks share: images on disk, a plain data set, paired timings."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import Dataset
from torchvision.transforms import v2

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class PlainImages(Dataset[tuple[torch.Tensor, int]]):
    """Files and classes, read as in any PyTorch tutorial."""

    def __init__(self, files: Sequence[Path], targets: Sequence[int], crop: list[v2.Transform]):
        self._files, self._targets = files, targets
        to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        self._transform = v2.Compose([*crop, *to_tensor])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self._files[index]) as image:
            return self._transform(image.convert("RGB")), self._targets[index]


def pictures(folder: str | None, made: Path, count: int) -> list[Path]:
    """`count` image files below `folder`; without one, synthetic JPEGs of a usual web size."""
    if folder:
        endings = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
        found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in endings)
        if len(found) < count:
            raise SystemExit(f"{folder}: {len(found)} images, {count} wanted; give --images")
        return found[:count]
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (375, 500, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(3)).save(made / f"{i:05d}.jpg", quality=90)
    return sorted(made.iterdir())


def compared(
    ours: Callable[[], object], plain: Callable[[], object], count: int, repeats: int
) -> None:
    """Time both in turn; print images per second and the median ratio of the throughputs."""
    ours(), plain()  # files get into the cache, kernels are chosen
    rates = np.array([[count / _seconds(ours), count / _seconds(plain)] for _ in range(repeats)])
    ratios = rates[:, 0] / rates[:, 1]
    mine, theirs = np.median(rates, axis=0)
    print(
        f"images per second: {mine:.1f}, plain PyTorch {theirs:.1f}; ratio {np.median(ratios):.2f}",
        end="",
    )
    print(f" (all: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; target >= 0.9)")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
