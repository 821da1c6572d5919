"""What people decided, applied to what a rule keeps: people win over every rule.

A decision holds for the label that the person saw. It says nothing about an image that has another
label now; `unsure` says nothing either.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dcai_ray.review.decision_files import read_folder
from dcai_ray.review.decisions import Decision, final
from dcai_ray.run_directory import RunDirectory


def decided(
    run: RunDirectory, labels: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], Decision]:
    """The decisions keep, drop and relabel that hold, by split and id.

    Args:
        run: the run folder.
        labels: the label that each image has now, by split and id.
    Raises:
        UserError: a file of decisions holds something else.
    """
    return {
        image: decision
        for image, decision in final(read_folder(run.decisions)).items()
        if decision.decision != "unsure" and labels.get(image) == decision.given_label
    }


def reviewed_labels(
    run: RunDirectory,
    ids: Sequence[str],
    y: NDArray[np.integer],
    kept: NDArray[np.bool_],
    classes: Sequence[str],
) -> NDArray[np.int64] | None:
    """(n,) the labels that training images are learnt with; -1 for those that are left out.

    Images that nobody decided are kept or left out as the rule says.

    Args:
        run: the run folder.
        ids: (n,) of the training images.
        y: (n,) class numbers as given.
        kept: (n,) whether the rule keeps an image.
        classes: the names of the C classes.
    Returns:
        None if people decided nothing about these images.
    Raises:
        UserError: a file of decisions holds something else.
    """
    given = {("train", name): classes[c] for name, c in zip(ids, y, strict=True)}
    found = decided(run, given)
    if not found:
        return None
    number = {name: c for c, name in enumerate(classes)}
    labels = np.where(kept, y, -1).astype(np.int64)
    for i, name in enumerate(ids):
        decision = found.get(("train", name))
        if decision is None:
            continue
        if decision.decision == "relabel":
            labels[i] = number[decision.label]
        else:
            labels[i] = y[i] if decision.decision == "keep" else -1
    return labels
