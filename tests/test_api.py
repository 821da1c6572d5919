"""The table of sampled values that a notebook gets."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import dcai_ray
from dcai_ray.errors import UserError
from dcai_ray.storage import schemas
from dcai_ray.valuation.stopping import MaxRounds
from tests.support import games
from tests.support.feature_sets import write_features

COSTS = [1, 2, 2, 3, 5, 8, 8, 9, 13, 20, 21, 22]


@pytest.fixture(scope="module")
def values():
    return dcai_ray.shapley_values(
        games.airport(COSTS), stop=MaxRounds(rounds=3000), ids=[f"plane <{c}>" for c in range(12)]
    )


def test_values_of_a_known_game_lie_in_their_intervals(values):
    exact = games.airport_values(COSTS)
    assert ((values.low <= exact) & (exact <= values.high)).all()
    assert_allclose(values.value, exact, rtol=0.1)
    assert (values.decision == "keep").all()
    assert len(values) == 12


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    def bits(seed):
        found = dcai_ray.shapley_values(games.airport(COSTS), stop=MaxRounds(rounds=50), seed=seed)
        return found.value.tobytes() + found.stderr.tobytes()

    assert bits(1) == bits(1)
    assert bits(1) != bits(2)


def test_numpy_gets_the_values_alone(values):
    assert np.asarray(values).tolist() == values.value.tolist()
    assert np.argsort(values).tolist() == np.argsort(values.value).tolist()
    assert np.asarray(values, dtype=np.float32).dtype == np.float32


def test_pandas_gets_a_row_a_point(values):
    table = values.to_pandas()
    assert list(table.columns) == schemas.ESTIMATES.names
    assert table.id.tolist() == list(values.ids)
    assert_allclose(table.value, values.value)
    assert (table.rounds == values.rounds).all()


def test_what_is_written_is_read_by_others(values, tmp_path):
    values.write(str(tmp_path / "values.parquet"))
    table = pd.read_parquet(tmp_path / "values.parquet")
    assert_allclose(table.stderr, values.stderr)
    assert dcai_ray.read_values(str(tmp_path / "values.parquet")).num_rows == 12


def test_it_prints_as_a_short_table_lowest_first(values):
    lines = repr(values).splitlines()
    assert lines[0].startswith("shapley values of 12 points after")
    assert "12 keep, 0 drop, 0 undecided at 95 %" in lines[0]
    assert lines[1].split()[:2] == ["plane", "<0>"]
    assert lines[6] == "  ..."
    assert len(lines) == 12
    assert "biased" not in lines[0]


def test_a_notebook_gets_markup_with_names_escaped(values):
    html = values._repr_html_()
    assert html.count("<tr>") == 1 + 5 + 1 + 5
    assert "plane &lt;0&gt;" in html
    assert "<0>" not in html


def test_checks_are_told_to_who_waits():
    seen = []
    found = dcai_ray.shapley_values(
        games.airport(COSTS), stop=MaxRounds(rounds=2000), report=seen.append
    )
    assert [progress.rounds for progress in seen] == sorted(progress.rounds for progress in seen)
    assert seen[-1].rounds == found.rounds >= 2000


def test_the_default_stops_when_points_are_decided():
    found = dcai_ray.shapley_values(games.additive(np.array([3.0, -2.0, 1.0, -1.0, 2.0])))
    assert found.decision.tolist() == ["keep", "drop", "keep", "drop", "keep"]
    assert "95 % of the points settled" in found.stop


def test_bernstein_intervals_contain_the_asymptotic_ones():
    game = games.majority(6)
    game.marginal_range = 1.0
    wide = dcai_ray.shapley_values(game, stop=MaxRounds(rounds=500), interval="bernstein")
    narrow = dcai_ray.shapley_values(game, stop=MaxRounds(rounds=500))
    assert (wide.low < narrow.low).all()
    assert (narrow.high < wide.high).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ids": ["a", "b"]}, "ids must hold one entry per point, got 2 for 5"),
        ({"labels": np.ones(4)}, "labels must hold one entry per point, got 4 for 5"),
        ({"ids": [None, 1, 2, 3, 4]}, "ids must be text, whole numbers or paths, got None"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"num_chains": True}, "num_chains must be a whole number, got True"),
        ({"num_workers": 0}, "num_workers must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_sampling(wrong, message):
    def fail(_):
        raise AssertionError("sampled")

    with pytest.raises(UserError, match=message):
        dcai_ray.shapley_values(games.Game(5, fail), **wrong)


def test_numbers_and_paths_are_names(tmp_path):
    found = dcai_ray.shapley_values(
        games.majority(3),
        stop=MaxRounds(rounds=8),
        ids=[7, tmp_path / "a.png", "b"],
        labels=np.array([0, 1, 1]),
    )
    assert found.to_pandas().id.tolist() == ["7", str(tmp_path / "a.png"), "b"]
    assert found.to_pandas().label.tolist() == ["0", "1", "1"]
    assert "a.png" in repr(found)


@pytest.mark.parametrize("wrong", ["knn-accuracy", dcai_ray.KnnAccuracy, np.ones((3, 2))])
def test_what_is_no_utility_is_refused(wrong):
    with pytest.raises(UserError, match=r"utility must be an object with num_players, .* got"):
        dcai_ray.shapley_values(wrong)


def test_features_are_found_from_the_run_from_their_folder_and_from_the_split(tmp_path):
    x, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    write_features(tmp_path / "run/features", {"train": (x, y), "val": (x + 1, y)})
    for uri in ("run", "run/features", "run/features/train"):
        assert (dcai_ray.read_features(str(tmp_path / uri)).x == x).all()
    assert (dcai_ray.read_features(str(tmp_path / "run"), "val").x == x + 1).all()


def test_an_error_of_the_utility_comes_out_as_it_is():
    def fail(_):
        raise ZeroDivisionError("no model")

    with pytest.raises(ZeroDivisionError, match="no model"):
        dcai_ray.shapley_values(games.Game(5, fail))
