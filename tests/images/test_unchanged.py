import hashlib
import os
import shutil
import time

import pytest

from dcai_ray.images.folders import list_folder
from dcai_ray.images.image_set import Image, image_table, read_image_set
from dcai_ray.images.unchanged import follow, replaced
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location


@pytest.fixture
def run(tmp_path, image_folder):
    """A run that has read the images an hour after they were made, as its clock says."""
    root = image_folder({"cat": 2, "dog": 2})
    run = RunDirectory(Location(str(tmp_path / "run")))
    run.bind_settings({"data": str(root)})
    images = [
        Image(split=i.split, id=i.id, label=i.label, path=i.path, bytes=i.bytes, width=1, height=1,
              sha256=hashlib.sha256((root / i.path).read_bytes()).hexdigest())
        for i in list_folder(Location(str(root))).images
    ]  # fmt: skip
    parquet.write_table(run.images, image_table(images), "images")
    return run


def test_a_picture_replaced_at_the_same_size_is_noticed(run, tmp_path):
    there = read_image_set(run)
    assert replaced(run, there.root, there.images) == []
    file = tmp_path / "data/dog/001.png"
    before = file.stat()
    file.write_bytes(bytes(reversed(file.read_bytes())))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` keeps the time
    assert replaced(run, there.root, there.images) == ["dog/001.png"]


def test_a_file_older_than_the_reading_is_not_opened(run, tmp_path):
    there = read_image_set(run)
    file = tmp_path / "data/dog/001.png"
    file.write_bytes(bytes(reversed(file.read_bytes())))
    later = time.time() + 3600
    os.utime(run.images.uri, (later, later))
    assert replaced(run, there.root, there.images) == []


def test_a_run_follows_data_that_has_moved(run, tmp_path):
    (tmp_path / "data").rename(tmp_path / "moved")
    follow(run, Location(str(tmp_path / "moved")))
    assert read_image_set(run).root == Location(str(tmp_path / "moved"))


@pytest.mark.parametrize("fault", ["replaced", "missing"])
def test_a_run_does_not_follow_to_other_images(run, tmp_path, fault):
    other = shutil.copytree(tmp_path / "data", tmp_path / "other")
    (other / "cat/000.png").unlink()
    if fault == "replaced":
        (other / "cat/000.png").write_bytes((other / "cat/001.png").read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"1 of 4 images are missing or differ, the first cat/000"):
        follow(run, Location(str(other)))
    assert read_image_set(run).root == Location(str(tmp_path / "data"))


def test_a_run_of_a_table_follows_the_table(tmp_path, run):
    data = tmp_path / "data"
    images = read_image_set(run).images
    rows = "".join(f"{image.path},{image.label}\n" for image in images)
    (data / "list.csv").write_text("path,label\n" + rows)
    run.move_data(Location(str(data)), Location(str(data / "list.csv")))
    data.rename(tmp_path / "moved")
    follow(run, Location(str(tmp_path / "moved/list.csv")))
    there = read_image_set(run)
    assert there.root == Location(str(tmp_path / "moved"))
    assert there.table == Location(str(tmp_path / "moved/list.csv"))
