import builtins
import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import save

import dcai_ray
from dcai_ray.errors import UserError
from dcai_ray.steps.feature_import import import_features, read_feature_file
from dcai_ray.storage.features import read_split
from dcai_ray.storage.location import Location

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3)).astype(np.float32)
Y = np.array([0, 1, 0, 1])
MARK = "DCAI_RAY_PICKLE_RAN"


@pytest.fixture
def write(tmp_path):
    def written(content):
        file = Location(str(tmp_path / "features.pkl"))
        file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
        return file

    return written


class Call:
    """An object whose pickle is a call."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", ["core", "_core"])  # as NumPy 1 and NumPy 2 call it
def test_a_dict_of_arrays_is_read_in_every_protocol(write, protocol, core):
    content = pickle.dumps({"feature_all": X, "target_all": Y}, protocol)
    if protocol < 4:  # a longer name would shift what follows in the framed protocols
        content = content.replace(b"numpy._core", f"numpy.{core}".encode())
    file = write(content)
    ids, labels, x, digest = read_feature_file(file)
    assert_array_equal(x, X)
    assert x.dtype == np.float32
    assert labels == ["0", "1", "0", "1"]
    assert ids == ["0/000000", "1/000001", "0/000002", "1/000003"]
    assert digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "x",
    [
        np.asfortranarray(X),
        np.repeat(X, 2, axis=1)[:, ::2],  # not contiguous
        X.astype(">f8"),
        (100 * X).astype(np.int16),
        [list(row) for row in X],  # plain lists of NumPy scalars
        list(X),
        X.tolist(),
    ],
    ids=["fortran", "strided", "big-endian", "integers", "scalars", "rows", "lists"],
)
def test_arrays_come_out_as_the_usual_unpickler_gives_them(write, protocol, x):
    _, _, got, _ = read_feature_file(write(pickle.dumps({"x": x, "y": Y}, protocol)))
    assert_array_equal(got, np.asarray(x).astype(np.float32))


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.array(["cat", "Käse", "犬", "a/b"]), ["cat", "Käse", "犬", "a/b"]),
        (np.array(["cat", "dög"] * 2, dtype=">U3"), ["cat", "dög"] * 2),
        (np.array([b"cat", b"dog"] * 2), ["cat", "dog"] * 2),
        (["cat", "dog", "cat", "dog"], ["cat", "dog"] * 2),
        (np.array([True, False] * 2), ["True", "False"] * 2),
    ],
)
def test_labels_may_be_text_or_numbers(write, protocol, y, labels):
    assert read_feature_file(write(pickle.dumps({"x": X, "y": y}, protocol)))[1] == labels


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (Call(os.system, f"echo > {MARK}"), rf"wants {os.name}\w*\.system"),
        (Call(eval, f"open({MARK!r}, 'w').close()"), r"wants \w+\.eval"),
        (Call(exec, f"open({MARK!r}, 'w').close()"), r"wants \w+\.exec"),
        (Call(builtins.open, MARK, "w"), r"wants \w+\.open"),
        (Call(getattr, X, "tofile"), r"wants \w+\.getattr"),
        (Call(subprocess.Popen, ["touch", MARK]), r"wants \w+\.Popen"),
        (Call(np.save, MARK, X), r"wants numpy\.save"),
        (Call(np.load, MARK), r"wants numpy\.load"),
    ],
)
def test_a_pickle_that_wants_more_than_arrays_is_refused_and_does_not_run(
    write, tmp_path, monkeypatch, protocol, call, wanted
):
    monkeypatch.chdir(tmp_path)
    file = write(pickle.dumps({"x": X, "y": Y, "z": call}, protocol))
    with pytest.raises(ValueError, match=rf"features\.pkl: refused, .*\({wanted}\)$"):
        read_feature_file(file)
    assert not (tmp_path / MARK).exists()
    if wanted.endswith("system"):  # the usual unpickler does run it: the test can fail
        pickle.loads(file.read_bytes())
        assert (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    "entry",
    [
        Call(np.ndarray, (1,), "O", b"12345678"),
        Call(np.ndarray, (1,), np.dtype("O"), b"12345678"),
        np.array([None, {}], dtype=object),
        np.zeros(1, dtype=[("name", "O")]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        Call(np.ndarray, (10**12,), "f8"),
    ],
    ids=["pointers", "pointers of a dtype", "objects", "fields", "dates", "8 TB"],
)
def test_bytes_are_never_taken_for_pointers_nor_memory_handed_out(write, entry):
    """NumPy's own functions would build an array of pointers here, and reading it would crash."""
    file = write({"x": X, "y": Y, "z": entry})
    code = (
        "from dcai_ray.steps.feature_import import *; "
        f"print(read_feature_file(Location({file.uri!r}))[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode in (0, 1)  # negative: a crash
    if done.returncode:
        assert done.stderr.splitlines()[-1].startswith(f"dcai_ray.errors.UserError: {file}: ")


def test_damaged_bytes_are_one_line_that_names_the_file(write):
    contents = [pickle.dumps({"x": X, "y": np.array(["a", "b"] * 2)}, p) for p in range(6)]
    rng, messages = np.random.default_rng(0), []
    for trial in range(600):
        damaged = bytearray(contents[trial % 6])
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        cut = rng.integers(len(damaged)) if trial % 12 > 5 else len(damaged)
        try:
            read_feature_file(file := write(bytes(damaged[:cut])))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) >= 300  # those cut off at least
    assert all(message.startswith(f"{file}: ") for message in messages)
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([X, Y], "expected a dict of arrays, got list"),
        ({"x": X}, r"no labels among x float32 \(4, 3\); call them label, or give --labels"),
        ({"x": X, "x2": X, "y": Y}, "expected one"),
        ({"x": X, "y": Y, "split": Y}, "expected one"),
        ({"x": X, "y": Y[:3]}, "4 rows of features, but 3 labels"),
        ({"x": np.where(X.max() == X, np.nan, X), "y": Y}, "must be finite, got 1 NaN or infinite"),
        (
            {"x": np.where(X.max() == X, -np.inf, X), "y": Y},
            "must be finite, got 1 NaN or infinite",
        ),
        ({"x": [[1.0, 2.0], [3.0]], "y": Y}, "not a readable pickle"),
        ({}, "no labels among nothing"),
    ],
)
def test_a_pickle_of_something_else_says_what_was_expected(write, content, message):
    with pytest.raises(ValueError, match=rf"features\.pkl: .*{message}"):
        read_feature_file(write(content))


