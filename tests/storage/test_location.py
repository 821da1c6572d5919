import errno
import os
import pickle
import re
import resource
from functools import partial

import pytest
from pyarrow import fs

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.object_store import open_store

NASTY = ("two words", 'it\'s "quoted"', "Käse 犬", "<script>", "100% a#b", "why?", "a&b=c+d")


@pytest.fixture
def memory(monkeypatch):
    """An object store in memory behind `s3://`, and the URIs it was opened with."""
    fsspec = pytest.importorskip("fsspec")
    kept = fsspec.filesystem("memory", skip_instance_cache=True)
    kept.store.clear()
    filesystem = fs.PyFileSystem(fs.FSSpecHandler(kept))
    asked = []

    def opened(uri):
        asked.append(uri)
        return filesystem, "/" + uri.partition("://")[2].partition("?")[0]

    monkeypatch.setattr("dcai_ray.storage.location.open_store", opened)
    return filesystem, asked


@pytest.fixture(params=["local", "file", "s3"])
def root(request, tmp_path):
    """A folder by path, by file URI, and in an object store."""
    if request.param == "s3":
        request.getfixturevalue("memory")
        return Location("s3://bucket/a folder?scheme=http&endpoint_override=localhost:1")
    return Location(str(tmp_path) if request.param == "local" else tmp_path.as_uri())


@pytest.mark.parametrize("name", NASTY)
def test_what_is_written_is_read_whatever_the_name(root, name):
    (root / name / f"{name}.bin").write_bytes(b"\0\xff" * 3)
    assert [path for path, _ in root.walk()] == [f"{name}/{name}.bin"]
    assert root.folders() == [name]
    file = root / f"{name}/{name}.bin"
    assert file.read_bytes() == b"\0\xff" * 3
    assert file.name == f"{name}.bin"
    assert file.exists()
    assert not file.is_folder()
    assert (root / name).is_folder()


def test_walk_gives_every_file_with_its_size_in_order(root):
    for path, size in (("b/z", 3), ("a/b/c", 1), ("a/a", 0), ("B", 2)):
        (root / path).write_bytes(b"x" * size)
    assert list(root.walk()) == [("B", 2), ("a/a", 0), ("a/b/c", 1), ("b/z", 3)]
    assert root.folders() == ["a", "b"]


def test_writing_again_replaces_and_deleting_twice_is_fine(root):
    file = root / "x"
    file.write_bytes(b"a long first content")
    file.write_bytes(b"short")
    assert file.read_bytes() == b"short"
    assert file.read_bytes(limit=2) == b"sh"
    file.delete()
    file.delete()
    assert not file.exists()


@pytest.mark.parametrize(("count", "tail"), [(0, b""), (1, b"t"), (4, b"tent"), (99, b"content")])
def test_the_tail_of_a_file_is_its_last_bytes_or_all_of_it(root, count, tail):
    (root / "x").write_bytes(b"content")
    assert (root / "x").read_tail(count) == tail
    (root / "empty").write_bytes(b"")
    assert (root / "empty").read_tail(count) == b""
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        (root / "nowhere").read_tail(count)


def test_an_absent_file_is_an_os_error_that_names_it(root):
    with pytest.raises(FileNotFoundError, match=r"nowhere") as caught:
        (root / "nowhere").read_bytes()
    assert "\n" not in str(caught.value)
    assert not (root / "nowhere").exists()


def test_a_location_is_the_same_after_a_trip_to_a_worker(root):
    there = pickle.loads(pickle.dumps(root / "why?"))
    assert there == root / "why?"
    assert str(there) == (root / "why?").uri


def test_a_file_uri_is_the_local_path(tmp_path):
    assert Location(f"file://{tmp_path}/a%20b") == Location(f"{tmp_path}/a b")
    assert not Location(f"file://{tmp_path}").remote


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Location("data/../pets").uri == str(tmp_path / "pets")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Location("~/pets").uri == str(tmp_path / "pets")


