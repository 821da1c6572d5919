"""What all evidence about labels costs, planted errors included: time of each step, and memory.

    python benchmarks/evidence.py                                       # a minute on two cores
    python benchmarks/evidence.py --sizes 50000,1000,512                # minutes

Runs `dcai-ray value --rule wrong`, the rule that needs all evidence and nothing else, on made-up
features of ten classes of which 15 % of the training labels are wrong. Seconds are those of the
command's own log, so Ray's start is not in them. Memory is the peak of what the driver holds for
itself (RssAnon), above that of the same command on a handful of images and above the float32
features of all images: shared pages of Ray's object store are not in it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from results import Result, print_results

from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location

_CLASSES, _WRONG = 10, 0.15
_HANDFUL = (60, 40, 8)
_TARGETS = {(3000, 500, 1280): "< 20 s", (50_000, 1000, 512): "< 240 s"}


def write_features(folder: Path, n: int, m: int, d: int) -> None:
    """Training features (n, d) with wrong labels, and clean ones (m, d)."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((_CLASSES, d)) * 2 / np.sqrt(d) ** 0.5
    for split, count, wrong in (("train", n, _WRONG), ("shapley_val", m, 0.0)):
        y = np.arange(count) % _CLASSES
        x = np.float32(centres[y] + rng.standard_normal((count, d)))
        flipped = rng.random(count) < wrong
        y = np.where(flipped, (y + rng.integers(1, _CLASSES, count)) % _CLASSES, y)
        ids = [f"class{c}/{i:06d}" for i, c in enumerate(y)]
        labels = [f"class{c}" for c in y]
        write_split(Location(str(folder)) / split, ids, labels, x, {"backbone": "made up"}, split)


def driver_bytes(pid: int) -> int:
    """Memory that a process holds for itself; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def value(folder: Path) -> int:
    """Value the features in a process of its own; returns the driver's peak of memory."""
    command = [sys.executable, "-m", "dcai_ray.cli", "value", "--rule", "wrong"]
    command += ["--features", str(folder / "features"), "--run", str(folder / "run")]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, driver_bytes(process.pid))
            time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    return peak


def steps(log: Sequence[str]) -> list[tuple[str, float]]:
    """Each step of a log, with its seconds."""
    found = []
    for line in log:
        text = line.partition(" INFO ")[2]
        name, colon, said = text.partition(": ")
        if colon and " of " in said and said.rpartition(" in ")[2].endswith(" s"):
            found.append((name, float(said.rpartition(" in ")[2][:-2])))
    return found


def run(sizes: tuple[int, int, int]) -> tuple[int, list[str]]:
    """The peak of memory in bytes, and the command's log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder / "features", *sizes)
        peak = value(folder)
        return peak, (folder / "run/run.log").read_text().splitlines()


def measured(sizes: tuple[int, int, int]) -> list[Result]:
    n, m, d = sizes
    least, _ = run(_HANDFUL)
    peak, log = run(sizes)
    stamps = [datetime.fromisoformat(line.split(" ")[0]) for line in log if " INFO " in line]
    begun = next(i for i, line in enumerate(log) if " INFO node " in line)
    seconds = (stamps[-1] - stamps[begun]).total_seconds()
    above = (peak - least - 4 * (n + m) * d) / 2**30
    what = f"{n:,} x {m:,} x {d:,}"
    results = [Result(f"{what}: all evidence", _TARGETS.get(sizes, ""), f"{seconds:.0f} s")]
    results += [Result(f"- {step}", "", f"{took:.1f} s") for step, took in steps(log)]
    return [*results, Result(f"{what}: memory above the inputs", "< 1 GB", f"{above:.2f} GB")]


def sizes_of(text: str) -> tuple[int, int, int]:
    n, m, d = map(int, text.split(","))
    return n, m, d


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=sizes_of, nargs="+", default=[(3000, 500, 1280)])
    args = parser.parse_args(arguments)
    results = [result for sizes in args.sizes for result in measured(sizes)]
    print_results("The cost of all evidence", results)


if __name__ == "__main__":
    main()
