import random
import re

import pytest

from dcai_ray.images.decoding import inspect
from dcai_ray.images.folders import ImageFile, duplicates, halve_val, list_folder, list_splits
from dcai_ray.storage.location import Location

TRAIN = {"train/cat": 3, "train/dog": 2}
CLEAN = {"shapley_val/cat": 1, "shapley_val/dog": 1}
VAL = {"val/cat": 4, "val/dog": 3}
NASTY = ("two words", 'it\'s "quoted"', "Käse 犬", "<script>alert(1)<", "100% #1", "why?")


def splits(root, **options):
    return list_splits(Location(str(root)), **options)


def paths(listing):
    return [image.path for image in listing.images]


def test_images_are_listed_by_split_then_class_then_name(image_folder):
    listing = splits(image_folder({**VAL, **CLEAN, **TRAIN}))
    assert paths(listing) == [
        *(f"train/cat/00{i}.png" for i in range(3)),
        *(f"train/dog/00{i}.png" for i in range(2)),
        "shapley_val/cat/000.png",
        "shapley_val/dog/000.png",
        *(f"val/cat/00{i}.png" for i in range(4)),
        *(f"val/dog/00{i}.png" for i in range(3)),
    ]
    assert listing.classes == ("cat", "dog")
    assert listing.notes == ()
    first = listing.images[0]
    assert (first.split, first.label, first.id) == ("train", "cat", "cat/000.png")
    assert [image.id for image in listing.split("shapley_val")] == ["cat/000.png", "dog/000.png"]


def test_the_order_is_by_class_and_not_by_path(image_folder):
    """As a path, `cat b/` would come before `cat/`: a space sorts before a slash."""
    root = image_folder({"train/cat": 1, "train/cat b": 1, "val/cat": 2, "val/cat b": 2})
    listing = splits(root)
    assert [image.label for image in listing.split("train")] == ["cat", "cat b"]
    assert [image.label for image in listing.images] == ["cat", "cat b"] * 3
    assert [image.split for image in listing.images] == [
        split for split in ("train", "shapley_val", "val") for _ in range(2)
    ]


def test_sizes_are_those_of_the_files(image_folder):
    root = image_folder({**TRAIN, **CLEAN, **VAL})
    assert all(image.bytes == (root / image.path).stat().st_size for image in splits(root).images)


def test_the_order_does_not_depend_on_the_order_of_making(tmp_path):
    names = [f"{c}/{folder}{i}.png" for c in "ab" for folder in ("", "x/", "B/") for i in range(9)]
    found = []
    for seed in range(4):
        random.Random(seed).shuffle(names)
        for name in names:
            file = tmp_path / str(seed) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
        found.append(paths(list_folder(Location(str(tmp_path / str(seed))))))
    assert found == [sorted(names)] * 4


def test_folders_below_a_class_belong_to_it(image_folder):
    root = image_folder({"cat/indoors/2020": 1, "cat": 1, "dog": 1})
    listing = list_folder(Location(str(root)))
    assert listing.classes == ("cat", "dog")
    assert [(i.label, i.id) for i in listing.images if i.label == "cat"] == [
        ("cat", "cat/000.png"),
        ("cat", "cat/indoors/2020/000.png"),
    ]


@pytest.mark.parametrize("name", NASTY)
def test_any_name_of_class_and_file_is_listed_as_it_is(tmp_path, name):
    for label in (name, "plain"):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{name}.PNG").write_bytes(b"x")
    listing = list_folder(Location(str(tmp_path)))
    assert set(listing.classes) == {name, "plain"}
    assert (Location(str(tmp_path)) / f"{name}/{name}.PNG").read_bytes() == b"x"
    assert f"{name}/{name}.PNG" in paths(listing)


def test_hidden_and_other_files_are_counted_and_said(image_folder):
    root = image_folder({**TRAIN, **CLEAN, **VAL})
    hidden = ("train/.DS_Store", "train/cat/._000.png", "train/.cache/x.png", "val/.hidden/a.png")
    for name in (*hidden, "train/cat/notes.txt", "train/cat/Thumbs.db", "train/dog/README"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "train/stray.png").write_bytes(b"x")
    (root / "train/__MACOSX/cat").mkdir(parents=True)
    (root / "train/__MACOSX/cat/000.png").write_bytes(b"x")
    listing = splits(root)
    assert listing.notes == (
        "train: 4 files skipped (hidden)",
        "train: 1 file skipped (outside class folders)",
        "train: 3 files skipped (without an image extension)",
        "val: 1 file skipped (hidden)",
    )
    assert len(listing.images) == 14
    assert listing.classes == ("cat", "dog")


def test_without_shapley_val_half_of_each_class_of_val_serves_and_that_is_said(image_folder):
    listing = splits(image_folder({**TRAIN, "val/cat": 10, "val/dog": 7}))
    half, rest = listing.split("shapley_val"), listing.split("val")
    assert [sum(i.label == c for i in half) for c in ("cat", "dog")] == [5, 4]
    assert [sum(i.label == c for i in rest) for c in ("cat", "dog")] == [5, 3]
    every = {f"cat/{i:03d}.png" for i in range(10)} | {f"dog/{i:03d}.png" for i in range(7)}
    assert {i.id for i in half} | {i.id for i in rest} == every
    assert len(half) + len(rest) == len(every)
    assert listing.notes == (
        "no shapley_val: a seeded half of val is used instead (9 images); "
        "the other half stays val (8)",
    )


