import builtins
import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.errors import UserError
from dcai_ray.storage.feature_files import read_feature_pickle
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
    ids, labels, x, digest = read_feature_pickle(file)
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
    _, _, got, _ = read_feature_pickle(write(pickle.dumps({"x": x, "y": Y}, protocol)))
    assert_array_equal(got, np.asarray(x).astype(np.float32))


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.array(["cat", "Käse", "犬", ""]), ["cat", "Käse", "犬", ""]),
        (np.array(["cat", "dög"] * 2, dtype=">U3"), ["cat", "dög"] * 2),
        (np.array([b"cat", b"dog"] * 2), ["cat", "dog"] * 2),
        (["cat", "dog", "cat", "dog"], ["cat", "dog"] * 2),
        (np.array([True, False] * 2), ["True", "False"] * 2),
    ],
)
def test_labels_may_be_text_or_numbers(write, protocol, y, labels):
    assert read_feature_pickle(write(pickle.dumps({"x": X, "y": y}, protocol)))[1] == labels


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
        read_feature_pickle(file)
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
        "from dcai_ray.storage.feature_files import *; "
        f"print(read_feature_pickle(Location({file.uri!r}))[0])"
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
            read_feature_pickle(file := write(bytes(damaged[:cut])))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) >= 300  # those cut off at least
    assert all(message.startswith(f"{file}: ") for message in messages)
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([X, Y], "expected a dict of arrays, got list"),
        ({"x": X}, r"one \(k, d\) array of features and one .* got x float32 \(4, 3\)"),
        ({"x": X, "x2": X, "y": Y}, "expected one"),
        ({"x": X, "y": Y, "split": Y}, "expected one"),
        ({"x": X, "y": Y[:3]}, "4 rows of features, but 3 labels"),
        ({"x": np.where(X.max() == X, np.nan, X), "y": Y}, "1 rows with NaN or infinite"),
        ({"x": np.where(X.max() == X, -np.inf, X), "y": Y}, "1 rows with NaN or infinite"),
        ({"x": [[1.0, 2.0], [3.0]], "y": Y}, "not a readable pickle"),
        ({}, "expected one"),
    ],
)
def test_a_pickle_of_something_else_says_what_was_expected(write, content, message):
    with pytest.raises(ValueError, match=rf"features\.pkl: .*{message}"):
        read_feature_pickle(write(content))


def test_an_absent_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_feature_pickle(Location(str(tmp_path / "nowhere")))


@pytest.mark.parametrize(("split", "rows"), [("train", 1500), ("shapley_val", 238)])
def test_the_features_of_the_study_are_read(shared_data, split, rows):
    """Liang et al. 2022 value 1500 training images by 238 others, in 512 dimensions."""
    file = shared_data / f"paper/feature_dump_{split}.pkl"
    if not file.exists():
        pytest.skip("the study's features are not there")
    ids, labels, x, _ = read_feature_pickle(Location(str(file)))
    assert x.shape == (rows, 512)
    assert len(set(ids)) == len(labels) == rows
    assert set(labels) == {"0", "1"}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"x": X, "y": np.array([b"a", b"\xff", b"a", b"b"])}, "labels must be UTF-8"),
        ({"x": X, "y": np.array(["a", "\ud800", "a", "b"])}, "labels must be UTF-8"),
        ({"x": X[:, :0], "y": Y}, "features of width 0"),
    ],
)
def test_labels_and_features_that_no_table_can_hold_are_refused(write, content, line):
    file = write(content)
    with pytest.raises(UserError, match=line) as caught:
        read_feature_pickle(file)
    assert str(caught.value).startswith(f"{file}: ")