def test_an_absent_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_feature_file(Location(str(tmp_path / "nowhere")))


@pytest.mark.parametrize(("split", "rows"), [("train", 1500), ("shapley_val", 238)])
def test_the_features_of_the_study_are_read(shared_data, split, rows):
    """Liang et al. 2022 value 1500 training images by 238 others, in 512 dimensions."""
    file = shared_data / f"paper/feature_dump_{split}.pkl"
    if not file.exists():
        pytest.skip("the study's features are not there")
    ids, labels, x, _ = read_feature_file(Location(str(file)))
    assert x.shape == (rows, 512)
    assert len(set(ids)) == len(labels) == rows
    assert set(labels) == {"0", "1"}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"x": X, "y": np.array([b"a", b"\xff", b"a", b"b"])}, "labels must be UTF-8"),
        ({"x": X, "y": np.array(["a", "\ud800", "a", "b"])}, "labels must be UTF-8"),
        ({"x": X, "y": np.array(["a", "", "a", "b"])}, "row 1 has an empty one"),
        ({"x": X[:, :0], "y": Y}, r"non-empty .* got shape \(4, 0\)"),
    ],
)
def test_labels_and_features_that_no_table_can_hold_are_refused(write, content, line):
    file = write(content)
    with pytest.raises(UserError, match=line) as caught:
        read_feature_file(file)
    assert str(caught.value).startswith(f"{file}: ")


NAMES = np.array(["cat/tabby", "dög"])[Y]
IDS = np.array(["a", "b/1", "0003", "犬"])


def saved(folder, kind, arrays):
    """The arrays in a file of some kind, written by the library that owns it."""
    file = folder / f"given.{kind}"
    flat = {f"f{i}": column for i, column in enumerate(arrays.get("x", X[:0]).T)}
    rest = {key: array.tolist() for key, array in arrays.items() if key != "x"}
    match kind:
        case "npy":
            np.save(file, arrays["x"])
        case "npz":
            np.savez_compressed(file, **arrays)
        case "csv":
            pd.DataFrame(rest | flat).to_csv(file, index=False)
        case "parquet":
            pd.DataFrame(rest | {"x": list(arrays["x"])}).to_parquet(file)
        case "pt":
            torch.save({"x": torch.tensor(arrays["x"])} | rest, file)
        case "safetensors":
            numbers = {k: torch.tensor(a) for k, a in arrays.items() if a.dtype.kind in "if"}
            file.write_bytes(save(numbers))
        case "pkl":
            file.write_bytes(pickle.dumps(arrays))
    return Location(str(file))


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet", "pt", "pkl"])
@pytest.mark.parametrize("key", ["label", "labels", "y"])
def test_features_names_and_labels_come_from_one_file_of_each_kind(tmp_path, kind, key):
    file = saved(tmp_path, kind, {"x": X, "id": IDS, key: NAMES})
    ids, labels, x, digest = read_feature_file(file)
    assert (ids, labels) == (IDS.tolist(), NAMES.tolist())
    assert_array_equal(x, X)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet", "pt", "safetensors", "pkl"])
