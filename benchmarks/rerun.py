"""What a rerun reads from an object store to find that the features are up to date.

python benchmarks/rerun.py                     # 500 shards of 64 images, 512 features each

Shards of noise are written to a fake S3 store (moto) in a separate process; then the steps check
again whether anything is left to do, through a proxy that counts requests and bytes. No images are
read, no network runs, and Ray is not started. The targets are two requests per shard and at most
10 KB per shard, whatever its size; the shards themselves are printed for comparison.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results import Result, print_results

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcai_ray.config import Config, ExtractConfig
from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import extraction, tasks
from dcai_ray.steps.feature_set import read_points
from dcai_ray.storage import parquet
from dcai_ray.storage.features import feature_table
from dcai_ray.storage.location import Location
from tests.support.object_store import SlowWay, running_store


def image_set(count: int) -> ImageSet:
    """Training images of two classes, without files."""
    images = (
        Image(
            split="train",
            id=f"{label}/{i:07d}.png",
            label=label,
            path=f"train/{label}/{i:07d}.png",
            bytes=1,
            width=1,
            height=1,
            sha256=f"{i:064x}",
        )
        for i in range(count)
        for label in (("cat", "dog")[i % 2],)
    )
    return ImageSet(Location("/no/images/are/read"), tuple(images), ("cat", "dog"))


def writer_of_noise(width: int) -> Callable[..., Iterator[int]]:
    """Replaces `run_tasks`: writes shards of noise instead of extracting features on Ray."""
    rng = np.random.default_rng(0)

    def write(function: Any, jobs: Sequence[tasks.ExtractJob], *_: Any) -> Any:
        for job in jobs:
            x = rng.normal(size=(len(job.ids), width)).astype(np.float32)
            table = feature_table(job.ids, job.labels, x, job.notes)
            parquet.write_table(job.target, table, job.fingerprint)
            yield len(x)

    return write


def measured(way: SlowWay, action: Callable[[], Any]) -> tuple[int, int, float]:
    """Requests, bytes received, and seconds."""
    way.reset()
    start = time.perf_counter()
    action()
    return way.requests, way.received, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=500)
    parser.add_argument("--shard-size", type=int, default=64, help="images per shard")
    parser.add_argument("--width", type=int, default=512, help="features per image")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="added to every answer")
    args = parser.parse_args()
    images = image_set(args.shards * args.shard_size)
    config = Config(
        extract=ExtractConfig(backbone="resnet18", weights="none", shard_size=args.shard_size)
    )
    extraction.run_tasks = writer_of_noise(args.width)
    with running_store() as store:
        way = SlowWay(store.endpoint, args.delay_ms / 1000)
        os.environ.update(store.variables, AWS_ENDPOINT_URL=way.endpoint)
        run = RunDirectory(Location(f"{store.bucket('runs')}/run"))
        extraction.extract_features(run, images, config)
        size = sum(size for _, size in run.features.walk())

        def extract() -> None:
            extraction.extract_features(run, images, config)

        rows = [Result("the shards themselves", "", f"{args.shards} files, {size / 1e6:,.1f} MB")]
        for what, action in (
            ("an extraction that is up to date", extract),
            (
                "the fingerprint of the features, for later steps",
                lambda: read_points(run).fingerprint,
            ),
        ):
            requests, received, seconds = measured(way, action)
            target = "<= 0.5 KB per shard"
            figure = f"{requests:,} requests, {received / 1e3:,.0f} KB, {seconds:.1f} s"
            rows.append(Result(what, target, figure))
    print_results("A rerun over an object store", rows)


if __name__ == "__main__":
    main()
