"""Label Studio's and cleanlab's files: what goes out comes back, with any names."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest

from dcai_ray.cli import main
from dcai_ray.errors import UserError
from dcai_ray.review.formats import (
    DROP,
    UNSURE,
    Task,
    cleanlab,
    from_frame,
    from_labels,
    from_tasks,
    label_studio,
    labelling_interface,
)
from tests.report.test_page import complete, run, write_evidence

__all__ = ["run"]  # the fixture
AT = "2026-01-01T12:00:00Z"
CAT, DOG = 'cat "<b>",\n=1', "dog & {{x}}"
TASKS = [
    Task("a/1 <i>.png", "train", "train/a/1 <i>.png", "", CAT, DOG, 0.9, 0.75),
    Task("a/2.png", "train", "train/a/2.png", "s3://bucket/a/2.png", CAT, CAT, None, None),
    Task("b/3.png", "train", "train/b/3.png", "", DOG, "", None, 0.5),
]
LABELS = {(task.split, task.id): task.given_label for task in TASKS}


def said(decisions):
    return {record.id: (record.given_label, record.decision, record.label) for record in decisions}


def test_tasks_of_label_studio_carry_predictions_and_scores():
    first, second, third = json.loads(label_studio(TASKS))
    assert first["data"]["image"] == "/data/local-files/?d=train/a/1%20%3Ci%3E.png"
    assert second["data"]["image"] == "s3://bucket/a/2.png"
    assert first["data"]["wrong_probability"] == 0.75
    (prediction,) = first["predictions"]
    assert prediction["score"] == 0.9
    assert prediction["result"][0]["value"]["choices"] == [DOG]
    assert "score" not in second["predictions"][0]
    assert "predictions" not in third


def test_the_labelling_interface_offers_every_class_whatever_it_is_called():
    tree = ElementTree.fromstring(labelling_interface([CAT, DOG]))
    choices = [choice.get("value") for choice in tree.iter("Choice")]
    # XML reads a line break in an attribute as a space; folders cannot have one in their names.
    assert choices == [CAT.replace("\n", " "), DOG, DROP, UNSURE]


def annotated(answers, *, minimal):
    """An export of Label Studio with one choice per task."""
    tasks = []
    for task, chosen in zip(json.loads(label_studio(TASKS)), answers, strict=True):
        if minimal:
            tasks.append({**task["data"], "label": chosen, "annotator": 7, "updated_at": AT})
            continue
        result = [{"from_name": "label", "type": "choices", "value": {"choices": [chosen]}}]
        done = {"completed_by": {"email": "ann@x"}, "updated_at": AT, "result": result}
        tasks.append({**task, "annotations": [{"was_cancelled": True, "result": result}, done]})
    return tasks


@pytest.mark.parametrize("minimal", [False, True])
def test_answers_of_label_studio_come_back(minimal):
    found = from_tasks(annotated([DOG, DROP, DOG], minimal=minimal))
    assert said(found) == {
        "a/1 <i>.png": (CAT, "relabel", DOG),
        "a/2.png": (CAT, "drop", ""),
        "b/3.png": (DOG, "keep", ""),
    }
    assert {(record.by, record.at) for record in found} == {("7" if minimal else "ann@x", AT)}
    unsure = from_tasks(annotated([UNSURE] * 3, minimal=minimal))
    assert {record.decision for record in unsure} == {"unsure"}


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "expected a list of tasks"), ([{"data": {"image": "x"}}], "a task has no 'dcai_ray_id'")],
)
def test_another_json_is_refused(content, message):
    with pytest.raises(UserError, match=message):
        from_tasks(content)


def test_the_frame_of_cleanlab_comes_back():
    rows = list(csv.DictReader(io.StringIO(cleanlab(TASKS).decode(), newline="")))
    assert [row["is_label_issue"] for row in rows] == ["True", "False", "False"]
    assert [row["label_quality"] for row in rows] == ["0.25", "", "0.5"]
    assert said(from_frame(rows, AT, LABELS)) == {
        "a/1 <i>.png": (CAT, "relabel", DOG),
        "a/2.png": (CAT, "keep", ""),
        "b/3.png": (DOG, "keep", ""),
    }
    lost = [{"id": "a/2.png", "is_label_issue": "True", "predicted_label": ""}]
    assert said(from_frame(lost, AT, LABELS)) == {"a/2.png": (CAT, "drop", "")}


def test_a_table_of_labels_says_what_is_right():
    rows = [
        {"id": "a/1 <i>.png", "label": DOG},
        {"id": "a/2.png", "label": CAT, "split": "train"},
        {"id": "b/3.png", "label": ""},
    ]
    assert said(from_labels(rows, AT, LABELS)) == {
        "a/1 <i>.png": (CAT, "relabel", DOG),
        "a/2.png": (CAT, "keep", ""),
    }


def test_a_command_says_which_name_a_format_has_no_room_for(run, tmp_path, capsys):
    complete(run)
    file = tmp_path / "tasks.zip"
    assert main(["tasks", run.location.uri, "--to", str(file), "--format", "imagenet"]) == 1
    assert "cannot be written in this format; rename the file" in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize("form", ["label-studio", "cleanlab", "fiftyone"])
def test_what_the_command_writes_is_taken_in_by_the_next(run, tmp_path, form, capsys):
    complete(run)
    write_evidence(run)
    file = tmp_path / f"tasks.{'csv' if form == 'cleanlab' else 'json'}"
    assert main(["tasks", run.location.uri, "--to", str(file), "--format", form, "--json"]) == 0
    count = json.loads(capsys.readouterr().out)["tasks"]
    assert count > 0
    if form == "label-studio":
        return  # nobody has answered
    assert main(["decide", run.location.uri, "--decisions", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["decisions"]
    assert told[0] == f"decisions added: {count} of {count}"