def test_rows_without_names_are_called_after_their_label(tmp_path, kind):
    ids, labels, x, _ = read_feature_file(saved(tmp_path, kind, {"x": X, "label": Y}))
    assert labels == ["0", "1", "0", "1"]
    assert ids == ["0/000000", "1/000001", "0/000002", "1/000003"]
    assert_array_equal(x, X)


def test_labels_may_lie_in_a_file_of_their_own(tmp_path):
    given = saved(tmp_path, "npy", {"x": X})
    for content in (NAMES, np.float64(Y)):
        np.save(tmp_path / "y.npy", content)
        labels = read_feature_file(given, Location(str(tmp_path / "y.npy")))[1]
        assert labels == [str(name) for name in (NAMES if content is NAMES else Y)]
    named = saved(tmp_path, "npz", {"x": X, "ids": IDS})
    (tmp_path / "y.csv").write_text("label,id\n2,b/1\n1,a\n4,犬\n3,0003\n9,other\n")
    assert read_feature_file(named, Location(str(tmp_path / "y.csv")))[1] == list("1234")
    (tmp_path / "y.csv").write_text("label,id\n1,a\n")
    with pytest.raises(UserError, match=r"y\.csv: no label for 3 of 4 ids, the first b/1"):
        read_feature_file(named, Location(str(tmp_path / "y.csv")))
    with pytest.raises(UserError, match=r"y\.csv: 4 rows of features, but 1 labels"):
        read_feature_file(given, Location(str(tmp_path / "y.csv")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_any_precision_are_read(tmp_path, dtype):
    given = torch.arange(12).reshape(4, 3).to(dtype)
    torch.save(given, tmp_path / "x.pt")
    (tmp_path / "x.safetensors").write_bytes(save({"emb": given, "y": torch.tensor(Y)}))
    np.save(tmp_path / "y.npy", Y)
    for name in ("x.pt", "x.safetensors"):
        labels = Location(str(tmp_path / "y.npy")) if name == "x.pt" else None
        x = read_feature_file(Location(str(tmp_path / name)), labels)[2]
        assert_array_equal(x, np.arange(12).reshape(4, 3))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_of_torch_runs_nothing(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for zipped in (True, False):
        torch.save(
            {"x": torch.tensor(X), "y": Call(os.system, f"echo > {MARK}")},
            "bad.pt",
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=zipped,
        )
        with pytest.raises(UserError, match=r"bad\.pt: refused, only tensors"):
            read_feature_file(Location("bad.pt"))
    assert not os.path.exists(MARK)


def test_numpy_files_of_objects_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([Call(os.system, "true")], dtype=object))
    with pytest.raises(UserError, match=r"x\.npy: not a readable NumPy file .*; save text as str"):
        read_feature_file(Location(str(tmp_path / "x.npy")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label,f,f\na,0,1,2\n", "column 'f' occurs more than once"),
        (",label,f\n0,0,1\n", "a column without a name, perhaps an index; .*index=False"),
        ("id,label,path,f\na,0,b,1\n", "column 'path' does not hold numbers"),
        ("id,f\na,1\n", "no labels among .*; call them label, or give --labels FILE"),
        ("id,label,y,f\na,0,0,1\n", "has both 'label' and 'y'"),
        ("id,label,f\na,0,1\na,0,1\n", "1 ids occur more than once, the first a"),
        ("id,label,f\na,,1\n", "row 0 has an empty one"),
        ("id,label,f\na,0,\nb,0,1\n", "features must be finite, got 1"),
        ("id,label,f\na,0,1e300\n", "features as float32 must be finite, got 1"),
        ("id,label\na,0\n", "expected one"),
        ("", "neither a CSV nor a Parquet table"),
        ("\0\0\0", "unknown kind of file; expected .npy, .npz"),
    ],
)
def test_a_table_that_is_not_features_is_one_line_that_names_the_column(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=rf"t\.csv: .*{message}") as caught:
        read_feature_file(Location(str(tmp_path / "t.csv")))
    assert "\n" not in str(caught.value)


def test_a_single_row_of_numbers_is_not_taken_for_a_column(tmp_path):
    np.save(tmp_path / "x.npy", X[:, 0])
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(UserError, match=r"x\.npy: features must be .* got shape \(4,\)"):
        read_feature_file(*(Location(str(tmp_path / name)) for name in ("x.npy", "y.npy")))


def test_an_index_of_pandas_in_a_parquet_file_is_no_feature(tmp_path):
    table = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "label": NAMES}, index=list("wxyz"))
    table.to_parquet(tmp_path / "t.parquet")
    assert_array_equal(read_feature_file(Location(str(tmp_path / "t.parquet")))[2], X[:, :2])


