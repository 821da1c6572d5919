import json
from hashlib import sha256

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

from dcai_ray.errors import UserError
from dcai_ray.steps.feature_import import import_features
from dcai_ray.storage.features import check_same_features, read_split
from dcai_ray.storage.location import Location

WORDS = ["good", "<b>bad</b>, so bad", "", "犬 food"]


@pytest.fixture
def split_of(tmp_path):
    """A function that imports a table as a split and reads the split back."""

    def imported(table, split="train", **options):
        file = tmp_path / f"{split}.csv"
        pd.DataFrame(table).to_csv(file, index=False)
        folder = Location(str(tmp_path / "features")) / split
        import_features(Location(str(file)), None, folder, "mine", **options)
        return read_split(folder)

    return imported


def table(**columns):
    return {"label": list("aabb"), "f": [0.5, 1.0, 2.0, 4.0], "g": [1, 2, 3, 5], **columns}


def test_a_column_of_text_is_shown_and_is_no_feature(split_of, tmp_path):
    found = split_of(table(text=WORDS), show=["text"])
    assert found.shown == tuple(WORDS)
    assert_array_equal(found.x, np.c_[[0.5, 1, 2, 4], [1, 2, 3, 5]])
    shard = pq.read_table(tmp_path / "features/train/part-00000.parquet")  # any reader's
    assert shard["shown"].to_pylist() == WORDS


def test_several_columns_are_shown_by_name_and_those_of_numbers_stay_features(split_of):
    found = split_of(table(text=WORDS, id=list("wxyz")), show=["id", "text", "g"])
    assert found.shown[1] == "id = x, text = <b>bad</b>, so bad, g = 2"
    assert found.ids == ("w", "x", "y", "z")
    assert found.x.shape == (4, 2)


def test_a_row_of_numbers_is_shown_as_it_is_whatever_its_features_become(split_of):
    for standardize in (False, True):
        assert split_of(table(), standardize=standardize).shown[3] == "f = 4, g = 5"


def test_a_wide_table_is_an_embedding_and_is_not_shown(split_of):
    wide = {f"f{i}": np.arange(4.0) * i for i in range(1, 52)}
    assert split_of({"label": list("aabb"), **wide}).shown == ()


def test_features_without_anything_to_show_keep_their_fingerprint_and_columns(tmp_path):
    """The fingerprint is that of the version before this one, for the same bytes."""
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(4) % 2)
    root = Location(str(tmp_path))
    import_features(root / "x.npz", None, root / "train", "mine")
    digest = sha256((tmp_path / "x.npz").read_bytes()).hexdigest()
    parts = json.dumps(["imported", 1, "mine", digest], separators=(",", ":"))
    assert read_split(root / "train").fingerprint == sha256(parts.encode()).hexdigest()[:16]
    shard = pq.read_table(tmp_path / "train/part-00000.parquet")
    assert shard.column_names == ["id", "label", "feature"]


@pytest.mark.parametrize(
    ("show", "message"),
    [
        (["tekst"], "no column 'tekst' to show; choose from label, f, g, text"),
        ([], "column 'text' does not hold numbers; show it with --show text, leave it out"),
    ],
)
def test_a_column_that_is_not_there_or_of_no_use_names_the_option(split_of, show, message):
    with pytest.raises(UserError, match=message):
        split_of(table(text=WORDS), show=show)


def test_a_matrix_cannot_be_shown(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((4, 3)), y=np.arange(4) % 2)
    root = Location(str(tmp_path))
    with pytest.raises(UserError, match="'x' must have one entry per row to be shown"):
        import_features(root / "x.npz", None, root / "train", "mine", show=["x"])


def test_standardized_columns_are_those_of_scikit_learn_in_every_split(split_of):
    x, y = load_wine(return_X_y=True)
    rows = {f"f{i}": column for i, column in enumerate(x.T)} | {"constant": np.full(len(x), 7.0)}
    frame = pd.DataFrame(rows | {"label": y})
    train = split_of(frame[::2], standardize=True)
    val = split_of(frame[1::2], "val", standardize=True)
    scaler = StandardScaler().fit(frame[::2].drop(columns="label"))
    for found, half in ((train, frame[::2]), (val, frame[1::2])):
        assert_allclose(found.x, scaler.transform(half.drop(columns="label")), atol=1e-5)  # float32
    check_same_features(train, val, ("train", "val"))


def test_other_splits_need_the_scales_of_train(split_of):
    with pytest.raises(UserError, match="import train first"):
        split_of(table(), "val", standardize=True)
    train = split_of(table())
    with pytest.raises(UserError, match="train: imported without --standardize"):
        split_of(table(), "val", standardize=True)
    split_of(table(), standardize=True)
    with pytest.raises(UserError, match="3 columns of features, those of train are 2"):
        split_of(table(h=[1, 2, 3, 5.5]), "val", standardize=True)
    with pytest.raises(UserError, match="must have the same backbone"):
        check_same_features(split_of(table(), standardize=True), train, ("train", "val"))


def test_columns_of_unlike_scales_are_named_in_one_line(split_of, capsys):
    split_of(table())
    assert capsys.readouterr().err == ""
    split_of(table(price=[1000, 2000, 3000, 5000]))
    (line,) = capsys.readouterr().err.splitlines()
    assert "column 'price' spreads 1,103 times as wide as 'f'" in line  # 1479.02 / 1.34048
    assert line.endswith("--standardize gives all columns the same spread")
    split_of(table(price=[1000, 2000, 3000, 5000]), standardize=True)
    assert capsys.readouterr().err == ""
