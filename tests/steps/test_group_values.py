"""`dcai-ray value --players`: groups of images as players."""

import csv

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from dcai_ray import Grouped, KnnAccuracy, LeastSquares, Refit, UserError
from dcai_ray.cli import main
from dcai_ray.config import parse_config
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.exact_values import compute_values
from dcai_ray.steps.group_values import read_players, value_groups
from dcai_ray.storage.location import Location
from dcai_ray.valuation.semivalues import (
    by_enumeration,
    from_scores,
    scores_along,
    size_weights,
    symmetric_chains,
)
from tests.support import in_process
from tests.support.feature_sets import write_features
from tests.support.page_scripts import foreign_scripts
from tests.support.small_runs import done, files

N, M = 90, 36


def points(count, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = np.float32(rng.standard_normal((count, 4)) + 2 * y[:, np.newaxis])
    return x, np.where(rng.random(count) < 0.2, (y + 1) % 3, y) if seed == 0 else y


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    splits = {"train": points(N, 0), "shapley_val": points(M, 1)}
    return write_features(tmp_path_factory.mktemp("features"), splits)


def ids():
    return [f"class{label}/{i:03d}" for i, label in enumerate(points(N, 0)[1])]


def write_groups(file, groups, names=None, head=("id", "group")):
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        writer.writerows(zip(ids() if names is None else names, groups, strict=True))
    return file


def by_fives(count=5):
    return [f"g{i % count:02d}" for i in range(N)]


@pytest.fixture
def valued(features, tmp_path, monkeypatch):
    """A function: the table of groups under some settings."""
    in_process.patch(monkeypatch)
    run = RunDirectory(Location(str(tmp_path / "run")), Location(str(features)))

    def value(file, **settings):
        config = parse_config({"value": {"k": 5, "rule": "zero", **settings}}, "test")
        players = read_players(run, config, Location(str(file)))
        compute_values(run, parse_config({"value": {"k": 5, "rule": "zero"}}, "test"))
        value_groups(run, config, players)
        return pd.read_parquet(run.group_values.uri).set_index("group").sort_index()

    return value


UTILITIES = {
    "knn-accuracy": lambda *p: KnnAccuracy(*p, k=5, class_weights="balanced"),
    "least-squares": LeastSquares,
    "sklearn.naive_bayes.GaussianNB": lambda *p: Refit(naive_bayes(), *p),
}


def naive_bayes():
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB()


@pytest.mark.parametrize("semivalue", ["shapley", "banzhaf"])
@pytest.mark.parametrize("utility", UTILITIES)
def test_values_are_those_of_all_coalitions_of_groups(valued, tmp_path, utility, semivalue):
    groups = by_fives()
    method = "exact" if utility == "knn-accuracy" else "sample"
    file = write_groups(tmp_path / "groups.csv", groups)
    table = valued(file, utility=utility, method=method, semivalue=semivalue)
    game = Grouped(UTILITIES[utility](*points(N, 0), *points(M, 1)), groups)
    expected = by_enumeration(game, size_weights(semivalue, 5))
    assert table.index.tolist() == ["g00", "g01", "g02", "g03", "g04"]
    assert_allclose(table.value, expected, atol=1e-12)
    assert_allclose(table.value_per_image, expected / 18, atol=1e-12)
    assert table.images.eq(18).all()
    assert table.stderr.eq(0).all()
    assert table.low.eq(table.value).all()


def test_the_share_of_wrong_labels_is_told_beside(valued, tmp_path):
    wrong = points(N, 0)[1] != np.arange(N) % 3
    groups = np.where(wrong, "hasty", np.where(np.arange(N) % 2, "odd", "even"))
    table = valued(write_groups(tmp_path / "groups.csv", groups))
    values = pd.read_parquet(tmp_path / "run/values/values.parquet").set_index("id")
    chance = values.wrong_probability.loc[ids()].groupby(groups).mean()
    assert_allclose(table.wrong_share, chance, atol=1e-12)
    assert table.value.idxmin() == "hasty"
    assert table.wrong_share.hasty > 10 * table.wrong_share.odd


def test_paths_of_images_name_them_too(valued, tmp_path):
    names = [f"train/{name}" for name in ids()]
    by_path = write_groups(tmp_path / "paths.csv", by_fives(), names, head=("path", "group"))
    by_id = valued(write_groups(tmp_path / "ids.csv", by_fives()))
    pd.testing.assert_frame_equal(valued(by_path), by_id)


def test_the_same_again_changes_no_file(valued, tmp_path):
    file = write_groups(tmp_path / "groups.csv", by_fives())
    valued(file)
    before = files(tmp_path / "run")
    valued(file)
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("groups", "head", "message"),
    [
        (by_fives(), ("id", "source"), "needs the columns id and group, has id, source"),
        (
            ["", *by_fives()[1:]],
            ("id", "group"),
            "1 of 90 training images have no group",
        ),
        (["a"] * N, ("id", "group"), "all training images are of one group, 'a'"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line(valued, tmp_path, groups, head, message):
    file = write_groups(tmp_path / "groups.csv", groups, head=head)
    with pytest.raises(UserError, match=message):
        valued(file)


def test_an_image_that_is_named_twice_is_refused(valued, tmp_path):
    names = [ids()[1], *ids()[1:]]
    with pytest.raises(UserError, match="1 images are named more than once"):
        valued(write_groups(tmp_path / "groups.csv", by_fives(), names))


def test_what_is_not_defined_for_groups_says_what_is(valued, tmp_path):
    file = write_groups(tmp_path / "groups.csv", by_fives())
    with pytest.raises(UserError, match="knn-brier is not defined for groups; use knn or"):
        valued(file, utility="knn-brier")


@pytest.mark.ray
def test_more_groups_are_sampled_and_shown_in_the_report(features, tmp_path, ray_cluster, capsys):
    groups = [f"<b>&{i % 16}" for i in range(N)]
    file = write_groups(tmp_path / "groups.csv", groups)
    run = tmp_path / "run"
    arguments = (
        *("value", "--features", features, "--run", run, "--k", 5, "--utility", "knn-accuracy"),
        *("--rule", "zero", "--players", file, "--stop", "rounds", "--rounds", 2000),
    )
    done(*arguments)
    said = capsys.readouterr()
    assert "16 groups, in" in said.err
    table = pd.read_parquet(run / "values/groups.parquet").set_index("group").sort_index()
    game = Grouped(KnnAccuracy(*points(N, 0), *points(M, 1), k=5, class_weights="balanced"), groups)
    numbers, scores = scores_along(game, symmetric_chains(16))
    by_number = np.empty(1 << 16)
    by_number[numbers] = scores
    exact = from_scores(by_number, size_weights("shapley", 16))
    assert table.index.tolist() == game.groups.tolist()
    assert ((table.low <= exact) & (exact <= table.high)).mean() >= 0.9
    assert_allclose(table.value, exact, atol=5 * table.stderr.max())
    assert (table.rounds >= 2000).all()
    page = (run / "report.html").read_text()
    assert "What groups are worth" in page
    assert "&lt;b&gt;&amp;1" in page
    assert foreign_scripts(page) == []
    before = files(run)
    done(*arguments)
    assert files(run) == before


def test_the_command_refuses_a_file_that_is_not_there(features, tmp_path, capsys):
    arguments = ["value", "--features", features, "--run", tmp_path / "run", "--players", "no.csv"]
    assert main([str(word) for word in arguments]) == 1
    assert "no.csv" in capsys.readouterr().err
    assert not (tmp_path / "run/values").exists()  # before any work
