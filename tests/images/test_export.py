import os
import zipfile
from dataclasses import fields, replace

import pyarrow as pa
import pytest

from dcai_ray.errors import UserError
from dcai_ray.images import export
from dcai_ray.images.export import export_kept
from dcai_ray.images.folders import list_splits
from dcai_ray.images.image_set import Image, image_table
from dcai_ray.images.listing import picture_file
from dcai_ray.images.sources import list_run
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
    count = export_kept(run, Location(str(target)), how)
    before, after = images_below(data), images_below(target)
    assert set(after) == set(before) - set(DROPPED)
    assert count == len(after) == 8
    for name, path in after.items():
        assert path.read_bytes() == before[name].read_bytes()
        assert path.is_symlink() == (how == "symlink")
        assert os.path.samefile(path, before[name]) == (how != "copy")


def test_links_hold_when_the_working_folder_changes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_kept(run, Location("cleaned"), "symlink")
    monkeypatch.chdir("/")
    assert all(path.is_file() for path in (tmp_path / "cleaned").rglob("*.png"))


def test_a_copy_can_be_changed_without_changing_the_data(run, data, tmp_path):
    before = (data / "val/cat/000.png").read_bytes()
    export_kept(run, Location(str(tmp_path / "out")), "copy")
    (tmp_path / "out/val/cat/000.png").write_bytes(b"painted over")
    assert (data / "val/cat/000.png").read_bytes() == before


def test_what_is_exported_is_an_image_folder_again(run, tmp_path):
    export_kept(run, Location(str(tmp_path / "out")), "copy")
    listing = list_splits(Location(str(tmp_path / "out")))
    assert listing.classes == ("Käse <b>", "cat")
    assert [len(listing.split(split)) for split in ("train", "shapley_val", "val")] == [3, 3, 2]


@pytest.mark.parametrize("there", ["notes.txt", "train/cat/old.png", ".hidden"])
def test_a_target_that_is_not_empty_is_refused_and_left_alone(run, tmp_path, there):
    (tmp_path / "out" / there).parent.mkdir(parents=True)
    (tmp_path / "out" / there).write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"out: not empty; export to a new folder"):
        export_kept(run, Location(str(tmp_path / "out")), "copy")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [
        tmp_path / "out" / there
    ]


def test_an_empty_folder_is_a_target(run, tmp_path):
    (tmp_path / "out").mkdir()
    assert export_kept(run, Location(str(tmp_path / "out")), "copy") == 8


def test_a_file_in_the_place_of_the_target_is_an_os_error(run, tmp_path):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OSError, match="out"):
        export_kept(run, Location(str(tmp_path / "out")), "copy")


@pytest.mark.parametrize("missing", ["kept", "images"])
def test_a_run_without_values_has_nothing_to_export(run, tmp_path, missing):
    getattr(run, missing).delete()
    with pytest.raises(ValueError, match="nothing to export yet; value the images first"):
        export_kept(run, Location(str(tmp_path / "out")), "copy")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["hardlink", "symlink"])
def test_links_into_an_object_store_are_refused(run, how):
    with pytest.raises(ValueError, match=f"--how {how} needs local folders; use copy"):
        export_kept(run, Location("mock://bucket/out"), how)


def test_an_image_that_has_gone_since_is_named(run, data, tmp_path):
    (data / "val/cat/002.png").unlink()
    with pytest.raises(OSError, match=r"val/cat/002\.png"):
        export_kept(run, Location(str(tmp_path / "out")), "copy")


@pytest.mark.parametrize("how", ["copy", "hardlink", "symlink"])
def test_relative_links_in_the_data_become_files_that_open(run, data, tmp_path, how):
    """Hard links to them were dead links, and the exit code was 0."""
    before = {name: path.read_bytes() for name, path in images_below(data).items()}
    (tmp_path / "store").mkdir()
    for place, path in enumerate(images_below(data).values()):
        path.rename(tmp_path / f"store/{place}")
        path.symlink_to(os.path.relpath(tmp_path / f"store/{place}", path.parent))
    export_kept(run, Location(str(tmp_path / "deep/er/out")), how)
    after = images_below(tmp_path / "deep/er/out")
    assert len(after) == 8
    assert all(path.read_bytes() == before[name] for name, path in after.items())


@pytest.mark.parametrize("inside", ["", "cleaned", "train/cleaned"])
def test_an_export_inside_the_data_is_refused(run, data, inside):
    """The next audit would take it for a class."""
    target = Location(str(data / inside))
    with pytest.raises(ValueError, match=r"inside the data|not empty"):
        export_kept(run, target, "copy")
    assert not (data / "cleaned").exists()
    assert not (data / "train/cleaned").exists()


def test_an_export_beside_the_data_with_its_name_as_prefix_is_no_part_of_it(run, data):
    assert export_kept(run, Location(f"{data}-cleaned"), "copy") == 8


