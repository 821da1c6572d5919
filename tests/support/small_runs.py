"""A set of images small enough to run everything on in seconds, and the command line to do it."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from dcai_ray.cli import main

CLASSES = ("blue", "green", "red")
SETTINGS = {
    "finetune": {
        "backbones": ["squeezenet1_0"],
        "seeds": [0, 1],
        "weights": "none",
        "epochs": 2,
        "batch_size": 8,
        "size_px": 32,
    },
    "extract": {"backbone": "resnet18", "weights": "none", "size_px": 32, "shard_size": 4},
    "value": {"k": 3},
    "retrain": {"probe_seeds": 2},
}
_WAIT_S = 240.0
_MARK = "DCAI_RAY_TEST_PROCESS"


def write_pictures(data: Path) -> Path:
    """Noisy pictures of one colour a class: 10 to learn from, 10 and 4 to validate on; the first
    two of each class in train are of the next colour, as truth.csv says."""
    rng = np.random.default_rng(0)
    lines = ["path,label,true_label"]
    for split, count in (("train", 10), ("shapley_val", 10), ("val", 4)):
        for number, label in enumerate(CLASSES):
            for i in range(count):
                colour = (number + (split == "train" and i < 2)) % len(CLASSES)
                pixels = rng.integers(0, 120, (40, 36, 3), dtype=np.uint8)
                pixels[..., 2 - colour] += 130
                path = f"{split}/{label}/{i:02d}.png"
                (data / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(data / path)
                if split == "train":
                    lines.append(f"{path},{label},{CLASSES[colour]}")
    (data / "truth.csv").write_text("\n".join(lines))
    return data


def write_settings(path: Path) -> Path:
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file of a folder was written, and what is in it."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def done(*arguments: object) -> None:
    """Run a command that has to succeed."""
    assert main([str(argument) for argument in arguments]) == 0


class Process:
    """The command line in a process of its own.

    It joins the cluster at `address` (`ray_cluster` gives it), or starts a Ray of its own, which
    takes some ten seconds longer.
    """

    def __init__(self, log: Path, *arguments: object, address: str | None = None) -> None:
        self._mark = uuid.uuid4().hex
        self._log = log
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        environment[_MARK] = self._mark
        if address:
            environment["RAY_ADDRESS"] = address
            # Workers do not descend from their driver there: the job hands them the mark.
            job = {"runtime_env": {"env_vars": {_MARK: self._mark}}}
            environment["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps(job)
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dcai_ray.cli", *map(str, arguments)],
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,
            )

    def said(self) -> str:
        return self._log.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + _WAIT_S
        while not condition():
            assert self._process.poll() is None, f"ended too early: {self.said()}"
            assert time.monotonic() < end, f"waited in vain: {self.said()}"
            time.sleep(0.002)

    def finish(self) -> int:
        """Its exit code, once it and all its workers have ended, as they do by themselves."""
        try:
            code = self._process.wait(_WAIT_S)
            self._wait_for_workers()
            return code
        finally:
            self.send(signal.SIGKILL)
            self._process.wait()
            for pid in self.workers():
                os.kill(pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """To the whole process group, as a terminal does at Ctrl-C."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _wait_for_workers(self) -> None:
        end = time.monotonic() + _WAIT_S
        while left := self.workers():
            assert time.monotonic() < end, f"{len(left)} processes outlive their driver"
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Processes of Ray that work for it or that it has started."""
        mark = f"{_MARK}={self._mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            if entry.name == str(self._process.pid):
                continue
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found
