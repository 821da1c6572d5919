import os

import pyarrow as pa
import pytest

from dcai_ray.images.export import export_cleaned
from dcai_ray.images.folders import list_splits
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location

DROPPED = ("train/cat/001.png", "train/Käse <b>/000.png")


@pytest.fixture
def data(image_folder):
    """Nasty names, and the same file names in every split, as ids have to be told apart."""
    each = {"cat": 3, "Käse <b>": 2}
    root = image_folder({f"{s}/{c}": n for s in ("train", "val") for c, n in each.items()})
    (root / "truth.csv").write_text("path,label,true_label\n")
    return root


def valued(folder, data, dropped=()):
    """A run that has valued the images and drops some."""
    run = RunDirectory(Location(str(folder)))
    run.bind_settings({"data": str(data)})
    files = list_splits(Location(str(data))).images
    rows = [
        {"split": i.split, "id": i.id, "label": i.label, "path": i.path, "bytes": i.bytes}
        for i in files
    ]
    kept = [
        {"id": i.id, "label": i.label, "value": 1.0}
        for i in files
        if i.split == "train" and i.path not in dropped
    ]
    # As a run has it: the halves of val lie where val is.
    assert {row["split"] for row in rows} == {"train", "shapley_val", "val"}
    parquet.write_table(run.images, pa.Table.from_pylist(rows, schemas.IMAGES), "images")
    parquet.write_table(run.kept, pa.Table.from_pylist(kept, schemas.KEPT), "kept")
    return run


@pytest.fixture
def run(tmp_path, data):
    return valued(tmp_path / "run", data, DROPPED)


def images_below(root):
    return {str(path.relative_to(root)): path for path in root.rglob("*.png")}


@pytest.mark.parametrize("how", ["copy", "hardlink", "symlink"])
def test_the_kept_images_and_the_other_splits_are_exported(run, data, tmp_path, how):
    target = tmp_path / "out/cleaned"
    count = export_cleaned(run, Location(str(target)), how).images
    before, after = images_below(data), images_below(target)
    assert set(after) == set(before) - set(DROPPED)
    assert count == len(after) == 8
    for name, path in after.items():
        assert path.read_bytes() == before[name].read_bytes()
        assert path.is_symlink() == (how == "symlink")
        assert os.path.samefile(path, before[name]) == (how != "copy")


def test_links_hold_when_the_working_folder_changes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_cleaned(run, Location("cleaned"), "symlink")
    monkeypatch.chdir("/")
    assert all(path.is_file() for path in (tmp_path / "cleaned").rglob("*.png"))


def test_a_copy_can_be_changed_without_changing_the_data(run, data, tmp_path):
    before = (data / "val/cat/000.png").read_bytes()
    export_cleaned(run, Location(str(tmp_path / "out")), "copy")
    (tmp_path / "out/val/cat/000.png").write_bytes(b"painted over")
    assert (data / "val/cat/000.png").read_bytes() == before


def test_what_is_exported_is_an_image_folder_again(run, tmp_path):
    export_cleaned(run, Location(str(tmp_path / "out")), "copy")
    listing = list_splits(Location(str(tmp_path / "out")))
    assert listing.classes == ("Käse <b>", "cat")
    assert [len(listing.split(split)) for split in ("train", "shapley_val", "val")] == [3, 3, 2]


@pytest.mark.parametrize("there", ["notes.txt", "train/cat/old.png", ".hidden"])
def test_a_target_that_is_not_empty_is_refused_and_left_alone(run, tmp_path, there):
    (tmp_path / "out" / there).parent.mkdir(parents=True)
    (tmp_path / "out" / there).write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"out: not empty; export to a new folder"):
        export_cleaned(run, Location(str(tmp_path / "out")), "copy")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [
        tmp_path / "out" / there
    ]


def test_an_empty_folder_is_a_target(run, tmp_path):
    (tmp_path / "out").mkdir()
    assert export_cleaned(run, Location(str(tmp_path / "out")), "copy").images == 8


def test_a_file_in_the_place_of_the_target_is_an_os_error(run, tmp_path):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OSError, match="out"):
        export_cleaned(run, Location(str(tmp_path / "out")), "copy")