def test_names_with_any_character_are_written_and_read_back(tmp_path):
    names = ["a/b", "a", "", "x=1", "q?#%", "..", "two\nlines", "comma,", "'"]
    labels = [name or "犬/猫" for name in names]
    np.savez(tmp_path / "x.npz", x=np.eye(9), label=labels)
    shape = import_features(
        Location(str(tmp_path / "x.npz")), None, Location(str(tmp_path / "f")), "b"
    )
    found = read_split(Location(str(tmp_path / "f")))
    assert shape == (9, 9)
    assert found.labels == tuple(labels)
    assert found.ids[0] == "a/b/000000"
    assert_array_equal(found.x, np.eye(9))


def test_sentinels_and_columns_that_say_nothing_are_reported_in_one_line(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(40, 5))
    root = Location(str(tmp_path))
    np.savez(tmp_path / "good.npz", x=x, y=np.arange(40) % 2)
    import_features(root / "good.npz", None, root / "good", "mine")
    assert capsys.readouterr().err == ""
    x[7, 2] = 1e6
    x = np.c_[x, np.full((40, 2), 3.0), x[:, 0]]
    np.savez(tmp_path / "odd.npz", x=x, y=np.arange(40) % 2)
    import_features(root / "odd.npz", None, root / "odd", "mine")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "odd.npz: 1 row far from all others (first 1/000007); 2 columns constant; 1 column equal "
        "to another"
    )


TABLE = {
    "id": ["b", "a", "c"],
    "label": ["x y", "z/1", "x y"],
    "features": [[1, 2], [3, 4], [5, 6]],
}


def test_columns_at_hand_are_written_as_a_split(tmp_path):
    wide = {"id": TABLE["id"], "label": TABLE["label"], "u": [1.0, 3, 5], "v": [2.0, 4, 6]}
    tables = [TABLE, pd.DataFrame(TABLE), pd.DataFrame(wide), pa.table(TABLE)]
    for number, table in enumerate(tables):
        folder = tmp_path / str(number)
        assert dcai_ray.write_features(table, str(folder), split="train") == (3, 2)
        found = read_split(Location(str(folder / "train")))
        assert list(found.ids) == TABLE["id"]
        assert list(found.labels) == TABLE["label"]
        assert found.x.tolist() == TABLE["features"]


@pytest.mark.parametrize(
    ("data", "split", "message"),
    [
        (TABLE, "test", "split must be train, shapley_val, val, got 'test'"),
        ([1, 2], "train", "features must come as columns by name"),
        ({"label": ["a", "b"], "features": [[1, 2], [3, np.nan]]}, "train", "must be finite"),
        ({"features": [[1, 2], [3, 4]]}, "train", "no labels among"),
        ({"label": ["a"], "features": [[1, 2], [3, 4]]}, "train", "2 rows of features"),
    ],
)
def test_columns_that_make_no_sense_are_one_line(tmp_path, data, split, message):
    with pytest.raises(UserError, match=message):
        dcai_ray.write_features(data, str(tmp_path), split=split)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_a_dataset_of_ray_is_written_in_the_order_of_its_ids(tmp_path, ray_cluster):
    rows = [dict(zip(TABLE, row, strict=True)) for row in zip(*TABLE.values(), strict=True)]
    data = ray.data.from_items(rows).repartition(2)
    assert dcai_ray.write_features(data, str(tmp_path), split="val") == (3, 2)
    found = read_split(Location(str(tmp_path / "val")))
    assert (list(found.ids), list(found.labels)) == (["a", "b", "c"], ["z/1", "x y", "x y"])
    assert found.x.tolist() == [[3, 4], [1, 2], [5, 6]]
    with pytest.raises(UserError, match="give it a column id"):
        dcai_ray.write_features(data.drop_columns(["id"]), str(tmp_path), split="train")
