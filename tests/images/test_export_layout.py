"""Exports of sources whose labels do not come from folders."""

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from dcai_ray.errors import UserError
from dcai_ray.images.export import export_cleaned
from dcai_ray.images.folders import MARKER
from dcai_ray.images.image_set import Image, image_table
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location


def png(i):
    content = io.BytesIO()
    Picture.new("RGB", (4, 4), (i, 0, 0)).save(content, "png")
    return content.getvalue()


@pytest.fixture
def data(tmp_path):
    """Rows of Parquet with three splits; the red of a picture is its number."""
    (tmp_path / "set").mkdir()
    for s, split in enumerate(("train", "shapley_val", "val")):
        cells = [{"bytes": png(10 * s + i), "path": None} for i in range(4)]
        columns = {"image": cells, "label": ["Käse", "a,b"] * 2}
        pq.write_table(pa.table(columns), tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    return Location(str(tmp_path / "set"))


def valued(folder, data, dropped=0):
    """A run that has valued the images and drops the first ones."""
    run, listing = RunDirectory(Location(str(folder))), list_run(data)
    run.bind_settings({"data": listing.root.uri, **listing.origin})
    images = [
        Image(i.split, i.id, i.label, i.path, i.bytes, i.packed, width=4, height=4, sha256=digest)
        for i in listing.images
        for digest in [hashlib.sha256(i.file(listing.root).read_bytes()).hexdigest()]
    ]
    kept = [{"id": i.id, "label": i.label, "value": 1.0} for i in listing.split("train")[dropped:]]
    parquet.write_table(run.images, image_table(images), "images")
    parquet.write_table(run.kept, pa.Table.from_pylist(kept, schemas.KEPT), "kept")
    return run


def shown(listing):
    return {
        (image.split, image.label, Picture.open(io.BytesIO(content)).getpixel((0, 0))[0])
        for image in listing.images
        for content in [image.file(listing.root).read_bytes()]
    }


def test_pictures_of_a_table_are_exported_with_labels_and_read_back(data, tmp_path):
    run = valued(tmp_path / "run", data, dropped=1)
    assert export_cleaned(run, Location(str(tmp_path / "out")), "copy").images == 11
    expected = shown(list_run(data)) - {("train", "Käse", 0)}
    assert shown(list_run(Location(str(tmp_path / "out")))) == expected


@pytest.mark.slow
def test_datasets_loads_an_export_with_its_three_splits_apart(data, tmp_path):
    datasets = pytest.importorskip("datasets")
    export_cleaned(valued(tmp_path / "run", data), Location(str(tmp_path / "out")), "copy")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {
        "train": 4,
        "shapley_val": 4,
        "val": 4,
    }
    for s, split in enumerate(("train", "shapley_val", "val")):
        rows = {row["image"].getpixel((0, 0))[0]: row["label"] for row in loaded[split]}
        assert rows == {10 * s + i: ("Käse", "a,b")[i % 2] for i in range(4)}


@pytest.mark.parametrize("how", ["hardlink", "symlink"])
def test_packed_pictures_cannot_be_linked(data, tmp_path, how):
    run = valued(tmp_path / "run", data)
    with pytest.raises(UserError, match=f"--how {how}: the pictures lie in containers; only copy"):
        export_cleaned(run, Location(str(tmp_path / "out")), how)


def test_an_export_to_a_store_is_complete_or_refused(data, tmp_path, object_store, monkeypatch):
    for name, value in object_store.variables.items():
        monkeypatch.setenv(name, value)
    run = valued(tmp_path / "run", data)
    bucket = object_store.bucket("exports")
    export_cleaned(run, Location(f"{bucket}/out"), "copy")
    assert shown(list_run(Location(f"{bucket}/out"))) == shown(list_run(data))
    object_store.put(f"{bucket}/out/{MARKER}", b"")
    for use in (list_run, list_audit, lambda target: export_cleaned(run, target, "copy")):
        with pytest.raises(UserError, match="out: an incomplete export; delete it"):
            use(Location(f"{bucket}/out"))


def test_a_failed_export_to_a_store_leaves_nothing(data, tmp_path, object_store, monkeypatch):
    for name, value in object_store.variables.items():
        monkeypatch.setenv(name, value)
    run = valued(tmp_path / "run", data)
    images = parquet.read_table(run.images).to_pylist()
    images[-1]["sha256"] = "another"
    table = pa.Table.from_pylist(images, schemas.IMAGES)
    parquet.write_table(run.images, table, "images")
    bucket = object_store.bucket("failed")
    with pytest.raises(UserError, match="is not what the run read"):
        export_cleaned(run, Location(f"{bucket}/out"), "copy")
    assert object_store.objects(f"{bucket}/out") == {}