@pytest.mark.parametrize("missing", ["kept", "images"])
def test_a_run_without_values_has_nothing_to_export(run, tmp_path, missing):
    getattr(run, missing).delete()
    with pytest.raises(ValueError, match="nothing to export yet; value the images first"):
        export_cleaned(run, Location(str(tmp_path / "out")), "copy")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["hardlink", "symlink"])
def test_links_into_an_object_store_are_refused(run, how):
    with pytest.raises(ValueError, match=f"--how {how} needs local folders; use copy"):
        export_cleaned(run, Location("mock://bucket/out"), how)


def test_an_image_that_has_gone_since_is_named(run, data, tmp_path):
    (data / "val/cat/002.png").unlink()
    with pytest.raises(OSError, match=r"val/cat/002\.png"):
        export_cleaned(run, Location(str(tmp_path / "out")), "copy")


@pytest.mark.parametrize("how", ["copy", "hardlink", "symlink"])
def test_relative_links_in_the_data_become_files_that_open(run, data, tmp_path, how):
    """Hard links to them were dead links, and the exit code was 0."""
    before = {name: path.read_bytes() for name, path in images_below(data).items()}
    (tmp_path / "store").mkdir()
    for place, path in enumerate(images_below(data).values()):
        path.rename(tmp_path / f"store/{place}")
        path.symlink_to(os.path.relpath(tmp_path / f"store/{place}", path.parent))
    export_cleaned(run, Location(str(tmp_path / "deep/er/out")), how)
    after = images_below(tmp_path / "deep/er/out")
    assert len(after) == 8
    assert all(path.read_bytes() == before[name] for name, path in after.items())


@pytest.mark.parametrize("inside", ["", "cleaned", "train/cleaned"])
def test_an_export_inside_the_data_is_refused(run, data, inside):
    """The next audit would take it for a class."""
    target = Location(str(data / inside))
    with pytest.raises(ValueError, match=r"inside the data|not empty"):
        export_cleaned(run, target, "copy")
    assert not (data / "cleaned").exists()
    assert not (data / "train/cleaned").exists()


def test_an_export_beside_the_data_with_its_name_as_prefix_is_no_part_of_it(run, data):
    assert export_cleaned(run, Location(f"{data}-cleaned"), "copy").images == 8


def test_an_export_that_fails_leaves_nothing_and_can_be_tried_again(run, data, tmp_path):
    last = data / "val/cat/002.png"
    content = last.read_bytes()
    last.unlink()
    there = set(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"002\.png"):
        export_cleaned(run, Location(str(tmp_path / "out")), "copy")
    assert set(tmp_path.iterdir()) == there
    last.write_bytes(content)
    assert export_cleaned(run, Location(str(tmp_path / "out")), "copy").images == 8


@pytest.mark.parametrize("how", ["copy", "symlink"])
def test_a_file_that_has_changed_since_is_named_and_nothing_is_exported(run, data, tmp_path, how):
    (data / "val/cat/002.png").write_bytes(b"shorter")
    with pytest.raises(ValueError, match=r"002\.png: has 7 bytes, \d+ when the run read it"):
        export_cleaned(run, Location(str(tmp_path / "out")), how)
    assert not (tmp_path / "out").exists()


def test_names_of_230_bytes_are_exported(image_folder, tmp_path):
    """Temporary names were longer than the file system allows."""
    root = image_folder({f"{s}/{c}": 2 for s in ("train", "val") for c in ("cat", "dog")})
    (root / "train/cat/000.png").rename(root / f"train/cat/{'n' * 226}.png")
    run = valued(tmp_path / "run", root)
    assert export_cleaned(run, Location(str(tmp_path / "out")), "copy").images == 8
    assert (tmp_path / f"out/train/cat/{'n' * 226}.png").is_file()


@pytest.mark.slow
def test_datasets_loads_exported_class_folders_with_their_three_splits_apart(
    image_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    counts = {"train": 3, "shapley_val": 2, "val": 1}
    data = image_folder({f"{split}/{c}": n for split, n in counts.items() for c in ("cat", "dog")})
    export_cleaned(valued(tmp_path / "run", data), Location(str(tmp_path / "out")), "copy")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {
        split: 2 * count for split, count in counts.items()
    }
    assert all(rows.features["label"].names == ["cat", "dog"] for rows in found.values())
