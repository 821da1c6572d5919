"""Decisions to and from other tools' files, without these tools.

    label-studio    tasks with predictions and scores; its JSON and JSON-MIN exports come back
    cleanlab        the frame of label issues (CSV): is_label_issue, label_quality, given_label,
                    predicted_label, with the columns id and split
    labels          a table with the columns id and label (CSV or Parquet), as any tool writes

Tools that know images by their files are in `path_formats`.

What comes back without a time of its own has that of its file, so that the same file twice is known
twice. A table of labels keeps an image whose label is the given one, and relabels the others.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dcai_ray.errors import UserError
from dcai_ray.review.decisions import Decision

DROP, UNSURE = "(drop)", "(unsure)"
"""Choices of Label Studio beside the classes; parentheses, as a class may be called `drop`."""
_ID = "dcai_ray_id"  # of a task's data: Label Studio has an id of its own
Labels = Mapping[tuple[str, str], str]  # (split, id) -> label


@dataclass(frozen=True, slots=True)
class Task:
    """An image that another tool is asked about."""

    id: str
    split: str
    path: str
    """Path below the data's root."""
    uri: str
    """Of a remote image; empty for a local one."""
    given_label: str
    suggested_label: str
    suggested_probability: float | None
    wrong_probability: float | None


def label_studio(tasks: Sequence[Task]) -> bytes:
    """Tasks for Label Studio with predictions and scores."""
    return json.dumps([_task(task) for task in tasks], ensure_ascii=False).encode()


def labelling_interface(classes: Sequence[str]) -> str:
    """The configuration of a Label Studio project for these tasks."""
    choices = "".join(f'    <Choice value="{_xml(c)}"/>\n' for c in (*classes, DROP, UNSURE))
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single">\n{choices}  </Choices>\n</View>\n'
    )


def _xml(text: str) -> str:
    marks = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
    return "".join(marks.get(letter, letter) for letter in text)


def _task(task: Task) -> dict[str, Any]:
    data: dict[str, Any] = {
        "image": task.uri or f"/data/local-files/?d={quote(task.path)}",
        _ID: task.id,
        "split": task.split,
        "given_label": task.given_label,
    }
    if task.wrong_probability is not None:
        data["wrong_probability"] = round(task.wrong_probability, 6)
    made: dict[str, Any] = {"data": data}
    if task.suggested_label:
        result = {
            "from_name": "label",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [task.suggested_label]},
        }
        prediction: dict[str, Any] = {"model_version": "dcai_ray", "result": [result]}
        if task.suggested_probability is not None:
            prediction["score"] = round(task.suggested_probability, 6)
        made["predictions"] = [prediction]
    return made


def cleanlab(tasks: Sequence[Task]) -> bytes:
    """cleanlab's frame of label issues."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ("id", "split", "is_label_issue", "label_quality", "given_label", "predicted_label")
    )
    for task in tasks:
        wrong = task.wrong_probability
        quality = "" if wrong is None else f"{1 - wrong:.6g}"
        issue = task.suggested_label not in ("", task.given_label)
        table.writerow(
            (task.id, task.split, issue, quality, task.given_label, task.suggested_label)
        )
    return text.getvalue().encode()


def from_tasks(tasks: Any) -> list[Decision]:
    """The decisions of an export of Label Studio, JSON or JSON-MIN.

    Args:
        tasks: the content of the file.
    Raises:
        UserError: it is something else.
    """
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError("expected a list of tasks, as Label Studio exports it")
    return [decision for task in tasks for decision in _answers(task)]


def _answers(task: Mapping[str, Any]) -> Iterator[Decision]:
    data = task.get("data", task)  # JSON-MIN lays the data and the answer side by side
    missing = [name for name in (_ID, "given_label") if not isinstance(data.get(name), str)]
    if missing:
        raise UserError(
            f"a task has no {missing[0]!r}: it was not made by `dcai-ray tasks`, or was changed"
        )
    if data is task:
        if task.get("label"):
            at = task.get("updated_at") or task.get("created_at")
            yield _choice(data, str(task["label"]), task.get("annotator", ""), at)
        return
    for annotation in task.get("annotations", ()):
        if annotation.get("was_cancelled"):
            continue
        by = annotation.get("completed_by", "")
        by = by.get("email", by.get("id", "")) if isinstance(by, dict) else by
        at = annotation.get("updated_at") or annotation.get("created_at")
        for result in annotation.get("result", ()):
            chosen = result.get("value", {}).get("choices", ())
            if len(chosen) == 1:
                yield _choice(data, str(chosen[0]), by, at)


def _choice(data: Mapping[str, Any], chosen: str, by: Any, at: Any) -> Decision:
    given = str(data["given_label"])
    decision, label = "relabel", chosen
    if chosen in (DROP, UNSURE):
        decision, label = chosen.strip("()"), ""
    elif chosen == given:
        decision, label = "keep", ""
    split = str(data.get("split") or "train")
    return Decision(
        str(data[_ID]), split, given, decision, label, str(by), str(at or ""), "label-studio"
    )


def from_frame(rows: Sequence[Mapping[str, Any]], at: str, labels: Labels) -> list[Decision]:
    """The decisions of a frame of label issues: what is an issue is of the predicted label.

    Args:
        rows: with the columns id, is_label_issue, given_label and predicted_label.
        at: time of the file.
        labels: of the run's images.
    """
    found = []
    for row in rows:
        name, split = str(row["id"]), str(row.get("split") or "train")
        given = str(row.get("given_label") or labels.get((split, name), ""))
        issue = str(row["is_label_issue"]).lower() in ("true", "1")
        label = str(row.get("predicted_label") or "") if issue else given
        if issue and label in ("", given):
            decision, label = "drop", ""
        else:
            decision, label = ("keep", "") if label == given else ("relabel", label)
        found.append(Decision(name, split, given, decision, label, "cleanlab", at, ""))
    return found


def from_labels(rows: Sequence[Mapping[str, Any]], at: str, labels: Labels) -> list[Decision]:
    """The decisions of a table of right labels; an empty label says nothing.

    Args:
        rows: with the columns id and label.
        at: time of the file.
        labels: of the run's images.
    """
    found = []
    for row in rows:
        name, split = str(row["id"]), str(row.get("split") or "train")
        label, given = str(row.get("label") or ""), labels.get((split, name), "")
        if label:
            same = label == given
            decision, new = ("keep", "") if same else ("relabel", label)
            by = str(row.get("by") or "")
            found.append(Decision(name, split, given, decision, new, by, at, ""))
    return found
