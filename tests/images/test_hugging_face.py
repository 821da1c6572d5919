import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dcai_ray.errors import UserError
from dcai_ray.images.decoding import read
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.storage.location import Location

datasets = pytest.importorskip("datasets")

NAMES = ("Käse", "cat")


def pixels(i):
    return np.full((4, 5, 3), 20 * i, dtype=np.uint8)


def png(i):
    content = io.BytesIO()
    Image.fromarray(pixels(i)).save(content, "png")
    return content.getvalue()


@pytest.fixture(scope="module")
def made():
    """Of `datasets` itself: train, validation and test, the last of which is another split."""
    features = datasets.Features(
        {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=list(NAMES))}
    )
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {
                    "img": [{"bytes": png(i), "path": None} for i in rows],
                    "fine_label": [i % 2 for i in rows],
                },
                features=features,
            )
            for split, rows in {"train": range(6), "validation": range(6, 12)}.items()
        }
    )


def to_parquet(made, folder):
    for split, part in made.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        part.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))


def to_disk(made, folder):
    made.save_to_disk(str(folder))


@pytest.mark.parametrize("write", [to_parquet, to_disk])
def test_a_data_set_that_datasets_wrote_is_listed_and_read(made, tmp_path, write):
    write(made, tmp_path / "set")
    listing = list_run(Location(str(tmp_path / "set")))
    assert listing.classes == tuple(sorted(NAMES))
    assert len(listing.split("train")) == 6
    assert len(listing.split("shapley_val") + listing.split("val")) == 6
    for i, image in enumerate(listing.split("train")):
        assert image.label == NAMES[i % 2]
        np.testing.assert_array_equal(read(image.file(listing.root)), pixels(i))


def test_a_single_split_of_save_to_disk_is_audited(made, tmp_path):
    made["train"].save_to_disk(str(tmp_path / "set"))
    assert len(list_audit(Location(str(tmp_path / "set"))).images) == 6


def table(file, columns, **schema):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, **schema), file, row_group_size=2)
    return Location(str(file))


def test_rows_of_later_row_groups_are_found(tmp_path):
    columns = {"image": [png(i) for i in range(7)], "label": list("abababa")}
    listing = list_audit(table(tmp_path / "set.parquet", columns))
    for i, image in enumerate(listing.images):
        np.testing.assert_array_equal(read(image.file(listing.root)), pixels(i))


def test_a_picture_without_bytes_lies_beside_the_table(tmp_path):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/2.png").write_bytes(png(2))
    cells = [{"bytes": png(i) if i != 2 else None, "path": f"beside/{i}.png"} for i in range(4)]
    table(tmp_path / "train.parquet", {"image": cells, "label": [0, 1, 0, 1]})
    listing = list_audit(Location(str(tmp_path)))
    shown = {read(image.file(listing.root)).getpixel((0, 0))[0] for image in listing.images}
    assert shown == {0, 20, 40, 60}


def test_a_path_that_leads_away_is_refused(tmp_path):
    cells = [{"bytes": None, "path": "/etc/passwd"}] * 2
    file = table(tmp_path / "train.parquet", {"image": cells, "label": [0, 1]})
    with pytest.raises(UserError, match=r"row 0 names /etc/passwd, which does not lie beside"):
        list_audit(file)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"image": "png", "labels": "ab", "y": "ab"}, r"columns labels, y may all hold the labels"),
        ({"image": "png", "img": "png", "label": "ab"}, r"columns image, img may all hold the im"),
        ({"image": "png", "caption": "ab"}, r"no column of labels; rename yours to label"),
    ],
)
def test_columns_that_are_not_clear_are_refused_with_what_to_say(tmp_path, columns, line):
    given = {
        name: [png(0), png(1)] if kind == "png" else list(kind) for name, kind in columns.items()
    }
    with pytest.raises(UserError, match=line):
        list_audit(table(tmp_path / "set.parquet", given))


def test_a_damaged_table_is_one_line(tmp_path):
    (tmp_path / "set.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(UserError, match=r"set\.parquet: a damaged table [^\n]*$"):
        list_audit(Location(str(tmp_path / "set.parquet")))


def imagefolder(folder: Path, kind: str, *, per_split: bool) -> None:
    rows = []
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for i in range(4):
            (folder / split / f"{i}.png").write_bytes(png(i))
        rows.append(
            [
                {
                    "file_name": f"{i}.png" if per_split else f"{split}/{i}.png",
                    "label": NAMES[i % 2],
                }
                for i in range(4)
            ]
        )
    places = [folder / "train", folder / "val"] if per_split else [folder]
    for place, part in zip(places, rows if per_split else [rows[0] + rows[1]], strict=True):
        if kind == "csv":
            lines = ["file_name,label", *(f"{r['file_name']},{r['label']}" for r in part)]
            (place / "metadata.csv").write_text("\n".join(lines) + "\n")
        elif kind == "jsonl":
            (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, part)) + "\n")
        else:
            pq.write_table(pa.Table.from_pylist(part), place / "metadata.parquet")


@pytest.mark.parametrize("per_split", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_imagefolder_lists_what_its_metadata_says(tmp_path, kind, per_split):
    imagefolder(tmp_path / "set", kind, per_split=per_split)
    listing = list_run(Location(str(tmp_path / "set")))
    assert {image.id: image.label for image in listing.split("train")} == {
        f"train/{i}.png": NAMES[i % 2] for i in range(4)
    }


def test_metadata_without_labels_leaves_class_folders_as_they_are(image_folder):
    data = image_folder({"a": 2, "b": 2})
    (data / "metadata.csv").write_text("camera,taken\nx,2020\n")
    assert {image.id for image in list_audit(Location(str(data))).images} == {
        f"{label}/00{i}.png" for label in "ab" for i in range(2)
    }


def test_parquet_in_a_store_reads_as_local(made, tmp_path, object_store, monkeypatch):
    for name, value in object_store.variables.items():
        monkeypatch.setenv(name, value)
    to_parquet(made, tmp_path)
    bucket = object_store.bucket("parquet")
    for file in (tmp_path / "data").iterdir():
        object_store.put(f"{bucket}/data/{file.name}", file.read_bytes())
    listing = list_run(Location(bucket))
    np.testing.assert_array_equal(read(listing.images[3].file(listing.root)), pixels(3))


def test_a_metadata_file_about_something_else_leaves_class_folders_alone(image_folder):
    folder = image_folder({"train/cat": 2, "train/dog": 2, "val/cat": 2, "val/dog": 2})
    (folder / "metadata.csv").write_text("camera,iso\nA,100\n")
    (folder / "train/metadata.csv").write_text("file_name,caption\ncat/000.png,a cat\n")
    found = list_run(Location(str(folder)))
    assert found.classes == ("cat", "dog")
    assert len(found.images) == 8
