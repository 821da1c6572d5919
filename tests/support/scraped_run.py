"""A sampling whose metrics are read as it goes: `python scraped_run.py FEATURES RUN ROUNDS`.

Its last line are the last samples of all series, as JSON: [name, labels, value]. One worker dies.
"""

import json
import os
import re
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import ray

from dcai_ray.cli import main
from dcai_ray.cluster import chains
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location

SAMPLE = re.compile(r"(ray_dcai_ray_\w+)\{(.*)\} (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class DiesOnce(chains.Chain):
    """The first that is given a fourth block dies of it."""

    file = Path()

    def run(self, block_id):
        if block_id[1] == 3:
            try:
                self.file.touch(exist_ok=False)  # of two at the same time, one dies
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().run(block_id)


def write_features(folder, num_players=24, num_validation=9):
    rng = np.random.default_rng(0)
    for split, count in (("train", num_players), ("shapley_val", num_validation)):
        y = np.arange(count) % 3
        x = np.float32(rng.standard_normal((count, 2)) + y[:, np.newaxis])
        ids = [f"class{c}/{i:03d}" for i, c in enumerate(y)]
        labels = [f"class{c}" for c in y]
        write_split(Location(str(folder)) / split, ids, labels, x, {"backbone": "made up"}, split)


def scrape(seen, ended):
    """As Prometheus does, but more often."""
    while not ended.wait(0.2):
        if not ray.is_initialized():
            continue
        node = ray.nodes()[0]
        address = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
        try:
            text = urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read().decode()
        except OSError:  # not up yet
            continue
        for name, labels, value in SAMPLE.findall(text):
            seen[name, labels] = float(value)


if __name__ == "__main__":
    features, run, rounds = sys.argv[1:]
    write_features(features)
    DiesOnce.file = Path(features, "died")
    chains.Chain = type("Chain", (DiesOnce,), {"file": DiesOnce.file})
    seen, ended = {}, threading.Event()
    thread = threading.Thread(target=scrape, args=(seen, ended))
    thread.start()
    flags = "--method sample --rule zero --k 3 --stop rounds --rounds-per-block 4 --num-cpus 2"
    code = main(["value", "--features", features, "--run", run, "--rounds", rounds, *flags.split()])
    time.sleep(3)  # what was told last is out after a second
    ended.set()
    thread.join()
    print(json.dumps([[n, dict(LABEL.findall(labels)), v] for (n, labels), v in seen.items()]))
    sys.exit(code)
