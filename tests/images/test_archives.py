import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from dcai_ray.errors import UserError
from dcai_ray.images.archives import read_archive
from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.images.truth import read_truth
from dcai_ray.storage.location import Location

KINDS = ("tar", "stored.zip", "deflated.zip")


@pytest.fixture
def folder(image_folder) -> Path:
    image_folder({"train/a": 3, "train/b": 2, "val/a": 4, "val/b": 4}, name="set")
    return image_folder({}, name="set")


def packed(folder: Path, kind: str, *, inside: str = "") -> Path:
    file = folder.parent / f"packed.{kind}"
    members = sorted(path for path in folder.rglob("*") if path.is_file())
    if kind == "tar":
        with tarfile.open(file, "w") as archive:
            for path in members:
                archive.add(path, inside + str(path.relative_to(folder)))
    else:
        method = zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(file, "w", method) as archive:
            for path in members:
                archive.write(path, inside + str(path.relative_to(folder)))
    return file


def what_is_listed(listing):
    return {
        (image.split, image.id, image.label, image.bytes, image.file(listing.root).read_bytes())
        for image in listing.images
    }


@pytest.mark.parametrize("inside", ["", "wrapped/"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_lists_as_the_folder_it_was_made_of(folder, kind, inside):
    expected = what_is_listed(list_run(Location(str(folder))))
    listing = list_run(Location(str(packed(folder, kind, inside=inside))))
    assert what_is_listed(listing) == expected
    assert any("only folder, wrapped" in note for note in listing.notes) == bool(inside)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_in_the_order_of_the_container(folder, kind):
    train = list_audit(Location(str(packed(folder, kind)))).images
    starts = [image.packed.start for image in train]
    assert starts == sorted(starts)
    assert len(train) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_in_an_archive_reads_as_a_path_in_messages(folder, kind):
    file = packed(folder, kind)
    listing = list_run(Location(str(file)))
    image = listing.split("train")[0]
    assert str(image.file(listing.root)) == f"{file}/{image.path}"


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_in_a_store_lists_and_reads_as_a_local_one(
    folder, kind, object_store, monkeypatch
):
    for name, value in object_store.variables.items():
        monkeypatch.setenv(name, value)
    file = packed(folder, kind)
    uri = object_store.bucket("archives-" + kind.replace(".", "-")) + f"/{file.name}"
    object_store.put(uri, file.read_bytes())
    assert what_is_listed(list_run(Location(uri))) == what_is_listed(list_run(Location(str(file))))


@pytest.mark.parametrize("kind", KINDS)
def test_truth_in_an_archive_is_read(folder, kind):
    name = sorted((folder / "train" / "a").iterdir())[0].name
    (folder / "truth.csv").write_text(f"path,label,true_label\ntrain/a/{name},a,b\n")
    listing = list_run(Location(str(packed(folder, kind))))
    images = tuple(
        Image(i.split, i.id, i.label, i.path, i.bytes, i.packed, width=1, height=1, sha256="")
        for i in listing.images
    )
    truth = read_truth(ImageSet(listing.root, images, listing.classes))
    assert truth is not None
    assert truth.wrong.sum() == truth.known.sum() == 1


def test_a_member_of_more_than_4_gib_offset_is_reached(tmp_path):
    """A sparse file on disk: the zip64 fields of the directory are needed."""
    file, content = tmp_path / "big.zip", b"\x89PNG tail"
    with file.open("wb") as stream:
        stream.truncate(2**32 + 10)
    with zipfile.ZipFile(file, "a", allowZip64=True) as archive:
        archive.writestr("a/x.png", content)
    found = read_archive(Location(str(file)))
    assert found.members["a/x.png"].start > 2**32
    assert found.read("a/x.png") == content


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.xz"])
def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{name}: a compressed tar.*unpack it, or make a .tar"):
        list_audit(Location(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["../a/x.png", "/a/x.png", "a/../../x.png"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_leads_out_is_refused(tmp_path, kind, name):
    file = tmp_path / f"bad.{kind}"
    if kind == "tar":
        with tarfile.open(file, "w") as archive:
            archive.addfile(tarfile.TarInfo(name))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, b"")
    with pytest.raises(UserError, match=f"bad.{kind}: the name .* leads out"):
        read_archive(Location(str(file)))


def test_links_are_skipped_with_a_line(tmp_path):
    file = tmp_path / "links.tar"
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo("a/x.png"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"a/link{kind.decode()}.png")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
    found = read_archive(Location(str(file)))
    assert list(found.members) == ["a/x.png"]
    assert found.notes == ("links.tar: 2 members skipped (links, devices or sparse)",)


def test_a_name_that_occurs_twice_is_refused(tmp_path):
    file = tmp_path / "twice.tar"
    with tarfile.open(file, "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a/x.png"))
    with pytest.raises(UserError, match=r"twice.tar: a/x.png occurs twice"):
        read_archive(Location(str(file)))


def test_an_encrypted_zip_is_refused(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/x.png", b"x")
    raw = bytearray(content.getvalue())
    raw[raw.index(b"PK\1\2") + 8] |= 1  # the flag, in the directory
    (tmp_path / "secret.zip").write_bytes(raw)
    with pytest.raises(UserError, match=r"secret.zip: encrypted; pack it without a password"):
        read_archive(Location(str(tmp_path / "secret.zip")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_a_truncated_archive_is_one_line_with_its_name(folder, kind, keep):
    file = packed(folder, kind)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=rf"packed\.{kind}: damaged [^\n]*$"):
        list_run(Location(str(file)))


def test_a_damaged_header_in_a_tar_does_not_pass_as_its_end(folder):
    file = packed(folder, "tar")
    second = sorted(p.start for p in read_archive(Location(str(file))).members.values())[1]
    content = bytearray(file.read_bytes())
    content[second - 512 : second] = b"\x07" * 512
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_archive(Location(str(file)))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_damaged_member_of_a_zip_is_one_line(folder, kind):
    file = packed(folder, kind)
    listing = list_run(Location(str(file)))
    image = listing.images[0]
    content = bytearray(file.read_bytes())
    content[image.packed.start] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged in .*packed"):
        image.file(listing.root).read_bytes()


def test_a_zip_beside_class_folders_is_not_read(folder):
    packed(folder, "stored.zip").rename(folder / "train" / "more.zip")
    listing = list_run(Location(str(folder)))
    assert len(listing.split("train")) == 5
