import io
import json
import tarfile

import pytest

from dcai_ray.errors import UserError
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.storage.location import Location

PICTURE = b"not decoded by a listing"


def shard(file, members):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def samples(keys, label=lambda key: f"class {int(key) % 2}".encode()):
    return [
        member
        for key in keys
        for member in ((f"{key}.cls", label(key)), (f"{key}.jpg", PICTURE + key.encode()))
    ]


@pytest.mark.parametrize("folder", ["{split}-{n:06d}.tar", "{split}/{n:03d}.tar"])
def test_shards_are_split_by_their_names(tmp_path, folder):
    for split, shards in {"train": 2, "val": 1, "shapley_val": 1}.items():
        for n in range(shards):
            name = folder.format(split=split, n=n)
            shard(tmp_path / name, samples([f"{n}{i}" for i in range(4)]))
    listing = list_run(Location(str(tmp_path)))
    assert {s: len(listing.split(s)) for s in ("train", "shapley_val", "val")} == {
        "train": 8,
        "shapley_val": 4,
        "val": 4,
    }
    for image in listing.images:
        key = image.id.rsplit("/", 1)[1].removesuffix(".jpg")
        assert image.label == f"class {int(key) % 2}"
        assert image.file(listing.root).read_bytes() == PICTURE + key.encode()


def test_a_single_shard_is_audited(tmp_path):
    file = shard(
        tmp_path / "pets.tar", samples("0123", label=lambda key: str(int(key) % 2).encode())
    )
    listing = list_audit(Location(str(file)))
    assert [(image.id, image.label) for image in listing.images] == [
        ("0.jpg", "0"),
        ("1.jpg", "1"),
        ("2.jpg", "0"),
        ("3.jpg", "1"),
    ]


def test_labels_may_be_in_json(tmp_path):
    members = [
        ("a.jpg", PICTURE),
        ("a.json", json.dumps({"label": "Käse", "width": 3}).encode()),
        ("b.seg.jpg", PICTURE),
        ("b.json", json.dumps({"label": 7}).encode()),
    ]
    listing = list_audit(Location(str(shard(tmp_path / "pets.tar", members))))
    assert [(image.id, image.label) for image in listing.images] == [
        ("a.jpg", "Käse"),
        ("b.seg.jpg", "7"),
    ]


@pytest.mark.parametrize(
    ("members", "line"),
    [
        ([("c.jpg", PICTURE)], r"pets.tar/c: no label; expected c.cls"),
        ([("c.jpg", PICTURE), ("c.cls", b" \n")], r"pets.tar/c: its label is empty"),
        ([("c.jpg", PICTURE), ("c.json", b"{")], r"pets.tar/c.json: not JSON"),
        ([("c.jpg", PICTURE), ("c.json", b"{}")], r"pets.tar/c.json: needs a label"),
        ([("c.jpg", PICTURE), ("c.png", PICTURE), ("c.cls", b"1")], r"c.jpg and c.png share a key"),
    ],
)
def test_a_sample_that_cannot_be_used_is_refused_by_name(tmp_path, members, line):
    file = shard(tmp_path / "pets.tar", [*samples("01"), *members])
    with pytest.raises(UserError, match=line):
        list_audit(Location(str(file)))


def test_class_folders_with_json_beside_the_pictures_are_no_shard(tmp_path):
    members = [
        (f"{label}/{i}.{ending}", b'{"label": 3}')
        for label in "ab"
        for i in "01"
        for ending in ("jpg", "json")
    ]
    listing = list_audit(Location(str(shard(tmp_path / "tree.tar", members))))
    assert listing.classes == ("a", "b")


def test_shards_in_a_store_read_as_local_ones(tmp_path, object_store, monkeypatch):
    for name, value in object_store.variables.items():
        monkeypatch.setenv(name, value)
    bucket = object_store.bucket("shards")
    for split in ("train", "val"):
        file = shard(tmp_path / f"{split}-000.tar", samples(map(str, range(8))))
        object_store.put(f"{bucket}/{file.name}", file.read_bytes())
    remote, local = (list_run(Location(place)) for place in (bucket, str(tmp_path)))
    assert remote.images == local.images
    picture = remote.images[3].file(remote.root).read_bytes()
    assert picture == local.images[3].file(local.root).read_bytes()
