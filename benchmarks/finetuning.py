"""Throughput of `finetuning.finetune` against a plain PyTorch loop.

    python benchmarks/finetuning.py                          # resnet18, synthetic images
    python benchmarks/finetuning.py --data FOLDER --backbone efficientnet_lite0

Each runs an epoch of the study's recipe (random crop and flip, SGD with momentum) and scores a
fifth as many validation images. Both read the same files from disk, in turn in one run, with the
same network, batch size, number of decoding threads (worker processes of the DataLoader) and
PyTorch threads; the median of the ratios is printed (target: at least 0.9).
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from pictures import PlainImages, compared, pictures
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from dcai_ray.config import FinetuneConfig
from dcai_ray.networks.backbones import input_pixels
from dcai_ray.networks.finetuning import Pictures, finetune, new_training
from dcai_ray.networks.heads import classifier
from dcai_ray.storage.location import Location


def plain_epoch(
    network: nn.Module,
    train: DataLoader,
    val: DataLoader,
    recipe: FinetuneConfig,
    device: torch.device,
) -> None:
    """One epoch as in any PyTorch tutorial."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum
    )
    network.train()
    for pixels, targets in train:
        optimizer.zero_grad()
        output = network(pixels.to(device))
        logits = output if torch.is_tensor(output) else output.logits
        F.cross_entropy(logits, targets.to(device)).backward()
        optimizer.step()
    network.eval()
    right = 0
    with torch.inference_mode():
        for pixels, targets in val:
            right += int((network(pixels.to(device)).argmax(dim=1) == targets.to(device)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of images; by default, synthetic ones")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--images", type=int, default=240, help="a sixth of them for validation")
    parser.add_argument("--size", type=int, help="side in pixels; by default the network's own")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pixels = input_pixels(args.backbone, args.size, training=True)
    recipe = FinetuneConfig(epochs=1, batch_size=args.batch)
    network, plain_network = (
        classifier(args.backbone, 2, args.weights, pixels.size_px, seed=0).to(device)
        for _ in range(2)
    )

    with tempfile.TemporaryDirectory() as made:
        files = pictures(args.data, Path(made), args.images)
        targets = np.arange(len(files)) % 2
        border = len(files) * 5 // 6
        parts = (slice(0, border), slice(border, len(files)))
        train, val = (
            Pictures([Location(str(file)) for file in files[part]], targets[part]) for part in parts
        )
        crops = (
            [v2.RandomResizedCrop(pixels.size_px), v2.RandomHorizontalFlip()],
            [v2.Resize(pixels.size_px), v2.CenterCrop(pixels.size_px)],
        )
        loaders = [
            DataLoader(
                PlainImages(files[part], targets[part].tolist(), crop),
                args.batch,
                shuffle=part.start == 0,
                num_workers=args.decoders,
            )
            for part, crop in zip(parts, crops, strict=True)
        ]

        def ours() -> None:
            training = new_training(network, args.backbone, recipe, device)
            finetune(
                training,
                train,
                val,
                recipe,
                seed=0,
                pixels=pixels,
                device=device,
                threads=args.decoders,
            )

        def plain() -> None:
            plain_epoch(plain_network, *loaders, recipe, device)

        counts = f"{border} + {len(files) - border} images at {pixels.size_px} px"
        print(f"{args.backbone}, {counts}, {device}")
        compared(ours, plain, len(files), args.repeats)


if __name__ == "__main__":
    main()
