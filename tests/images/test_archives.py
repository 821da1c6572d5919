"""Archives as data: what they hold is what the folder that was packed holds."""

import io
import json
import tarfile
import zipfile

import pytest

from dcai_ray.errors import UserError
from dcai_ray.images.listing import picture_file
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.storage.location import Location

COUNTS = {"train/cat": 3, "train/dog": 3, "shapley_val/cat": 1, "shapley_val/dog": 1,
          "val/cat": 2, "val/dog": 2}  # fmt: skip


@pytest.fixture
def folder(image_folder):
    return image_folder(COUNTS)


def files_of(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths]


def tar(file, entries):
    with tarfile.open(file, "w") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return Location(str(file))


def pack_zip(file, entries, how=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return Location(str(file))


def pack_stored(file, entries):
    return pack_zip(file, entries, zipfile.ZIP_STORED)


def content(listing):
    """Every image with its bytes, as a worker reads them."""
    return {
        (image.split, image.id, image.label, picture_file(listing.root, image).read_bytes())
        for image in listing.images
    }


@pytest.mark.parametrize("around", ["", "pets/"])
@pytest.mark.parametrize("pack", [tar, pack_zip, pack_stored])
def test_an_archive_holds_what_its_folder_holds(folder, tmp_path, pack, around):
    entries = [(around + name, data) for name, data in files_of(folder)]
    packed = pack(tmp_path / ("set.tar" if pack is tar else "set.zip"), entries)
    plain = Location(str(folder))
    assert content(list_run(packed)) == content(list_run(plain))
    assert content(list_audit(packed)) == content(list_audit(plain))


def test_archives_side_by_side_are_folders_of_their_names(folder, tmp_path):
    (tmp_path / "sets").mkdir()
    for split in ("train", "val", "shapley_val"):
        entries = files_of(folder / split)
        pack_zip(tmp_path / f"sets/{split}.zip", entries)
    sets = Location(str(tmp_path / "sets"))
    assert content(list_run(sets)) == content(list_run(Location(str(folder))))


def test_images_are_listed_in_the_order_in_which_they_lie(folder, tmp_path):
    entries = [entry for entry in files_of(folder) if entry[0].startswith("train")][::-1]
    found = list_audit(tar(tmp_path / "set.tar", entries), splits={})
    assert [f"train/{image.id}" for image in found.images] == [name for name, _ in entries]


@pytest.mark.parametrize("ending", [".cls", ".json"])
def test_shards_of_webdataset_have_their_labels_beside_the_images(folder, tmp_path, ending):
    (tmp_path / "shards").mkdir()
    for split, places in (("train", 2), ("val", 1)):
        images = [(n.split("/")[0], data) for n, data in files_of(folder / split)]
        for place in range(places):
            entries = []
            for number, (label, data) in enumerate(images[place::places]):
                said = label if ending == ".cls" else json.dumps({"label": label, "by": "me"})
                entries += [(f"{number:04d}.png", data), (f"{number:04d}{ending}", said.encode())]
            tar(tmp_path / f"shards/{split}-{place:06d}.tar", entries)
    listing = list_run(Location(str(tmp_path / "shards")))
    found = sorted((label, data) for split, _, label, data in content(listing) if split == "train")
    assert found == sorted((n.split("/")[0], data) for n, data in files_of(folder / "train"))
    assert len(listing.split("val")) + len(listing.split("shapley_val")) == 4


def test_an_image_without_a_label_is_named(folder, tmp_path):
    data = files_of(folder)[0][1]
    shard = tar(tmp_path / "a.tar", [("1.png", data), ("1.cls", b"cat"), ("2.png", data)])
    with pytest.raises(UserError, match=r"a.tar: 2: no label; expected 2.cls, or the entry label"):
        list_audit(shard)


def compressed(folder, tmp_path):
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        archive.add(folder, "set")
    return tmp_path / "set.tar.gz"


def encrypted(folder, tmp_path):
    pack_zip(tmp_path / "set.zip", files_of(folder))
    content = bytearray((tmp_path / "set.zip").read_bytes())
    directory = content.index(b"PK\1\2")
    content[directory + 8] |= 1
    (tmp_path / "set.zip").write_bytes(content)
    return tmp_path / "set.zip"


def leading_out(folder, tmp_path):
    tar(tmp_path / "set.tar", [("../cat/1.png", b"x")])
    return tmp_path / "set.tar"


def doubled(folder, tmp_path):
    tar(tmp_path / "set.tar", files_of(folder)[:1] * 2)
    return tmp_path / "set.tar"


def cut(folder, tmp_path):
    pack_zip(tmp_path / "set.zip", files_of(folder))
    (tmp_path / "set.zip").write_bytes((tmp_path / "set.zip").read_bytes()[:-30])
    return tmp_path / "set.zip"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (compressed, "is compressed, so that no image in it can be read by itself"),
        (encrypted, "encrypted; unpack it to a folder"),
        (leading_out, "the name '../cat/1.png' leads out of it"),
        (doubled, "the name '.*' occurs twice"),
        (cut, "damaged, or no zip file"),
    ],
)
def test_an_archive_that_cannot_be_read_is_refused_in_one_line(folder, tmp_path, make, reason):
    file = make(folder, tmp_path)
    with pytest.raises(UserError, match=reason) as refusal:
        list_audit(Location(str(file)))
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_links_in_a_tar_are_left_out(folder, tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name, _ in files_of(folder):
            archive.add(folder / name, name)
        link = tarfile.TarInfo("train/cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    found = list_run(Location(str(tmp_path / "set.tar")))
    assert content(found) == content(list_run(Location(str(folder))))


@pytest.mark.parametrize("pack", [tar, pack_zip])
def test_an_archive_in_a_store_is_read_part_by_part(folder, tmp_path, pack, object_store):
    name = "set.tar" if pack is tar else "set.zip"
    pack(tmp_path / name, files_of(folder))
    bucket = object_store.bucket(f"archives-{pack.__name__.replace('_', '-')}")
    object_store.put(f"{bucket}/{name}", (tmp_path / name).read_bytes())
    found = list_run(Location(f"{bucket}/{name}"))
    assert content(found) == content(list_run(Location(str(folder))))
