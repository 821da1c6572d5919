import csv
import json

import pandas as pd
import pytest

from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.images.lists import list_rows
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.images.truth import read_truth
from dcai_ray.storage.location import Location

LABELS = ("n/a", 'Käse <b>, "x"')


@pytest.fixture
def pictures(image_folder):
    return image_folder({"a": 4, "b": 4}, name="pictures")


@pytest.fixture
def rows(pictures):
    """The labels have nothing to do with the folders."""
    files = sorted(pictures.rglob("*.png"))
    names = [str(file.relative_to(pictures)) for file in files]
    splits = ("train", "train", "val", "val") * 2
    return [
        {"path": name, "label": LABELS[i // 2 % 2 ^ i % 2], "split": splits[i]}
        for i, name in enumerate(names)
    ]


def written(folder, rows, kind):
    file = folder / f"list.{kind}"
    if kind == "csv":
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pd.DataFrame(rows).to_parquet(file)
    return Location(str(file))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_lists_its_images_with_paths_as_ids_and_any_text_as_label(pictures, rows, kind):
    listing = list_run(written(pictures, rows, kind))
    assert listing.classes == tuple(sorted(LABELS))
    assert listing.root == Location(str(pictures))
    labels = {row["path"]: row["label"] for row in rows}
    assert {image.id: image.label for image in listing.images} == labels
    assert all((pictures / i.path).stat().st_size == i.bytes for i in listing.images)
    assert {i.id for i in listing.split("train")} == {
        row["path"] for row in rows if row["split"] == "train"
    }


def test_an_audit_of_a_table_values_train_or_all_rows(pictures, rows):
    file = written(pictures, rows, "csv")
    assert len(list_audit(file).images) == 4
    assert len(list_audit(file, splits={}).images) == 8
    without = [{key: row[key] for key in ("path", "label")} for row in rows]
    assert len(list_audit(written(pictures, without, "csv")).images) == 8


def test_absolute_paths_are_read_from_anywhere(pictures, rows, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    full = [{**row, "path": str(pictures / row["path"])} for row in rows]
    listing = list_run(written(tmp_path / "elsewhere", full, "csv"))
    assert {(listing.root / i.path).uri for i in listing.images} == {row["path"] for row in full}


def test_splits_of_other_names_are_named(pictures, rows):
    named = [{**row, "split": {"train": "A", "val": "B"}[row["split"]]} for row in rows]
    file = written(pictures, named, "csv")
    with pytest.raises(ValueError, match="no folder train"):
        list_run(file)
    listing = list_run(file, splits={"train": "A", "val": "B"})
    assert len(listing.split("train")) == 4


def test_the_true_labels_may_be_a_column(pictures, rows):
    known = [{**row, "true_label": LABELS[0]} for row in rows]
    file = written(pictures, known, "csv")
    listing = list_audit(file)
    images = tuple(
        Image(split=i.split, id=i.id, label=i.label, path=i.path, bytes=i.bytes, width=1, height=1,
              sha256="")
        for i in listing.images
    )  # fmt: skip
    truth = read_truth(ImageSet(listing.root, images, listing.classes, listing.table))
    assert truth.wrong.tolist() == [image.label != LABELS[0] for image in images]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "a/gone.png"}, r"1 of its images do not exist, the first a/gone\.png"),
        ({"path": "../out.png"}, "leads out of it"),
        ({"path": "a/001.png"}, r"a/001\.png is listed more than once"),
        ({"label": ""}, "row 1 has no label; expected columns"),
        ({"path": "/a.png"}, "some paths are absolute and some relative"),
        ({"split": ""}, "rows without a split"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(pictures, rows, change, message):
    file = written(pictures, [{**rows[0], **change}, *rows[1:]], "csv")
    with pytest.raises(ValueError, match=message):
        list_rows(file, whole=True)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_table_in_a_store_lists_images_there(pictures, rows, absolute, object_store, monkeypatch):
    for name, value in object_store.variables.items():
        monkeypatch.setenv(name, value)
    bucket = object_store.bucket("lists-absolute" if absolute else "lists-relative")
    for row in rows:
        object_store.put(f"{bucket}/pets/{row['path']}", (pictures / row["path"]).read_bytes())
    there = [{**r, "path": f"{bucket}/pets/{r['path']}"} for r in rows] if absolute else rows
    table = pictures / "list.csv"
    written(pictures, there, "csv")
    object_store.put(f"{bucket}/pets/list.csv", table.read_bytes())
    listing = list_run(Location(f"{bucket}/pets/list.csv"))
    assert sorted(i.label for i in listing.images) == sorted(row["label"] for row in rows)
    image = listing.images[0]
    name = str(image.file(listing.root)).removeprefix(f"{bucket}/pets/")
    assert image.file(listing.root).read_bytes() == (pictures / name).read_bytes()
