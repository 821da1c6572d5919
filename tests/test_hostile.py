"""Data, features, weights and settings made by somebody who means harm: refused, or harmless."""

import os
import pickle
import struct
import tracemalloc
import zlib
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from dcai_ray.cli import main
from dcai_ray.images import decoding
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.features import feature_table, write_manifest
from dcai_ray.storage.location import Location
from dcai_ray.storage.values import kept_table
from dcai_ray.valuation.utilities.refit import classifier
from tests.support.page_scripts import foreign_scripts
from tests.support.small_runs import done, write_settings

NAMES = (
    "<script>alert(1)<",
    "<img src=x onerror=alert(1)>",
    "a\"quote' onload=x",
    "$(touch touched)",
    "`touch touched`;touch touched&",
    "--to",
    "..almost",
    "{{ 7 * 7 }}",
    "\\..\\x",
    "%2e%2e%2f",
)
MARKUP = "</title><script>alert(1)</script><b onclick='x'>"


def listing(folder):
    """Every file and link below, with its content: what must not change."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.is_symlink()
        for path in sorted(folder.rglob("*"))
    }


def outside(folder, *but):
    return {name: it for name, it in listing(folder).items() if not name.startswith(but)}


def refused(capfd, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("dcai-ray: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Surroundings, with the working directory in them."""
    (tmp_path / "secret.png").write_bytes(b"not yours")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_picture(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def write_data(place):
    """Classes and images with names that mean something to HTML, shells, templates and paths."""
    rng = np.random.default_rng(0)
    lines = ["path,label,true_label", "../../secret.png,x,y"]
    for label in ("<b>cat", "`touch touched`"):
        for split, count in (("train", len(NAMES)), ("shapley_val", 2), ("val", 2)):
            for name in NAMES[:count]:
                path = f"{split}/{label}/{name}.png"
                write_picture(place / "data" / path, rng)
                if split == "train":
                    quoted = path.replace('"', '""')
                    lines.append(f'"{quoted}",{label},"{MARKUP}"')
    (place / "data/truth.csv").write_text("\n".join(lines))


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found, self.attributes = set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.ray
def test_hostile_names_stay_names(place, ray_cluster, capfd):
    write_data(place)
    write_settings(place / "small.yaml")
    before = listing(place)
    done("run", "--data", "data", "--run", "run", "--config", "small.yaml", "--no-finetune")
    done("export", "--run", "run", "--to", "clean")
    assert outside(place, "run", "clean") == before
    kept = {path.name for path in (place / "clean").rglob("*.png")}
    assert kept <= {f"{name}.png" for name in NAMES}
    assert len(kept) > 1
    page = Tags(html := (place / "run/report.html").read_text())
    assert foreign_scripts(html) == []
    assert not {name for name in page.attributes if name.startswith("on")}
    assert "&lt;script&gt;alert(1)" in html  # the names are there, as text
    assert "{{ 7 * 7 }}" in html


@pytest.mark.parametrize("name", ["new\nline", "bell\a", "\x1b]0;title\a", "\x9b31m"])
def test_a_name_with_control_characters_is_refused_in_one_line(place, name, capfd):
    write_data(place)
    write_picture(place / f"data/train/<b>cat/{name}.png", np.random.default_rng(1))
    before = listing(place)
    line = refused(capfd, "run", "--data", "data", "--run", "run", "--no-finetune")
    assert "control characters; rename it" in line
    assert line.isprintable()
    assert listing(place) == before


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, *chunks):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b"")


@cache
def compressed():
    """A hundred megabytes in few bytes, with the two bytes that stand before it in a chunk."""
    return b"a\0\0" + zlib.compress(b"x" * 10**8)


BOMBS = {
    "wide": (lambda: png(50_000, 50_000), "too large to decode"),
    "text": (lambda: png(8, 8, chunk(b"zTXt", compressed())), "too large"),
    "profile": (lambda: png(8, 8, chunk(b"iCCP", compressed())), "too large"),
    # Pillow gives PostScript to another program.
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_an_unreadable_image_in_little_memory(name):
    make, reason = BOMBS[name]
    content = make()
    assert len(content) < 200_000
    tracemalloc.start()
    found = decoding.inspect(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason in found.reason
    assert peak < 5 * 2**20


@pytest.mark.ray
def test_bombs_and_links_are_reported_and_nothing_outside_changes(place, ray_cluster, capfd):
    write_data(place)
    folder = place / "data/train/<b>cat"
    for name in ("wide", "postscript"):
        (folder / f"{name}.png").write_bytes(BOMBS[name][0]())
    (folder / "link.png").symlink_to(place / "secret.png")
    before = listing(place)
    flags = ("--backbone", "resnet18", "--weights", "none", "--size-px", "32")
    said = "".join(refused_all(capfd, "audit", "data", "--run", "run", *flags))
    for name in ("wide", "postscript", "link"):
        assert f"{name}.png: " in said
    assert "not yours" not in said
    assert outside(place, "run") == before


def refused_all(capfd, *arguments):
    assert main([str(argument) for argument in arguments]) == 1
    return capfd.readouterr().err.splitlines(keepends=True)


class Touch:
    """A pickle that writes a file when it is loaded the usual way."""

    def __reduce__(self):
        return os.system, ("touch touched",)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "legacy.pth"])
