import random
import re

import pytest
from PIL import Image

from dcai_ray.images import kinds
from dcai_ray.images.decoding import extensions, inspect
from dcai_ray.images.folders import list_folder, list_splits
from dcai_ray.images.listing import ImageFile, duplicates, halve_val
from dcai_ray.images.split_folders import parse_splits
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
        "train: 5 files skipped (hidden, or made by the system)",
        "train: 2 files skipped (not an image)",
        "train: 1 file skipped (outside class folders)",
        "val: 1 file skipped (hidden, or made by the system)",
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
    assert listing.notes == ("data: 1 file skipped (hidden, or made by the system)",)


def test_of_a_folder_with_splits_the_plain_listing_takes_train(image_folder):
    listing = list_folder(Location(str(image_folder({**TRAIN, **VAL}))))
    assert listing.notes == ("only train is valued, as train; not val",)
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


@pytest.mark.parametrize(("train", "val"), [("Training", "Testing"), ("Train", "Val")])
def test_splits_of_other_names_are_no_classes(image_folder, train, val):
    """Audits of such folders took the splits for two classes."""
    counts = {f"{split}/{label}": 2 for split in (train, val) for label in ("cat", "dog")}
    data = Location(str(image_folder(counts)))
    audited = list_folder(data)
    assert audited.classes == ("cat", "dog")
    assert {image.path.split("/")[0] for image in audited.images} == {train}
    listing = splits(data)
    assert {(i.split, i.path.split("/")[0]) for i in listing.images} == {
        ("train", train),
        ("shapley_val", val),
        ("val", val),
    }
    assert f"splits: train is {train}, val is {val}" in listing.notes


def test_a_class_called_train_is_a_class_beside_other_classes(image_folder):
    listing = list_folder(Location(str(image_folder({"train": 2, "car": 1, "plane": 3}))))
    assert listing.classes == ("car", "plane", "train")
    assert listing.summary == "3 classes, no splits, 6 images"


@pytest.mark.parametrize(
    "counts",
    [
        {"train/cat": 1, "train/dog": 1, "car": 2},
        {"train/steam": 1, "train/diesel": 1, "test/drug": 1, "test/exam": 1},
    ],
    ids=["beside pictures", "no class in common"],
)
def test_where_both_readings_fit_the_flag_decides(image_folder, counts):
    data = Location(str(image_folder(counts)))
    with pytest.raises(ValueError, match=r"or 2 classes; say which: --splits train=train.* none"):
        list_folder(data)
    assert len(list_folder(data, splits={}).classes) == 2
    assert len(list_folder(data, splits={}).images) == sum(counts.values())
    assert {i.path[:6] for i in list_folder(data, splits={"train": "train"}).images} == {"train/"}


def test_two_folders_that_might_be_val_are_refused_and_the_flag_decides(image_folder):
    counts = {f"{s}/{c}": 2 for s in ("Train", "Valid", "Test") for c in ("cat", "dog")}
    data = image_folder(counts)
    with pytest.raises(ValueError, match=r"Test and Valid might both be val.*--splits train=Train"):
        splits(data)
    named = parse_splits(("train=Train", "val=Test", "shapley_val=Valid"))
    listing = splits(data, splits=named)
    assert {(i.split, i.path.split("/")[0]) for i in listing.images} == {
        ("train", "Train"),
        ("val", "Test"),
        ("shapley_val", "Valid"),
    }
    assert listing.origin == {"splits": named}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("Training",), "--splits Training: expected train=FOLDER"),
        (("train=a", "train=b"), "train is given twice"),
        (("val=a",), "train=FOLDER is missing"),
        (("train=a", "val=a"), "a folder of its own"),
    ],
)
def test_splits_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        parse_splits(given)


def test_the_results_of_a_run_inside_the_data_are_no_class(image_folder):
    """`audit .` keeps its results in ./outputs; the second one took them for a class."""
    root = image_folder({"cat": 2, "dog": 1, "outputs/mine/pictures": 1})
    before = paths(list_folder(Location(str(root))))
    (root / "outputs/mine/run.json").write_text("{}")
    listing = list_folder(Location(str(root)))
    assert paths(listing) == [path for path in before if not path.startswith("outputs")]
    assert listing.notes == ("outputs/mine: skipped, as it is the folder of a run",)