def test_the_half_hangs_on_the_seed_alone(image_folder):
    root = image_folder({**TRAIN, "val/cat": 10, "val/dog": 7})
    again = image_folder({"val/dog": 7, "val/cat": 10, **TRAIN}, name="again", seed=5)
    halves = [
        {image.id for image in splits(data, split_seed=seed).split("shapley_val")}
        for data, seed in ((root, 0), (again, 0), (root, 1))
    ]
    assert halves[0] == halves[1]
    assert halves[0] != halves[2]


def test_images_outside_val_stay_where_they_are_when_val_is_halved():
    train = ImageFile("train", "cat/1", "cat", "train/cat/1", 1)
    val = [ImageFile("val", f"cat/{i}", "cat", f"val/cat/{i}", 1) for i in range(2)]
    halved = halve_val([val[0], train, val[1]], 0)
    assert train in halved
    assert sorted(image.split for image in halved) == ["shapley_val", "train", "val"]
    assert sorted(image.path for image in halved) == ["train/cat/1", "val/cat/0", "val/cat/1"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/cat": 1}, "no folder val; expected train, val and"),
        (VAL, "no folder train; expected train, val and"),
        ({"cat": 2, "dog": 2}, "no folder train; .* dcai-ray audit"),
        ({**TRAIN, **VAL, "val/cow": 1, "val/eel": 1}, "val: class cow, eel does not occur in tra"),
        ({**TRAIN, **VAL, **CLEAN, "shapley_val/cow": 1}, "shapley_val: class cow does not occur"),
        ({**TRAIN, **VAL, "train/cow": 0}, "train: no image in class cow; add images or remove"),
        ({**TRAIN, **VAL, "val/cat": 0}, "val: no image in class cat"),
        ({"train/cat": 2, "val/cat": 2}, r"train: only one class \(cat\); at least two"),
        ({"train": 2, **VAL}, "train: no classes; expected one folder per class"),
        ({**TRAIN, "val": 2}, "val: no images; expected one folder per class"),
        ({**TRAIN, "val/cat": 1, "val/dog": 1}, "val: too few images to halve"),
    ],
)
def test_splits_that_cannot_be_used_are_refused_with_the_folder(image_folder, counts, message):
    root = image_folder(counts)
    with pytest.raises(ValueError, match=f"^{re.escape(str(root))}.*{message}") as caught:
        splits(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lister", [list_splits, list_folder])
def test_a_folder_that_is_not_there_is_refused(tmp_path, lister):
    (tmp_path / "file").write_bytes(b"")
    for name in ("nowhere", "file"):
        with pytest.raises(ValueError, match=f"{name}: no such folder"):
            lister(Location(str(tmp_path / name)))


def test_a_plain_folder_is_all_train(image_folder):
    root = image_folder({"cat": 2, "dog": 1, ".thumbnails": 1})
    (root / "truth.csv").write_text("path,label,true_label\n")
    listing = list_folder(Location(str(root)))
    assert paths(listing) == ["cat/000.png", "cat/001.png", "dog/000.png"]
    assert {image.split for image in listing.images} == {"train"}
    assert listing.notes == ("data: 1 file skipped (hidden)",)


def test_of_a_folder_with_splits_the_plain_listing_takes_train(image_folder):
    listing = list_folder(Location(str(image_folder({**TRAIN, **VAL}))))
    assert paths(listing) == paths(splits(image_folder({**TRAIN, **CLEAN, **VAL})))[:5]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 3}, r"only one class \(cat\)"),
        ({"cat": 3, "dog": 0}, "no image in class dog"),
        ({".": 3}, "no classes"),
    ],
)
def test_a_plain_folder_that_cannot_be_used_is_refused(image_folder, counts, message):
    with pytest.raises(ValueError, match=message):
        list_folder(Location(str(image_folder(counts))))


def test_equal_pictures_are_listed_with_their_paths(image_folder):
    root = image_folder({**TRAIN, **CLEAN, **VAL})
    for source, copy in (
        ("train/cat/000.png", "val/dog/copy.png"),
        ("train/cat/001.png", "train/dog/twin.png"),
        ("shapley_val/cat/000.png", "val/cat/copy.png"),
        ("val/dog/000.png", "val/dog/twin.png"),  # harms nothing
    ):
        (root / copy).write_bytes((root / source).read_bytes())
    files = splits(root).images
    across, inside = duplicates(
        files, [inspect((root / i.path).read_bytes()).sha256 for i in files]
    )
    assert across == [
        "train/cat/000.png = val/dog/copy.png",
        "shapley_val/cat/000.png = val/cat/copy.png",
    ]
    assert inside == ["train/cat/001.png = train/dog/twin.png"]


def test_a_picture_twice_in_train_and_once_in_val_is_listed_in_both():
    files = [
        ImageFile(path.split("/")[0], path.partition("/")[2], "cat", path, 1)
        for path in ("train/cat/1", "train/cat/2", "val/cat/1", "val/cat/2")
    ]
    across, inside = duplicates(files, ["same", "same", "same", "other"])
    assert across == ["train/cat/1 = train/cat/2 = val/cat/1"]
    assert inside == ["train/cat/1 = train/cat/2"]