@pytest.mark.ray
def test_weights_that_are_a_program_are_refused(place, name, ray_cluster, capfd):
    write_data(place)
    if name == "weights.pth":
        torch.save({"fc.weight": Touch()}, place / name)
    else:
        (place / name).write_bytes(pickle.dumps({"fc.weight": Touch()}, protocol=2))
    before = listing(place)
    flags = ("--backbone", "resnet18", "--weights", place / name)
    line = refused(capfd, "audit", "data", "--run", "run", *flags)
    assert f"{name}: neither safetensors nor a state dict" in line
    assert outside(place, "run") == before


def test_a_feature_pickle_that_is_a_program_is_refused(place, capfd):
    (place / "f.pkl").write_bytes(pickle.dumps({"x": np.eye(3), "y": Touch()}))
    before = listing(place)
    line = refused(capfd, "import-features", "f.pkl", "--split", "train", "--features", "features")
    assert "f.pkl: refused, only NumPy arrays are read from a pickle (wants " in line
    assert listing(place) == before


def test_settings_that_are_a_program_are_refused(place, capfd):
    write_data(place)
    (place / "s.yaml").write_text('value: !!python/object/apply:os.system ["touch touched"]\n')
    before = listing(place)
    line = refused(capfd, "run", "--data", "data", "--run", "run", "--config", "s.yaml")
    assert "s.yaml: not YAML (" in line
    assert listing(place) == before


def test_a_class_that_is_no_classifier_is_not_even_made(place):
    with pytest.raises(ValueError, match="not a scikit-learn classifier"):
        classifier("subprocess.Popen", args="touch touched", shell=True)
    assert list(place.iterdir()) == [place / "secret.png"]


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/hostname", "train/../../secret.png"])
def test_a_run_whose_paths_lead_outside_is_neither_exported_nor_shown(place, path, capfd):
    run = Location("run")
    row = {"split": "train", "id": "cat/0.png", "label": "cat", "path": path, "bytes": 9}
    row |= {"width": 8, "height": 8, "sha256": ""}
    parquet.write_table(run / "images.parquet", pa.Table.from_pylist([row], schemas.IMAGES), "x")
    value = {"id": "cat/0.png", "label": "cat", "value": 1.0, "decision": "keep"}
    table = pa.Table.from_pylist([value], schemas.VALUES)
    parquet.write_table(run / "values/values.parquet", table, "x", choice="{}")
    parquet.write_table(run / "kept.parquet", kept_table(table), "x")
    (run / "config.yaml").write_bytes(f"data: {place}/data\n".encode())
    (place / "data").mkdir()
    before = listing(place)
    for command in (("export", "--to", "clean"), ("report",)):
        assert "leads out of it; rename it" in refused(capfd, *command, "--run", "run")
    assert listing(place) == before


@pytest.mark.parametrize("shard", ["../../secret.parquet", "/etc/hostname"])
def test_a_manifest_names_no_file_outside(place, shard, capfd):
    write_manifest(Location("features/train"), "x", [shard])
    line = refused(capfd, "value", "--features", "features", "--run", "run")
    assert "_train.json: damaged" in line


@pytest.mark.ray
def test_ids_of_features_are_never_paths(place, ray_cluster, capfd):
    rng = np.random.default_rng(0)
    for split in ("train", "shapley_val", "val"):
        ids = [f"../../{split}{i}" for i in range(8)] + [f"{MARKUP[:7]}{i}" for i in range(8)]
        labels = [name.split("/", 1)[0] if "/" in name else MARKUP for name in ids]
        x = np.float32(rng.normal(size=(16, 4)))
        table = feature_table(ids, labels, x, {"backbone": MARKUP})
        parquet.write_table(Location(f"features/{split}/part-00000.parquet"), table, "x")
        write_manifest(Location(f"features/{split}"), "x", ["part-00000.parquet"])
    before = listing(place)
    done("value", "--features", "features", "--run", "run")
    done("report", "--run", "run")
    assert "valued from imported features" in refused(capfd, "export", "--run=run", "--to=clean")
    assert outside(place, "run") == before
    assert foreign_scripts((place / "run/report.html").read_text()) == []
