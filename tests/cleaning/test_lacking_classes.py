"""Classes that the clean set lacks look wrong; what is said of the others does not depend on it."""

import numpy as np
from numpy.testing import assert_array_equal

from dcai_ray.cleaning.evidence import Evidence, Probe
from dcai_ray.cleaning.planted import judge


def judged(given, y, reference, labels):
    """What is said of training images y (n,) with evidence (n,), by clean ones with (r, C)."""
    n, (r, num_classes) = len(y), reference.shape
    probe = Probe(
        margins=np.zeros((n, 1)),
        best=0,
        reference_margins=np.zeros((r, num_classes, 1)),
        reference_predictions=np.full((r, num_classes), 1 / num_classes),
        suggested=np.zeros(n, int),
        suggested_probability=np.zeros(n),
        accuracy=1.0,
        separation=0.5,
    )
    evidence = Evidence(
        names=("one",),
        given=given[:, np.newaxis],
        labels=labels,
        reference=reference[..., np.newaxis],
        probe=probe,
    )
    return judge(evidence, y)


def test_images_of_a_class_that_the_clean_set_lacks_do_not_count_as_wrong():
    rng = np.random.default_rng(0)
    # A fifth of two classes is wrong; all evidence speaks against the third, of which no image is
    # clean.
    y, labels = np.arange(900) % 3, np.arange(300) % 2
    against = np.where(y == 2, True, rng.random(900) < 0.2)
    given = rng.standard_normal(900) + np.where(against, -1.5, 1.5)
    right = labels[:, np.newaxis] == np.arange(3)
    reference = rng.standard_normal((300, 3)) + np.where(right, 1.5, -1.5)
    found = judged(given, y, reference, labels)
    known = y < 2
    alone = judged(given[known], y[known], reference, labels)
    assert found.share == alone.share
    assert found.share.low < 0.2 < found.share.high
    assert_array_equal(found.wrong_probability[known], alone.wrong_probability)
    assert found.class_shares[:2] == alone.class_shares[:2]
    assert np.isnan(found.class_shares[2].value)
    assert np.isnan([found.class_shares[2].low, found.class_shares[2].high]).all()
