"""Throughput of `features.extract` against a plain PyTorch loop.

    python benchmarks/extraction.py                          # resnet18, synthetic images
    python benchmarks/extraction.py --data FOLDER --backbone efficientnet_lite0

Both read the same files from disk, in turn in one run, with the same network, batch size, number of
decoding threads (worker processes of the DataLoader) and PyTorch threads; the median of the ratios
is printed (target: at least 0.9).
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from pictures import PlainImages, compared, pictures
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from dcai_ray.networks.backbones import input_pixels
from dcai_ray.networks.features import extract
from dcai_ray.networks.heads import feature_extractor
from dcai_ray.storage.location import Location


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of images; by default, synthetic ones")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, help="side in pixels; by default the network's own")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pixels = input_pixels(args.backbone, args.size)
    network = feature_extractor(args.backbone, args.weights, pixels.size_px)
    plain_network = copy.deepcopy(network).to(device)

    with tempfile.TemporaryDirectory() as made:
        files = pictures(args.data, Path(made), args.images)
        locations = [Location(str(file)) for file in files]
        crop = [v2.Resize(pixels.size_px), v2.CenterCrop(pixels.size_px)]
        loader = DataLoader(
            PlainImages(files, [0] * len(files), crop), args.batch, num_workers=args.decoders
        )

        def ours() -> None:
            extract(
                network,
                locations,
                pixels=pixels,
                batch_size=args.batch,
                threads=args.decoders,
                device=device,
            )

        def plain() -> None:
            with torch.inference_mode():
                torch.cat([plain_network(x.to(device)).cpu() for x, _ in loader])

        print(f"{args.backbone}, {len(files)} images at {pixels.size_px} px, {device}")
        compared(ours, plain, len(files), args.repeats)


if __name__ == "__main__":
    main()
