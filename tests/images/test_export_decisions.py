"""Exports with what people decided, of class folders and of a list with labels."""

import csv
import os
from dataclasses import replace

import pyarrow as pa
import pytest
from PIL import Image as Picture

from dcai_ray.errors import UserError
from dcai_ray.images import in_place
from dcai_ray.images.export import Exported, export_cleaned, undo_in_place
from dcai_ray.images.image_set import Image, image_table
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.review.decision_files import Session
from dcai_ray.review.decisions import Decision
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location

CLASSES = ("cat", "dog")
AT = "2026-01-01T12:00:00Z"


def decided(split, name, given, decision, label="", at=AT):
    return Decision(name, split, given, decision, label, "ann", at, "")


def run_of(folder, data, dropped):
    """A run of a data set whose rule drops some of the training images."""
    run, listing = RunDirectory(Location(str(folder))), list_run(data)
    run.bind_settings({"data": listing.root.uri, **listing.origin})
    images = [
        Image(i.split, i.id, i.label, i.path, i.bytes, i.packed, width=4, height=4, sha256="")
        for i in listing.images
    ]
    kept = [
        {"id": i.id, "label": i.label, "value": 1.0}
        for i in listing.split("train")
        if i.id not in dropped
    ]
    parquet.write_table(run.images, image_table(images), "images")
    parquet.write_table(run.kept, pa.Table.from_pylist(kept, schemas.KEPT), "kept")
    return run


@pytest.fixture
def data(tmp_path):
    """Three pictures of each class and split, under the same names in both classes."""
    for split in ("train", "shapley_val", "val"):
        for label in CLASSES:
            for i in range(3):
                file = tmp_path / f"data/{split}/{label}/{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Picture.new("RGB", (4, 4), (40 * i, 90 * (label == "dog"), 7)).save(file)
    return Location(str(tmp_path / "data"))


@pytest.fixture
def run(tmp_path, data):
    """The rule drops cat/0 and cat/1; ann keeps cat/1, drops dog/0 and calls dog/1 a cat; she also
    calls a clean dog a cat, is unsure about cat/0, and saw another label on dog/2."""
    run = run_of(tmp_path / "run", data, ("cat/0.png", "cat/1.png"))
    Session(run.decisions).add([
        decided("train", "cat/1.png", "cat", "keep"),
        decided("train", "dog/0.png", "dog", "drop"),
        decided("train", "dog/1.png", "dog", "relabel", "cat"),
        decided("shapley_val", "dog/2.png", "dog", "relabel", "cat"),
        decided("train", "cat/0.png", "cat", "unsure"),
        decided("train", "dog/2.png", "fox", "drop"),
    ])  # fmt: skip
    return run


