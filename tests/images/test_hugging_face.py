"""Sets that Hugging Face's own package has written, read without it."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dcai_ray.errors import UserError
from dcai_ray.images.listing import picture_file
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.storage.location import Location

NAMES = ("cat", "dog", "owl")


def png(number):
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


SETS = {
    split: [{"image": {"bytes": png(first + i), "path": f"{i}.png"}, "label": i % 3}
            for i in range(count)]
    for split, first, count in (("train", 0, 9), ("validation", 50, 6))
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The splits as `datasets` has them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        environment.setenv("HF_HUB_OFFLINE", "1")
        datasets = pytest.importorskip("datasets")
        features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
        return datasets.DatasetDict({
            split: datasets.Dataset.from_list(rows, features=datasets.Features(features))
            for split, rows in SETS.items()
        })  # fmt: skip


def in_parquet(written, folder):
    (folder / "data").mkdir()
    for split, rows in written.items():
        rows.to_parquet(folder / f"data/{split}-00000-of-00001.parquet", batch_size=4)


def saved(written, folder):
    written.save_to_disk(folder)


def as_image_folder(written, folder):
    for split, rows in SETS.items():
        (folder / split).mkdir()
        with (folder / split / "metadata.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file_name", "label"])
            for row in rows:
                name = row["image"]["path"]
                (folder / split / name).write_bytes(row["image"]["bytes"])
                table.writerow([name, NAMES[row["label"]]])


def content(listing, *splits):
    return sorted(
        (image.label, picture_file(listing.root, image).read_bytes())
        for image in listing.images
        if image.split in splits
    )


def wanted(split):
    return sorted((NAMES[row["label"]], row["image"]["bytes"]) for row in SETS[split])


@pytest.mark.parametrize("write", [in_parquet, saved, as_image_folder])
def test_a_set_is_read_as_it_was_written(written, tmp_path, write):
    write(written, tmp_path)
    found = list_run(Location(str(tmp_path)))
    assert found.classes == NAMES
    assert content(found, "train") == wanted("train")
    assert content(found, "val", "shapley_val") == wanted("validation")
    audited = list_audit(Location(str(tmp_path)))
    assert content(audited, "train") == wanted("train")


def test_a_single_file_of_parquet_is_audited(written, tmp_path):
    in_parquet(written, tmp_path)
    found = list_audit(Location(str(tmp_path / "data/train-00000-of-00001.parquet")))
    assert content(found, "train") == wanted("train")


def test_a_shuffled_set_is_read_in_its_order(written, tmp_path):
    shuffled = written["train"].shuffle(seed=0)
    shuffled.save_to_disk(tmp_path / "set")
    found = list_audit(Location(str(tmp_path / "set")))
    assert [image.label for image in found.images] == [NAMES[i] for i in shuffled["label"]]
    assert content(found, "train") == wanted("train")


def table(folder, **columns):
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return Location(str(folder / "train.parquet"))


def test_plain_bytes_and_text_labels_are_read(tmp_path):
    rows = SETS["train"]
    file = table(
        tmp_path,
        picture=[row["image"]["bytes"] for row in rows],
        target=[NAMES[row["label"]] for row in rows],
    )
    assert content(list_audit(file), "train") == wanted("train")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"fine_label": ["a", "b"], "labels": ["a", "b"]}, "which column holds the labels, of"),
        ({"caption": ["a", "b"]}, "which column holds the labels, of image, caption"),
        ({"label": [[1], [2]]}, r"column label: each image needs one label, got \[1\]"),
        ({"label": [0.5, 1.0]}, r"column label: each image needs one label, got 0.5"),
        ({"label": ["a", None]}, r"column label: each image needs one label, got None"),
    ],
)
def test_labels_that_cannot_be_told_are_refused(tmp_path, columns, reason):
    with pytest.raises(UserError, match=reason):
        list_audit(table(tmp_path, image=[png(0), png(1)], **columns))


def test_a_damaged_description_is_named(written, tmp_path):
    saved(written, tmp_path)
    (tmp_path / "train/state.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match=r"train/state.json: missing or damaged"):
        list_run(Location(str(tmp_path)))


def test_an_image_that_the_table_lists_and_the_folder_lacks_is_named(written, tmp_path):
    as_image_folder(written, tmp_path)
    (tmp_path / "train/3.png").unlink()
    with pytest.raises(UserError, match=r"train/metadata.csv: 3.png does not exist"):
        list_run(Location(str(tmp_path)))


def test_a_metadata_file_about_something_else_leaves_class_folders_alone(image_folder):
    folder = image_folder({"train/cat": 2, "train/dog": 2, "val/cat": 2, "val/dog": 2})
    (folder / "metadata.csv").write_text("camera,iso\nA,100\n")
    (folder / "train/metadata.csv").write_text("file_name,caption\ncat/000.png,a cat\n")
    found = list_run(Location(str(folder)))
    assert found.classes == ("cat", "dog")
    assert len(found.images) == 8
