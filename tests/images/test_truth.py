import csv

import pytest
from numpy.testing import assert_array_equal

from dcai_ray.images.folders import list_splits
from dcai_ray.images.truth import read_truth
from dcai_ray.storage.location import Location
from tests.support.image_sets import image_set

PATHS = ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png")
LABELS = ("cat", "cat", "dog")
TABLE = "path,label,true_label\ntrain/cat/1.png,cat,cat\ntrain/cat/2.png,cat,dog\n"


@pytest.fixture
def truth_of(tmp_path):
    def read(content, paths=PATHS, labels=LABELS):
        (tmp_path / "truth.csv").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
        return read_truth(image_set(tmp_path, paths, labels))

    return read


def test_data_without_a_table_has_no_truth(tmp_path):
    assert read_truth(image_set(tmp_path, PATHS, LABELS)) is None


def test_an_image_is_wrong_if_its_true_label_is_another(truth_of):
    truth = truth_of(TABLE + "train/dog/1.png,dog,cat\n")
    assert_array_equal(truth.known, [True, True, True])
    assert_array_equal(truth.wrong, [False, True, True])
    assert truth.true_labels == ("cat", "dog", "cat")


@pytest.mark.parametrize("row", ["", "train/dog/1.png,dog,\n", "train/dog/1.png,dog\n"])
def test_an_image_without_a_true_label_is_unknown_and_not_wrong(truth_of, row):
    truth = truth_of(TABLE + row)
    assert_array_equal(truth.known, [True, True, False])
    assert_array_equal(truth.wrong, [False, True, False])
    assert truth.true_labels == ("cat", "dog", "")


def test_images_of_other_splits_have_no_truth(truth_of):
    """A table may list them; what is known is of the training images, in their order."""
    paths, labels = ("val/cat/1.png", *PATHS), ("cat", *LABELS)
    truth = truth_of(TABLE + "val/cat/1.png,cat,dog\n", paths, labels)
    assert truth.ids == ("cat/1.png", "cat/2.png", "dog/1.png")
    assert_array_equal(truth.wrong, [False, True, False])


def test_a_table_without_rows_knows_nothing(truth_of):
    truth = truth_of("path,label,true_label\n")
    assert not truth.known.any()
    assert not truth.wrong.any()


def test_rows_of_other_images_and_other_columns_are_ignored(truth_of):
    table = "flipped,true_label,path,label\n1,dog,train/cat/2.png,cat\n0,cow,train/cow/1.png,cow\n"
    truth = truth_of(table)
    assert_array_equal(truth.wrong, [False, True, False])
    assert_array_equal(truth.known, [False, True, False])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_what_a_spreadsheet_writes_is_read(truth_of, ending, mark):
    truth = truth_of(mark + TABLE.replace("\n", ending).encode())
    assert_array_equal(truth.wrong, [False, True, False])


def test_names_with_commas_quotes_and_other_alphabets_are_matched(truth_of, tmp_path):
    label, paths = 'a "b", <犬>', ['train/a "b", <犬>/Käse, 1.png']
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "true_label"), (paths[0], label, "犬")])
    truth = truth_of((tmp_path / "rows.csv").read_bytes(), paths, [label])
    assert truth.true_labels == ("犬",)
    assert_array_equal(truth.wrong, [True])


def test_a_table_of_other_labels_than_the_folders_is_refused(truth_of):
    with pytest.raises(ValueError, match=r"train/dog/1\.png has label cat, but its folder is dog"):
        truth_of(TABLE + "train/dog/1.png,cat,cat\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "column label, path, true_label is missing"),
        ("path,label\ntrain/cat/1.png,cat\n", "column true_label is missing"),
        ("path;label;true_label\na;b;c\n", "column label, path, true_label is missing"),
        (b"path,label,true_label\n\xff\xfe,cat,cat\n", "not a CSV file in UTF-8"),
        (b'path,label,true_label\n"' + b"x" * 200_000 + b'",a,b\n', "not a CSV file"),
    ],
)
def test_what_is_no_such_table_is_one_line_that_names_the_file(truth_of, content, message):
    with pytest.raises(ValueError, match=rf"truth\.csv: {message}") as caught:
        truth_of(content)
    assert "\n" not in str(caught.value)


def test_the_cats_and_dogs_have_the_wrong_labels_their_table_says(shared_data):
    """The column `flipped`, which the reader ignores, was written when the labels were."""
    if not (shared_data / "catdog/truth.csv").exists():
        pytest.skip("the cats and dogs are not there")
    root = shared_data / "catdog"
    with (shared_data / "catdog/truth.csv").open() as file:
        flipped = {row["path"]: row["flipped"] == "1" for row in csv.DictReader(file)}
    train = list_splits(Location(str(root))).split("train")
    truth = read_truth(image_set(root, [i.path for i in train], [i.label for i in train]))
    assert truth.ids == tuple(image.id for image in train)
    assert truth.known.all()
    assert_array_equal(truth.wrong, [flipped[image.path] for image in train])
    assert 0 < truth.wrong.sum() < len(train)


def test_an_image_listed_twice_is_refused(tmp_path):
    text = "path,label,true_label\ntrain/a/1.png,a,a\ntrain/a/1.png,a,b\n"
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(ValueError, match=r"train/a/1\.png is listed more than once"):
        read_truth(image_set(tmp_path, ["train/a/1.png"], ["a"]))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.replace("/", "\\"),
        lambda path: "./" + path,
        lambda path: "/home/me/pets/" + path,
        lambda path: "D:\\pets\\" + path.replace("/", "\\"),
        lambda path: path.removeprefix("train/"),
    ],
    ids=["back slashes", "dot", "absolute", "of Windows", "below train"],
)
def test_paths_of_other_systems_and_folders_are_understood(truth_of, write):
    truth = truth_of(
        f"path,label,true_label\n{write(PATHS[0])},cat,cat\n{write(PATHS[1])},cat,dog\n"
    )
    assert_array_equal(truth.known, [True, True, False])
    assert_array_equal(truth.wrong, [False, True, False])


def test_both_spellings_of_unicode_are_one_name(truth_of):
    one, two = "K\u00e4se", "Ka\u0308se"
    table = f"path,label,true_label\ntrain/{two}/1.png,{two},{two}\n"
    truth = truth_of(table, [f"train/{one}/1.png"], [one])
    assert truth.true_labels == (one,)
    assert not truth.wrong.any()


def test_a_table_of_which_no_row_fits_is_refused(truth_of):
    """It was passed over in silence."""
    with pytest.raises(ValueError, match=r"none of its 1 paths is that of an image, the first is"):
        truth_of("path,label,true_label\nelsewhere/1.png,cat,dog\n")


def test_rows_with_and_without_the_folder_of_the_split_are_understood_one_by_one(truth_of):
    truth = truth_of("path,label,true_label\ncat/1.png,cat,cat\ntrain/cat/2.png,cat,dog\n")
    assert_array_equal(truth.known, [True, True, False])
    assert_array_equal(truth.wrong, [False, True, False])


def test_an_image_listed_in_two_spellings_is_refused(truth_of):
    with pytest.raises(ValueError, match=r"cat/1\.png and train/cat/1\.png are the same image"):
        truth_of("path,label,true_label\ncat/1.png,cat,cat\ntrain/cat/1.png,cat,dog\n")
