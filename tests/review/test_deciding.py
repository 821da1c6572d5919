"""Decisions into a run: checked, merged, kept."""

import pyarrow as pa
import pytest

from dcai_ray.cli import main
from dcai_ray.errors import UserError
from dcai_ray.review.deciding import take_in
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

HEAD = "id,split,given_label,decision,label,by,at,note\n"
ANN = HEAD + (
    "cat/1.jpg,train,cat,drop,,ann,2026-01-01T12:00:00Z,\n"
    "cat/2.jpg,train,cat,relabel,dog,ann,2026-01-01T12:01:00Z,\n"
)
BOB = HEAD + (
    "cat/1.jpg,train,cat,keep,,bob,2026-01-02T12:00:00Z,\n"
    "cat/2.jpg,train,cat,relabel,dog,bob,2026-01-02T12:01:00Z,\n"
)


def write_images(run, rows):
    columns = dict(zip(("split", "id", "label"), map(list, zip(*rows, strict=True)), strict=True))
    columns["path"] = [f"{split}/{name}" for split, name, _ in rows]
    parquet.write_table(run.images, pa.table(columns), "any")


@pytest.fixture
def run(tmp_path):
    """A run of three images."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("{}\n")
    run = RunDirectory(Location(str(tmp_path / "run")))
    rows = [("train", "cat/1.jpg", "cat"), ("train", "cat/2.jpg", "cat"), ("val", "d.jpg", "dog")]
    write_images(run, rows)
    return run


def given(tmp_path, text):
    (tmp_path / "given.csv").write_text(text)
    return Location(str(tmp_path / "given.csv"))


def test_two_peoples_files_merge_and_their_agreement_is_told(run, tmp_path):
    take_in(run, given(tmp_path, ANN))
    assert take_in(run, given(tmp_path, BOB)) == [
        "decisions added: 2 of 2",
        "images decided: 2 (keep 1, drop 0, relabel 1, unsure 0)",
        "people differ on 1, the first cat/1.jpg; the latest counts",
        "ann and bob: 1 of 2 equal, kappa 0.33",  # p_o = 1/2, p_e = 1/4
    ]


def test_labels_of_fiftyone_are_known_by_their_names_and_their_content(run, tmp_path):
    file = tmp_path / "labels.json"
    file.write_text('{"classes": ["cat", "dog"], "labels": {"train/cat/1": 1, "val/d": 1}}')
    assert take_in(run, Location(str(file)))[1] == (
        "images decided: 2 (keep 1, drop 0, relabel 1, unsure 0)"
    )
    file.write_text('{"labels": {"train/cat/3": "cat"}}')
    with pytest.raises(UserError, match=r"labels\.json: 'train/cat/3' is no image of the run"):
        take_in(run, Location(str(file)))


def test_the_same_file_again_adds_nothing(run, tmp_path):
    take_in(run, given(tmp_path, ANN))
    assert take_in(run, given(tmp_path, ANN))[0] == "decisions added: 0 of 2"


def test_a_decision_about_a_label_that_has_changed_since_is_told(run, tmp_path):
    take_in(run, given(tmp_path, ANN))
    write_images(run, [("train", "cat/1.jpg", "dog"), ("train", "cat/2.jpg", "cat")])
    lines = take_in(run, given(tmp_path, ANN))
    assert lines[2].startswith("about another label than the image has now: 1;")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("cat/9.jpg,train,cat,drop,,ann,2026-01-01T12:00:00Z,", "no image 'cat/9.jpg' in train"),
        ("cat/1.jpg,val,cat,drop,,ann,2026-01-01T12:00:00Z,", "no image 'cat/1.jpg' in val"),
        ("cat/1.jpg,train,cat,relabel,cow,ann,2026-01-01T12:00:00Z,", "no class 'cow'"),
    ],
)
def test_a_file_with_one_wrong_row_adds_nothing(run, tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        take_in(run, given(tmp_path, f"{ANN}{row}\n"))
    assert not run.decisions.exists()


def test_the_command_prints_what_the_run_knows(run, tmp_path, capsys):
    file = given(tmp_path, ANN)
    assert main(["decide", "--run", str(run.location), "--decisions", str(file)]) == 0
    assert "images decided: 2 (keep 0, drop 1, relabel 1, unsure 0)" in capsys.readouterr().out