def names(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*.png")}


ALL = {f"{s}/{c}/{i}.png" for s in ("train", "shapley_val", "val") for c in CLASSES
       for i in range(3)}  # fmt: skip


def test_people_win_over_the_rule_and_what_they_relabel_is_left_out(run, tmp_path):
    out = tmp_path / "out"
    found = export_cleaned(run, Location(str(out)), "copy")
    gone = {"train/cat/0.png", "train/dog/0.png", "train/dog/1.png", "shapley_val/dog/2.png"}
    assert names(out) == ALL - gone
    assert found == Exported(images=14, dropped=4, relabelled=0)


@pytest.mark.parametrize("how", ["copy", "hardlink", "symlink"])
def test_relabelled_images_move_to_their_class_and_take_no_other_ones_name(run, tmp_path, how):
    out = tmp_path / "out"
    found = export_cleaned(run, Location(str(out)), how, "relabel")
    gone = {"train/cat/0.png", "train/dog/0.png", "train/dog/1.png", "shapley_val/dog/2.png"}
    moved = {"train/cat/1_dog.png", "shapley_val/cat/2_dog.png"}
    assert names(out) == ALL - gone | moved
    assert found == Exported(images=16, dropped=2, relabelled=2)
    source = tmp_path / "data/train/dog/1.png"
    assert (out / "train/cat/1_dog.png").read_bytes() == source.read_bytes()
    listing = list_run(Location(str(out)))
    assert [len(listing.split(split)) for split in ("train", "shapley_val", "val")] == [4, 6, 6]


def test_changes_are_listed_with_who_made_them(run, tmp_path):
    out = tmp_path / "out"
    export_cleaned(run, Location(str(out)), "copy", "relabel")
    with open(out / "changes.csv", newline="") as file:
        rows = {(row["split"], row["id"]): row for row in csv.DictReader(file)}
    assert {key: (row["change"], row["by"], row["new_path"]) for key, row in rows.items()} == {
        ("train", "cat/0.png"): ("drop", "rule", ""),
        ("train", "dog/0.png"): ("drop", "ann", ""),
        ("train", "dog/1.png"): ("relabel", "ann", "train/cat/1_dog.png"),
        ("shapley_val", "dog/2.png"): ("relabel", "ann", "shapley_val/cat/2_dog.png"),
    }
    assert rows["train", "dog/1.png"]["label"] == "dog"
    assert rows["train", "dog/1.png"]["new_label"] == "cat"


def test_decisions_alone_keep_what_the_rule_drops(run, tmp_path):
    found = export_cleaned(
        run, Location(str(tmp_path / "out")), "copy", "relabel", reviewed_only=True
    )
    assert "train/cat/0.png" in names(tmp_path / "out")
    assert found == Exported(images=17, dropped=1, relabelled=2)


def test_a_class_of_which_nothing_would_be_left_is_refused(run, tmp_path):
    Session(run.decisions).add([
        decided("train", "dog/0.png", "dog", "drop"),
        decided("train", "dog/2.png", "dog", "drop", at="2026-01-02T12:00:00Z"),
    ])  # fmt: skip
    with pytest.raises(UserError, match="nothing of class dog would be left in train"):
        export_cleaned(run, Location(str(tmp_path / "out")), "copy")
    assert not (tmp_path / "out").exists()


def test_without_any_change_there_is_no_list(tmp_path, data):
    run = run_of(tmp_path / "other", data, ())
    found = export_cleaned(run, Location(str(tmp_path / "out")), "copy")
    assert found == Exported(images=18, dropped=0, relabelled=0)
    assert not (tmp_path / "out/changes.csv").exists()


def test_labels_of_a_list_change_in_its_table(tmp_path, data):
    rows = ["path,label"]
    rows += [f"train/{label}/{i}.png,{label}" for label in CLASSES for i in range(3)]
    (tmp_path / "data/list.csv").write_text("\n".join(rows) + "\n")
    listing = list_audit(Location(str(tmp_path / "data/list.csv")))
    run = RunDirectory(Location(str(tmp_path / "listed")))
    run.bind_settings({"data": listing.root.uri, **listing.origin})
    images = [
        Image(i.split, i.id, i.label, i.path, i.bytes, i.packed, width=4, height=4, sha256="")
        for i in listing.images
    ]
    kept = [{"id": i.id, "label": i.label, "value": 1.0} for i in listing.images]
    parquet.write_table(run.images, image_table(images), "images")
    parquet.write_table(run.kept, pa.Table.from_pylist(kept, schemas.KEPT), "kept")
    name = images[-1].id
    Session(run.decisions).add([decided("train", name, "dog", "relabel", "cat")])
    out = tmp_path / "out"
    export_cleaned(run, Location(str(out)), "copy", "relabel")
    again = {image.id: image.label for image in list_audit(Location(str(out))).images}
    assert list(again.values()).count("cat") == 4


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_changed_in_place_and_put_back(run, tmp_path, data):
    before, out = content(tmp_path / "data"), Location(str(tmp_path / "out"))
    found = export_cleaned(run, out, "in-place", "relabel")
    assert found == Exported(images=16, dropped=2, relabelled=2)
    moved = {"train/cat/1_dog.png", "shapley_val/cat/2_dog.png"}
    gone = {"train/cat/0.png", "train/dog/0.png", "train/dog/1.png", "shapley_val/dog/2.png"}
    assert names(tmp_path / "data") == ALL - gone | moved
    assert names(tmp_path / "out") == {"train/cat/0.png", "train/dog/0.png"}
    assert (tmp_path / "data/train/cat/1_dog.png").read_bytes() == before["train/dog/1.png"]
    assert undo_in_place(run, out) == 4
    assert content(tmp_path / "data") == before
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="nothing to undo"):
        undo_in_place(run, out)


def failing_rename(monkeypatch, at):
    """os.rename fails the given time, and works before and after."""
    calls, rename = [], os.rename

    def fails(source, to):
        calls.append(source)
        if len(calls) == at:
            raise OSError(28, "No space left on device", str(to))
        rename(source, to)

    monkeypatch.setattr(os, "rename", fails)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_change_in_place_that_fails_changes_nothing(run, tmp_path, data, monkeypatch, at):
    before = content(tmp_path / "data")
    failing_rename(monkeypatch, at)
    with pytest.raises(OSError, match="No space"):
        export_cleaned(run, Location(str(tmp_path / "out")), "in-place", "relabel")
    assert content(tmp_path / "data") == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at", [1, 3])