def test_options_of_a_store_stay_with_every_file(memory):
    filesystem, asked = memory
    root = Location("s3://bucket?scheme=http&endpoint_override=localhost:1")
    assert (root / "a/b").uri == "s3://bucket/a/b?scheme=http&endpoint_override=localhost:1"
    (root / "a/b").write_bytes(b"x")
    assert set(asked) == {"s3://bucket?scheme=http&endpoint_override=localhost:1"}
    assert filesystem.get_file_info("bucket/a/b").size == 1


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEYID:hunter2@bucket/run",
        "s3://KEYID@bucket/hunter2",
        "s3://KEYID:hunter2/and/more@bucket/run",
        "s3://bucket/a#b?secret_key=hunter2",
        "s3://bucket/hunter2?access_key=KEYID",
        "s3://bucket/run?region=us-east-1&secret_key=hunter2&access_key=KEYID",
        "s3://bucket?session_token=hunter2",
        "s3://bucket/a?endpoint_override=KEYID:hunter2@host:1",
        "https://KEYID:hunter2@host/a.safetensors",
        "https://bucket.host/a.png?X-Amz-Signature=hunter2&X-Amz-Credential=KEYID",
        "abfs://box@account.dfs.core.windows.net/a?sas_token=hunter2",
    ],
)
def test_a_uri_with_credentials_is_refused_and_they_are_not_repeated(uri):
    with pytest.raises(ValueError, match=r"must not carry credentials.*AWS_ACCESS_KEY_ID") as error:
        Location(uri)
    assert not {"hunter2", "KEYID"} & set(re.findall(r"\w+", str(error.value)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "uri",
    [
        "gs://anonymous@bucket/a",
        "s3://bucket/who?me@home#1.png",
        "abfs://box@account.dfs.core.windows.net/a?tenant_id=1",
    ],
)
def test_a_uri_that_names_an_account_is_no_secret(uri):
    assert Location(uri).remote


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "/etc/passwd", "a/..", "nul\0"])
def test_no_name_leads_out_of_its_folder(tmp_path, name):
    for folder in (Location(str(tmp_path)), Location("s3://bucket/run")):
        with pytest.raises(ValueError, match=r"leads out of it; rename it"):
            folder / name
    assert (Location(str(tmp_path)) / "a..b/...").name == "..."


def test_pyarrow_opens_the_store_of_a_uri():
    """`mock://` is pyarrow's own store in memory; like a disk it wants folders made first."""
    location = Location("mock://host/why?")
    open_store("mock://host")[0].create_dir("why?")
    (location / "x").write_bytes(b"x")
    assert list(location.walk()) == [("x", 1)]


def test_an_unknown_kind_of_store_is_one_clear_line():
    with pytest.raises(
        ValueError, match=r"^nope://bucket: not a storage that pyarrow can"
    ) as error:
        Location("nope://bucket/x").exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "failure", [OSError(errno.EROFS, "Read-only file system"), KeyboardInterrupt()]
)
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failure):
    file = Location(str(tmp_path / "table"))
    file.write_bytes(b"old")

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(failure)):
        file.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert file.read_bytes() == b"old"


def test_a_write_cut_off_half_way_leaves_nothing(tmp_path):
    """The limit on file sizes stops a write as a full disk does: after some of the bytes."""
    file, (soft, hard) = Location(str(tmp_path / "f")), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError, match="File too large") as caught:
            file.write_bytes(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == file.uri
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk always full")
def test_a_full_disk_is_an_os_error_that_names_the_wanted_file(tmp_path, monkeypatch):
    full = partial(open, "/dev/full")
    monkeypatch.setattr("dcai_ray.storage.location.open", lambda _, mode: full(mode), raising=False)
    file = Location(str(tmp_path / "values.parquet"))
    with pytest.raises(OSError, match="No space left on device") as caught:
        file.write_bytes(b"x")
    assert caught.value.filename == file.uri
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_os_error_that_names_it(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=str(tmp_path / "file")) as caught:
        (Location(str(tmp_path)) / "file/run/x").write_bytes(b"x")
    assert "\n" not in str(caught.value)


def test_symbolic_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a").write_bytes(b"xyz")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/folder").symlink_to(tmp_path / "real")
    (tmp_path / "data/file").symlink_to(tmp_path / "real/a")
    data = Location(str(tmp_path / "data"))
    assert list(data.walk()) == [("file", 3), ("folder/a", 3)]
    assert data.folders() == ["folder"]


@pytest.mark.timeout(60)
def test_links_that_go_round_in_circles_are_walked_once(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").write_bytes(b"")
    for name in ("one", "two"):  # each alone is followed 40 deep, two of them 2^40 times
        (tmp_path / "a/b" / name).symlink_to(tmp_path / "a")
    assert [path for path, _ in Location(str(tmp_path)).walk()] == ["a/b/x"]


def test_a_link_that_leads_nowhere_is_listed_with_no_bytes(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/lost.png").symlink_to(tmp_path / "gone.png")
    assert list(Location(str(tmp_path)).walk()) == [("cat/lost.png", 0)]


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb"):
        pass
    with pytest.raises(ValueError, match=r"caf\\xe9.png.*not UTF-8; rename it"):
        list(Location(str(tmp_path)).walk())


@pytest.mark.parametrize(
    "ask", [Location.exists, Location.is_folder, Location.delete, Location.folders]
)
def test_what_the_system_says_of_a_local_path_names_it(ask, tmp_path):
    path = str(tmp_path / ("a" * 300))
    with pytest.raises(OSError, match="File name too long") as caught:
        ask(Location(path))
    assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, path)


@pytest.mark.parametrize("name", ["a\0b", os.fsdecode(b"caf\xe9")])
def test_a_name_that_no_file_system_takes_is_refused_when_it_is_given(name):
    with pytest.raises(UserError, match="not UTF-8, or has a zero byte"):
        Location(name)
