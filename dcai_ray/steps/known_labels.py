"""Step 2b: what is known about the labels, kept in the run, so that another rule decides at once.

Values and evidence do not depend on the rule, but for two things: the rule `validated` also leaves
the clean images out fold by fold, and the rule `doubted` learns nothing from them.
"""

from dcai_ray.cleaning.conflicts import Conflicts
from dcai_ray.cleaning.doubts import Doubts
from dcai_ray.cleaning.evidence import Evidence, Probe
from dcai_ray.cleaning.planted import Judged
from dcai_ray.cleaning.recall import Interval
from dcai_ray.cleaning.rules import Doubted
from dcai_ray.config import RULE_SETTINGS, Config, plain
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import evidence
from dcai_ray.steps.conflicts import Copies
from dcai_ray.steps.evidence import Fold, Known, Valued, gather
from dcai_ray.steps.feature_set import FeatureSet
from dcai_ray.storage.array_trees import read_tree, write_tree
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.valuation.knn_shapley import Values

_KINDS = (Known, Valued, Values, Fold, Evidence, Probe, Copies, Conflicts, Judged, Interval, Doubts)
_MAX_BYTES = 1 << 28  # with very many classes it is larger, and quicker to compute than to read


def known_labels(
    run: RunDirectory, points: FeatureSet, config: Config, source: str, *, validate: bool
) -> Known:
    """What is known about the labels: read where it was computed before, else computed by tasks.

    Args:
        run: the run folder.
        points: the features.
        config: its sections value and resources are used.
        source: fingerprint of the features, predictions and formulas.
        validate: whether the clean images are also left out fold by fold.
    Raises:
        UserError: as `gather`.
    """
    settings = plain(config.value)
    for name in RULE_SETTINGS:
        del settings[name]
    doubted = config.value.chosen_rule == Doubted.name
    by_folds = {
        folds: new_fingerprint("known", evidence.FORMAT, settings, source, doubted, folds)
        for folds in (True, False)
    }
    wanted = [by_folds[True]] if validate else list(by_folds.values())
    found = read_tree(run.known_labels, _KINDS, wanted)
    if found is not None:
        known: Known = found["known"]
        # Cached properties of what was written, which take as long as all the rest.
        vars(known).update(judged=found["judged"], doubts=found["doubts"])
        return known
    known = gather(points, config, validate=validate)
    tree = {"known": known, "judged": known.judged, "doubts": known.doubts}
    write_tree(run.known_labels, tree, by_folds[validate], _MAX_BYTES)
    return known
