"""FiftyOne's and CVAT's files: what goes out comes back; paths mean one image or are refused."""

import io
import json
import zipfile

import pytest

from dcai_ray.errors import UserError
from dcai_ray.review.formats import Task
from dcai_ray.review.path_formats import Files, fiftyone, from_fiftyone, from_imagenet, imagenet

CLASSES = ("cat", "dog", "wild boar")
AT = "2026-01-01T12:00:00Z"
PATHS = {
    f"{split}/{label}/{name}": (split, f"{label}/{name}")
    for split, label, name in (
        ("train", "cat", "0.jpg"),
        ("train", "dog", "0.jpg"),
        ("train", "dog", "a b.v2.png"),
        ("train", "wild boar", "1.png"),
        ("val", "cat", "9.jpg"),
    )
}
LABELS = {key: key[1].partition("/")[0] for key in PATHS.values()}
FILES = Files(PATHS, LABELS)


def task(path, suggested, sure=0.9, wrong=0.7):
    split, name = PATHS[path]
    return Task(name, split, path, "", LABELS[split, name], suggested, sure, wrong)


TASKS = [
    task("train/dog/a b.v2.png", "cat"),
    task("train/cat/0.jpg", "cat", wrong=None),
    task("train/wild boar/1.png", "wild boar", sure=None),
    task("train/dog/0.jpg", ""),
]


def said(decisions):
    assert {record.at for record in decisions} <= {AT}
    return {
        f"{record.split}/{record.id}": (record.given_label, record.decision, record.label)
        for record in decisions
    }


BACK = {
    "train/dog/a b.v2.png": ("dog", "relabel", "cat"),
    "train/cat/0.jpg": ("cat", "keep", ""),
    "train/wild boar/1.png": ("wild boar", "keep", ""),
    "train/dog/0.jpg": ("dog", "keep", ""),
}


def test_labels_of_fiftyone_come_back():
    content = json.loads(fiftyone(TASKS, CLASSES))
    assert content["classes"] == list(CLASSES)
    assert content["labels"]["train/dog/a b.v2"] == {
        "label": 0,
        "confidence": 0.9,
        "attributes": {"given_label": "dog", "wrong_probability": 0.7},
    }
    assert said(from_fiftyone(content, AT, FILES)) == BACK


def test_an_export_of_fiftyone_may_have_plain_labels_and_other_paths():
    content = {
        "classes": None,
        "labels": {
            "/home/ann/set/train/cat/0": "dog",  # the data lay elsewhere
            "cat/9": {"label": "cat"},  # below the split
            "1.png": "cat",
            "a b.v2": None,
        },
    }
    assert said(from_fiftyone(content, AT, FILES)) == {
        "train/cat/0.jpg": ("cat", "relabel", "dog"),
        "val/cat/9.jpg": ("cat", "keep", ""),
        "train/wild boar/1.png": ("wild boar", "relabel", "cat"),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": []}, 'expected "labels"'),
        ({"labels": {"cat/0": 7}, "classes": ["cat"]}, "7 is no class of the file"),
        (
            {"labels": {"0": "cat"}},
            "'0' may be 2 images of the run; export with folders and endings",
        ),
        ({"labels": {"cat/5": "cat"}}, "'cat/5' is no image of the run"),
        ({"labels": {"other/1": "cat"}}, "'other/1' is no image of the run"),
    ],
)
def test_what_fiftyone_cannot_have_meant_is_refused(content, message):
    with pytest.raises(UserError, match=message):
        from_fiftyone(content, AT, FILES)


def test_an_ending_tells_images_apart_and_none_is_cut_off():
    files = Files({"a/1.jpg": ("train", "a/1.jpg"), "a/1.png": ("train", "a/1.png")}, {})
    assert files.image("a/1.png") == ("train", "a/1.png")
    assert files.image("/data/a/1.jpg") == ("train", "a/1.jpg")
    with pytest.raises(UserError, match="'a/1' may be 2 images"):
        files.image("a/1")
    with pytest.raises(UserError, match=r"'a/1\.v2' is no image"):
        files.image("a/1.v2")


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def test_an_imagenet_zip_comes_back():
    content = imagenet(TASKS, CLASSES)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("synsets.txt").decode().splitlines() == list(CLASSES)
        assert archive.read("train.txt").decode().splitlines() == [
            '"train/dog/a b.v2".png 0',
            "train/cat/0.jpg 0",
            '"train/wild boar/1".png 2',
            "train/dog/0.jpg 1",
        ]
    assert content == imagenet(TASKS, CLASSES)  # the same bytes at any time
    assert said(from_imagenet(content, AT, FILES)) == BACK


def test_an_imagenet_zip_with_pictures_is_read():
    """CVAT writes the class before the name; folders of images are read without it, too."""
    content = zipped({"cat/cat_a b.v2.png": "", "dog/train/cat/0.jpg": "", "dog/": ""})
    assert said(from_imagenet(content, AT, FILES)) == {
        "train/dog/a b.v2.png": ("dog", "relabel", "cat"),
        "train/cat/0.jpg": ("cat", "relabel", "dog"),
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"synsets.txt": "cat", "x.txt": "train/cat/0.jpg"}, "x.txt: line 1 does not end with"),
        ({"synsets.txt": "cat", "x.txt": "train/cat/0.jpg 3"}, "line 1 does not end with"),
        ({"0.jpg": ""}, r"0\.jpg: lies in no folder of a class"),
    ],
)
def test_another_zip_is_refused(files, message):
    with pytest.raises(UserError, match=message):
        from_imagenet(zipped(files), AT, FILES)
    with pytest.raises(UserError, match="no zip of ImageNet annotations"):
        from_imagenet(b"PK", AT, FILES)


def test_names_that_the_format_has_no_room_for_are_refused():
    bad = Task('cat/"', "train", 'train/cat/".jpg', "", "cat", "dog", None, None)
    with pytest.raises(UserError, match="cannot be written in this format; rename the file"):
        imagenet([bad], CLASSES)
    with pytest.raises(UserError, match="class 'a\\\\nb' cannot be written"):
        imagenet([], ["a\nb"])
