"""Tiers of suspects, against cases worked out by hand."""

import numpy as np
import pytest

from dcai_ray.cleaning.planted import Judged
from dcai_ray.cleaning.recall import Interval
from dcai_ray.cleaning.tiers import likely_above, tiers

ALL, NOBODY = np.ones(6), np.zeros(6, dtype=bool)


def found(value, error, *, votes=ALL, flagged=NOBODY, wrong=None, cut=np.inf):
    n = len(value)
    return tiers(
        value=np.array(value, float),
        error=np.array(error, float),
        vote_against=np.asarray(votes, float)[:n],
        flagged=np.asarray(flagged)[:n],
        wrong_probability=None if wrong is None else np.array(wrong, float),
        likely_above=cut,
    ).tolist()


def test_by_value_a_suspect_lies_below_zero_by_more_than_its_error():
    assert found([-3, -1.1, -1, 0, 1], [1] * 5) == ["likely", "likely", "", "", ""]


def test_by_value_a_suspect_is_likely_if_the_vote_is_strong_and_none_if_it_is_for_its_label():
    votes = [0.8, 0.79, 0.2, 0]
    assert found([-9] * 4, [1] * 4, votes=votes) == ["likely", "possible", "possible", ""]


def test_a_value_of_unknown_error_is_no_evidence():
    assert found([-3, -3], [np.nan, np.nan], flagged=[False, True]) == ["", "look"]


def test_what_is_flagged_is_looked_at_whatever_its_evidence():
    assert found([1, -3], [1, 1], flagged=[True, True]) == ["look", "likely"]


def test_with_probabilities_values_do_not_count():
    wrong = [0.95, 0.85, 0.6, 0.4, 0.4, np.nan]
    flagged = [False, False, False, True, False, True]
    assert found([-9] * 6, [1] * 6, wrong=wrong, cut=0.9, flagged=flagged) == [
        "likely", "possible", "possible", "look", "", "look"
    ]  # fmt: skip


def judged(right, wrong, *, share, count=100):
    """`count` reference images of two classes, whose right and wrong labels have these P(wrong)."""
    labels = np.arange(count) % 2
    probability = np.empty((count, 2))
    probability[np.arange(count), labels] = right
    probability[np.arange(count), 1 - labels] = wrong
    rows = np.where(np.arange(2) == labels[:, np.newaxis], 0.7, 0.3)
    nothing = np.empty(0)
    return Judged(
        wrong_probability=nothing,
        odds=nothing,
        share=Interval(share, share, share),
        class_shares=(),
        weights=rows,
        reference_probability=probability,
        reference_odds=nothing,
        reference_errors=0.0,
    ), labels


def test_what_planted_errors_tell_apart_is_likely_from_four_in_five_on():
    # Recall 1 and no false alarm among 100: by Wilson at least .963 and at most .037.
    assert likely_above(*judged(0.1, 0.95, share=0.3)) == 0.8


def test_rare_errors_are_not_likely_where_few_clean_images_bound_the_false_alarms():
    # .963 s against .037 (1 - s): more often wrong than right from s = .037 on.
    assert likely_above(*judged(0.1, 0.95, share=0.045)) == 0.8
    assert likely_above(*judged(0.1, 0.95, share=0.030)) == np.inf


def test_the_cut_lies_above_the_right_labels_that_look_wrong():
    right = np.where(np.arange(100) < 40, 0.85, 0.1)  # 40 % of false alarms up to .85
    cut = likely_above(*judged(right, 0.95, share=0.2))
    assert 0.85 < cut <= 0.95


def test_nothing_is_likely_where_planted_errors_are_not_caught():
    assert likely_above(*judged(0.1, 0.3, share=0.3)) == np.inf


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_at_the_ends_have_an_answer(share):
    assert likely_above(*judged(0.1, 0.95, share=share)) == (0.8 if share else np.inf)