def test_an_export_that_fails_leaves_nothing_and_can_be_tried_again(run, data, tmp_path):
    last = data / "val/cat/002.png"
    content = last.read_bytes()
    last.unlink()
    there = set(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"002\.png"):
        export_kept(run, Location(str(tmp_path / "out")), "copy")
    assert set(tmp_path.iterdir()) == there
    last.write_bytes(content)
    assert export_kept(run, Location(str(tmp_path / "out")), "copy") == 8


@pytest.mark.parametrize("how", ["copy", "symlink"])
def test_a_file_that_has_changed_since_is_named_and_nothing_is_exported(run, data, tmp_path, how):
    (data / "val/cat/002.png").write_bytes(b"shorter")
    with pytest.raises(ValueError, match=r"002\.png: has 7 bytes, \d+ when the run read it"):
        export_kept(run, Location(str(tmp_path / "out")), how)
    assert not (tmp_path / "out").exists()


def test_names_of_230_bytes_are_exported(image_folder, tmp_path):
    """Temporary names were longer than the file system allows."""
    root = image_folder({f"{s}/{c}": 2 for s in ("train", "val") for c in ("cat", "dog")})
    (root / "train/cat/000.png").rename(root / f"train/cat/{'n' * 226}.png")
    run = valued(tmp_path / "run", root)
    assert export_kept(run, Location(str(tmp_path / "out")), "copy") == 8
    assert (tmp_path / f"out/train/cat/{'n' * 226}.png").is_file()


def run_of(folder, listing, dropped):
    """A run that has valued the images of a listing and drops some."""
    run = RunDirectory(Location(str(folder)))
    run.bind_settings({"data": listing.root.uri})
    images = [
        Image(**{f.name: getattr(i, f.name) for f in fields(i)}, width=8, height=8, sha256="")
        for i in listing.images
    ]
    kept = [
        {"id": i.id, "label": i.label, "value": 1.0}
        for i in images
        if i.split == "train" and i.id not in dropped
    ]
    parquet.write_table(run.images, image_table(images), "images")
    parquet.write_table(run.kept, pa.Table.from_pylist(kept, schemas.KEPT), "kept")
    return run


def content(listing):
    return {
        (image.split, image.label, picture_file(listing.root, image).read_bytes())
        for image in listing.images
    }


@pytest.fixture
def table(data, tmp_path):
    """The data as a table beside it, with labels that no folder could be called."""
    rows = ["path,label,split"]
    for split in ("train", "shapley_val", "val"):
        start = "val" if split == "shapley_val" else split
        kinds = {"cat": "a/b", "Käse <b>": "..\\c"}
        for i, (kind, label) in enumerate(kinds.items()):
            number = 1 if split == "shapley_val" else 0
            rows += [
                f"{start}/{kind}/{n:03d}.png,{label},{split}"
                for n in ((0, 2 - i) if split == "train" else (number,))
            ]
    (data / "list.csv").write_text("\n".join(rows))
    return list_run(Location(str(data / "list.csv")))


def test_an_export_of_a_table_keeps_labels_and_splits_and_is_read_again(table, tmp_path):
    gone = table.split("train")[0].id
    run = run_of(tmp_path / "run", table, {gone})
    export_kept(run, Location(str(tmp_path / "out")), "copy")
    kept = [i for i in table.images if i.split != "train" or i.id != gone]
    assert content(list_run(Location(str(tmp_path / "out")))) == content(
        replace(table, images=tuple(kept))
    )


def test_images_in_an_archive_are_exported_as_files(data, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in data.rglob("*.png"):
            archive.write(path, path.relative_to(data).as_posix())
    listing = list_run(Location(str(tmp_path / "set.zip")))
    run = run_of(tmp_path / "run", listing, set())
    with pytest.raises(UserError, match="--how symlink: the images lie in archives"):
        export_kept(run, Location(str(tmp_path / "out")), "symlink")
    export_kept(run, Location(str(tmp_path / "out")), "copy")
    assert images_below(tmp_path / "out").keys() == images_below(data).keys()
    for name, path in images_below(data).items():
        assert (tmp_path / "out" / name).read_bytes() == path.read_bytes()


def test_hugging_face_reads_an_export_with_its_three_splits_apart(table, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    export_kept(run_of(tmp_path / "run", table, set()), Location(str(tmp_path / "out")), "copy")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: sorted(rows["label"]) for split, rows in found.items()} == {
        split: sorted(image.label for image in table.split(split))
        for split in ("train", "shapley_val", "val")
    }


def test_an_export_to_a_store_says_that_it_is_incomplete_until_it_is_not(
    run, data, object_store, monkeypatch
):
    target = Location(f"{object_store.bucket('exports')}/out")
    monkeypatch.setattr(export, "_check_size", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_kept(run, target, "copy")
    assert "_INCOMPLETE" in object_store.objects(str(target))
    monkeypatch.undo()
    export_kept(run, target, "copy")  # goes over what is there
    assert object_store.objects(str(target)).keys() == {
        str(path.relative_to(data)) for path in data.rglob("*.png")
    } - set(DROPPED)


def interrupted(*_):
    raise KeyboardInterrupt
