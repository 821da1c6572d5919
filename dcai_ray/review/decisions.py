"""What people decided about images: records that are only ever added.

A record is one person's decision about one image at one time. A later one of the same person
replaces it; `undo` withdraws that person's last one, so that the one before counts again. Of
several people the latest decision counts, and where they differ is told. Files may be merged in any
order and more than once.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

from dcai_ray.errors import UserError

DECISIONS = ("keep", "drop", "relabel", "unsure", "undo")


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of a file of decisions."""

    id: str
    """Of the image: its path below the split."""
    split: str
    given_label: str
    """The label that the person saw; with another one now, the decision no longer applies."""
    decision: str
    label: str
    """The right label; empty unless the decision is relabel."""
    by: str
    at: str
    """ISO 8601 with a time zone."""
    note: str

    def __post_init__(self) -> None:
        if not self.id:
            raise UserError("id must name an image, got an empty one")
        if self.decision not in DECISIONS:
            known = ", ".join(DECISIONS)
            raise UserError(f"decision must be one of {known}, got {self.decision!r} for {self.id}")
        if (self.decision == "relabel") != bool(self.label):
            raise UserError(f"label must be given with relabel, and only then, for {self.id}")
        if self.decision == "relabel" and self.label == self.given_label:
            raise UserError(f"label must differ from the given {self.label!r} of {self.id}")
        time_of(self.at)


COLUMNS = tuple(field.name for field in fields(Decision))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two people compare where both decided."""

    people: tuple[str, str]
    images: int
    equal: int
    kappa: float | None
    """Cohen's kappa; None if chance alone would make them agree on everything."""


def time_of(at: str) -> datetime:
    """The moment of a record, in UTC.

    Raises:
        UserError: it is no ISO 8601 time with a time zone.
    """
    try:
        moment = datetime.fromisoformat(at.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UserError(f"at must be a time such as 2026-01-31T12:00:00+00:00, got {at!r}")
    return moment.astimezone(timezone.utc)


def from_row(row: Mapping[str, Any]) -> Decision:
    """A record from a row of a table; absent columns are empty, and the split is train.

    Raises:
        UserError: the row is no decision.
    """
    texts = {name: "" if row.get(name) is None else str(row[name]) for name in COLUMNS}
    return Decision(**{**texts, "split": texts["split"] or "train"})


def check_known(
    record: Decision, images: Collection[tuple[str, str]], classes: Collection[str]
) -> None:
    """Find out whether a run has the image and the class of a decision.

    Args:
        record: the decision.
        images: split and id of each image of the run.
        classes: its classes.
    Raises:
        UserError: it lacks one of them.
    """
    if (record.split, record.id) not in images:
        raise UserError(
            f"the run has no image {record.id!r} in {record.split}; give decisions about the "
            "images of this run"
        )
    if record.label and record.label not in classes:
        raise UserError(f"{record.id}: the run has no class {record.label!r}")


def standing(records: Iterable[Decision]) -> dict[tuple[str, str], dict[str, Decision]]:
    """Each person's decision on each image that has one: (split, id) -> by -> decision."""
    # A set, as merged files may hold a record twice, and an undo must count once. The whole
    # record breaks ties, so that the order of the files does not matter.
    ordered = sorted(set(records), key=lambda r: (time_of(r.at), _texts(r)))
    history: dict[tuple[str, str], dict[str, list[Decision]]] = defaultdict(dict)
    for record in ordered:
        mine = history[record.split, record.id].setdefault(record.by, [])
        if record.decision != "undo":
            mine.append(record)
        elif mine:
            mine.pop()
    last = {
        image: {by: mine[-1] for by, mine in people.items() if mine}
        for image, people in history.items()
    }
    return {image: people for image, people in last.items() if people}


def final(records: Iterable[Decision]) -> dict[tuple[str, str], Decision]:
    """The decision that counts for each image: the latest one that stands."""
    return {
        image: max(people.values(), key=lambda r: (time_of(r.at), _texts(r)))
        for image, people in standing(records).items()
    }


def conflicts(records: Iterable[Decision]) -> list[tuple[str, str]]:
    """The images on which people differ, as (split, id) in order."""
    return sorted(
        image
        for image, people in standing(records).items()
        if len({_answer(record) for record in people.values()}) > 1
    )


def agreements(records: Iterable[Decision]) -> list[Agreement]:
    """How each two people agree on the images that both decided; pairs without any are left out."""
    answers: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for people in standing(records).values():
        names = sorted(people)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                pair = (_answer(people[first]), _answer(people[second]))
                answers[first, second].append(pair)
    return [
        Agreement(people, len(pairs), sum(a == b for a, b in pairs), cohens_kappa(pairs))
        for people, pairs in sorted(answers.items())
    ]


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Agreement beyond chance, (p_o - p_e) / (1 - p_e), of pairs of answers; None if p_e = 1.

    p_o is the share of equal answers, p_e the share expected if each kept its frequencies of
    answers but gave them independently.
    Source: Cohen 1960, Educational and Psychological Measurement 20(1).
    """
    n = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    by_chance = sum(first[answer] * second[answer] for answer in first)  # n^2 p_e
    if by_chance == n * n:
        return None
    equal = sum(a == b for a, b in pairs)
    return (equal * n - by_chance) / (n * n - by_chance)


def _answer(record: Decision) -> str:
    return f"relabel {record.label}" if record.decision == "relabel" else record.decision


def _texts(record: Decision) -> tuple[str, ...]:
    return tuple(getattr(record, name) for name in COLUMNS)