def test_a_change_in_place_that_was_killed_is_put_back(run, tmp_path, data, monkeypatch, at):
    before, out = content(tmp_path / "data"), Location(str(tmp_path / "out"))
    with monkeypatch.context() as patch:
        patch.setattr(in_place, "_put_back", lambda *_: None)  # a killed process does neither
        patch.setattr(in_place, "_delete_list", lambda *_: None)
        failing_rename(patch, at)
        with pytest.raises(OSError, match="No space"):
            export_cleaned(run, out, "in-place", "relabel")
    with pytest.raises(UserError, match="not empty"):
        export_cleaned(run, out, "in-place", "relabel")
    assert undo_in_place(run, out) == at - 1
    assert content(tmp_path / "data") == before


def test_what_cannot_be_put_back_is_named_and_all_else_is_back(run, tmp_path, data):
    before, out = content(tmp_path / "data"), Location(str(tmp_path / "out"))
    export_cleaned(run, out, "in-place", "relabel")
    other = tmp_path / "data/train/dog/1.png"
    other.write_bytes(b"another")
    (tmp_path / "out/train/cat/0.png").unlink()
    with pytest.raises(UserError, match=r"dog/1\.png: another file is there; .*undo\.csv is kept"):
        undo_in_place(run, out)
    other.unlink()
    with pytest.raises(UserError, match=r"train/cat/0\.png: is gone"):
        undo_in_place(run, out)
    lost = before.pop("train/cat/0.png")
    assert content(tmp_path / "data") == before
    (tmp_path / "data/train/cat/0.png").write_bytes(lost)
    assert undo_in_place(run, out) == 0


def test_a_changed_or_missing_picture_or_a_relative_link_is_left_alone(run, tmp_path, data):
    out, file = Location(str(tmp_path / "out")), tmp_path / "data/train/dog/1.png"
    picture = file.read_bytes()
    for make, message in (
        (lambda: file.write_bytes(picture + b"!"), "when the run read it; nothing was changed"),
        (file.unlink, "is gone; nothing was changed"),
        (lambda: file.symlink_to("2.png"), "bytes|a relative link would lead nowhere"),
    ):
        make()
        before = content(tmp_path / "data")
        with pytest.raises(UserError, match=message):
            export_cleaned(run, out, "in-place", "relabel")
        assert content(tmp_path / "data") == before
        assert not (tmp_path / "out").exists()


def test_an_export_that_is_a_copy_and_a_list_that_leads_elsewhere_undo_nothing(run, tmp_path, data):
    out = Location(str(tmp_path / "out"))
    export_cleaned(run, out, "copy", "relabel")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"holds no undo\.csv of an export in place"):
        undo_in_place(run, out)
    (tmp_path / "out/undo.csv").write_text("path,new_path\n../a,../b\n")
    with pytest.raises(UserError, match=r"data: the name '\.\./b' leads out of it"):
        undo_in_place(run, out)
    (tmp_path / "out/undo.csv").unlink()
    assert content(tmp_path) == before


def test_nothing_to_change_in_place_is_said(tmp_path, data):
    run = run_of(tmp_path / "other", data, ())
    with pytest.raises(UserError, match="nothing to change"):
        export_cleaned(run, Location(str(tmp_path / "out")), "in-place")


def test_names_with_markup_and_quotes_go_out_and_come_back(tmp_path, monkeypatch):
    label, other, name = '=1,"<b>', "{{x}}", "=2,\"<script>alert(1)<\\script>'.png"
    for split in ("train", "shapley_val", "val"):
        for c in (label, other):
            (tmp_path / "data" / split / c).mkdir(parents=True)
            for i, file in enumerate((name, "1.png")):
                Picture.new("RGB", (4, 4), (40 * i, 9, 7)).save(
                    tmp_path / "data" / split / c / file
                )
    data = Location(str(tmp_path / "data"))
    run = run_of(tmp_path / "run", data, (f"{label}/1.png",))
    decision = decided("train", f"{label}/{name}", label, "relabel", other)
    Session(run.decisions).add([replace(decision, note='<script>"\n=3')])
    before = content(tmp_path / "data")
    with pytest.raises(UserError, match="would be left in train"):
        export_cleaned(run, Location(str(tmp_path / "out")), "copy", "relabel")
    Session(run.decisions).add([decided("train", f"{label}/1.png", label, "keep")])
    for how in ("copy", "in-place"):
        out = tmp_path / how
        export_cleaned(run, Location(str(out)), how, "relabel")
        name_of_list = "undo.csv" if how == "in-place" else "changes.csv"
        with open(out / name_of_list, newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["id"], row["label"], row["new_label"]) == (f"{label}/{name}", label, other)
        assert row["path"] == f"train/{label}/{name}"
    assert content(tmp_path / "data") != before
    assert undo_in_place(run, Location(str(tmp_path / "in-place"))) == 1
    assert content(tmp_path / "data") == before