def test_files_are_judged_by_their_content_where_the_name_says_nothing(image_folder):
    root = image_folder({"cat": 2, "dog": 2})
    (root / "cat/000.png").rename(root / "cat/bare")
    (root / "cat/001.png").rename(root / "cat/archive.2020-01-01")
    (root / "dog/LICENCE").write_text("not a picture")
    listing = list_folder(Location(str(root)))
    assert [i.id for i in listing.images if i.label == "cat"] == [
        "cat/archive.2020-01-01",
        "cat/bare",
    ]
    assert listing.notes == ("data: 1 file skipped (not an image)",)


def test_stereo_pictures_are_taken(image_folder):
    root = image_folder({"cat": 1, "dog": 1})
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pictures[0].save(root / "cat/3d.mpo", save_all=True, append_images=pictures[1:])
    assert "cat/3d.mpo" in paths(list_folder(Location(str(root))))


def test_heic_without_its_package_is_named_with_the_extra(image_folder, monkeypatch):
    without = extensions() - {".heic", ".heif"}
    monkeypatch.setattr(kinds, "extensions", lambda: without)
    root = image_folder({"cat": 1, "dog": 0})
    (root / "dog/1.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(ValueError, match=r"dog/1\.heic: a HEIC picture.*dcai_ray\[heic\]"):
        list_folder(Location(str(root)))


def test_thumbnails_of_a_storage_device_are_no_images(image_folder):
    system = ("cat/@eaDir/000.png", "@eaDir/cat", "cat/.thumbnails", "__MACOSX/dog", "#recycle")
    root = image_folder({"cat": 1, "dog": 1, **dict.fromkeys(system, 1)})
    listing = list_folder(Location(str(root)))
    assert paths(listing) == ["cat/000.png", "dog/000.png"]
    assert listing.notes == ("data: 5 files skipped (hidden, or made by the system)",)


def test_names_in_both_spellings_of_unicode_are_one_class(image_folder):
    """`ä` as one character or as two, as macOS writes it."""
    one, two = "K\u00e4se", "Ka\u0308se"
    root = image_folder({f"train/{one}": 1, "train/dog": 1, f"val/{two}": 2, "val/dog": 2})
    listing = splits(root)
    assert listing.classes == (one, "dog")
    assert all((root / image.path).is_file() for image in listing.images)
    assert {i.id for i in listing.images if i.label == one} == {f"{one}/000.png", f"{one}/001.png"}


def test_two_spellings_of_one_name_are_refused(image_folder):
    root = image_folder({"K\u00e4se": 1, "Ka\u0308se": 1, "dog": 1})
    with pytest.raises(ValueError, match="the same name in two spellings of Unicode; rename one"):
        list_folder(Location(str(root)))


def test_a_class_of_one_image_in_val_is_told_when_val_is_halved(image_folder):
    listing = splits(image_folder({**TRAIN, "train/cow": 1, "val/cat": 4, "val/dog": 3,
                                   "val/cow": 1}))  # fmt: skip
    assert {i.label for i in listing.split("val")} == {"cat", "dog"}
    assert any("one image of class cow, which went to shapley_val" in n for n in listing.notes)


def test_halving_that_leaves_val_one_class_is_refused(image_folder):
    """Every accuracy on it would be 1."""
    with pytest.raises(ValueError, match=r"too few images to halve.*there is one of dog"):
        splits(image_folder({**TRAIN, "val/cat": 4, "val/dog": 1}))


def test_classes_that_a_validation_split_lacks_are_told_before_anything_is_computed(image_folder):
    root = image_folder({**TRAIN, "shapley_val/cat": 1, "val/dog": 1})
    notes = splits(root).notes
    assert any("shapley_val has images of one class only (cat)" in note for note in notes)
    assert any("val has no image of class cat" in note for note in notes)


def test_a_plain_folder_is_listed_as_ever(image_folder):
    """Ids, paths and sizes decide whether the files of an earlier run are up to date."""
    root = image_folder({**TRAIN, **CLEAN, **VAL})
    by_hand = [
        (split, f"{label}/{file.name}", file.stat().st_size)
        for split in ("train", "shapley_val", "val")
        for label in ("cat", "dog")
        for file in sorted((root / split / label).iterdir())
    ]
    assert [(i.split, i.id, i.bytes) for i in splits(root).images] == by_hand
    assert splits(root).origin == {}
