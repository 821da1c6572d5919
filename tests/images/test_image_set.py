from dataclasses import replace

import pyarrow as pa
import pytest

from dcai_ray.images.image_set import image_table, images_of, read_image_set
from dcai_ray.images.picture_files import Packed
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location
from tests.support.image_sets import image_set

PATHS = ("train/dog/1.png", "train/cat/Käse.png", "val/cat/1.png")
LABELS = ("dog", "cat", "cat")


FILES = pa.schema([field for field in schemas.IMAGES if field.name != "packed"])


@pytest.fixture
def images(tmp_path):
    return image_set(tmp_path / "data", PATHS, LABELS)


def test_images_come_back_from_their_table_in_order(images):
    table = image_table(images.images)
    assert table.schema.equals(FILES)
    assert table["path"].to_pylist() == list(PATHS)
    assert images_of(table) == images.images


def test_images_in_containers_come_back_with_their_places(images):
    place = Packed("set.tar", 512, 70, "stored", 70)
    first, *others = images.images
    mixed = (replace(first, packed=place), *others)
    table = image_table(mixed)
    assert table.schema.equals(schemas.IMAGES)
    assert images_of(table) == mixed


def test_a_table_without_images_has_the_columns_all_the_same():
    assert image_table([]).equals(pa.Table.from_pylist([], FILES))
    assert images_of(image_table([])) == ()


def test_a_split_holds_its_images_in_their_order(images):
    assert [image.id for image in images.split("train")] == ["dog/1.png", "cat/Käse.png"]
    assert images.split("shapley_val") == ()


def test_a_run_gives_its_images_back_with_their_root_and_the_classes_of_train(images, tmp_path):
    run = RunDirectory(Location(str(tmp_path / "run")))
    run.bind_settings({"data": images.root.uri})
    parquet.write_table(run.images, image_table(images.images), "f")
    assert read_image_set(run) == images


@pytest.mark.parametrize("known", ["settings", "table"])
def test_a_run_of_imported_features_has_no_images(images, tmp_path, known):
    run = RunDirectory(Location(str(tmp_path / "run")))
    if known == "settings":
        run.bind_settings({"data": images.root.uri})
    else:
        parquet.write_table(run.images, image_table(images.images), "f")
    assert read_image_set(run) is None
