"""The code in README.md and docs/ runs, and its commands are accepted."""

import importlib
import re
import shlex
import shutil
import sys

import numpy as np
import pytest

import dcai_ray
from dcai_ray.cli.flags import parse
from dcai_ray.config import Config
from dcai_ray.steps.sampling_setup import new_utility
from tests.cli.test_flags import COMMANDS
from tests.conftest import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAME = re.compile(r"\bdcai_ray\.([A-Za-z]\w*)\(")


def blocks(document, language):
    """The fenced code of one language in a document, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


UTILITY, USE, TEST, FAST = blocks(REPOSITORY / "docs/utilities.md", "python")
COMMAND_LINES = [
    (document.name, line.split("  #")[0].strip())
    for document in DOCUMENTS
    for block in blocks(document, "sh")
    for line in block.splitlines()
    if line.startswith("dcai-ray ")
]


def points():
    """(x_train, y_train, x_val, y_val) of two classes that overlap, one label in ten wrong."""
    rng = np.random.default_rng(3)
    y_train, y_val = np.arange(20) % 2, np.arange(40) % 2
    x_train, x_val = (rng.normal(size=(len(y), 2)) + 2 * y[:, None] for y in (y_train, y_val))
    return x_train, np.where(np.arange(20) < 2, 1 - y_train, y_train), x_val, y_val


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that lays the document's module into a folder that can be imported from."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(code):
        (tmp_path / "centroids.py").write_text(code)
        monkeypatch.delitem(sys.modules, "centroids", raising=False)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("centroids", None)


def run(code, **names):
    """The names that a piece of code defines."""
    exec(code, names)
    return names


def run_tests(code):
    """Call every test of a piece of code."""
    names = run(code)
    tests = [found for name, found in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_utility_of_the_document_passes_its_own_tests(written):
    written(UTILITY)
    run_tests(TEST)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("after - before, after", "after, after"),
        ("start : t + 1", "start : t"),
        ("pairwise(orders.offsets)", "[(0, len(orders.players))]"),
        ("np.sort(coalition)", "coalition[:1]"),
    ],
)
def test_the_tests_of_the_document_find_mistakes(right, wrong, written):
    assert UTILITY.count(right) == 1
    written(UTILITY.replace(right, wrong))
    with pytest.raises((AssertionError, IndexError)):
        run_tests(TEST)


def test_the_fast_utility_passes_the_same_tests_and_has_the_same_marginals(written):
    written(UTILITY)
    fast = run(FAST)["FastCentroidAccuracy"]
    plain = importlib.import_module("centroids").CentroidAccuracy
    rng = np.random.default_rng(1)
    players = np.concatenate([rng.permutation(20) for _ in range(3)]).astype(np.int32)
    orders = dcai_ray.Orders(players, np.array([0, 20, 33, 60]), np.ones(60))
    # Multiples of 1/40; sums taken in another order could at most move a tie.
    np.testing.assert_allclose(
        fast(*points()).marginals(orders), plain(*points()).marginals(orders), atol=1e-12
    )
    written(f"{UTILITY}\n\n{FAST.replace('from centroids import CentroidAccuracy', '')}")
    run_tests(TEST.replace("CentroidAccuracy", "FastCentroidAccuracy"))
    assert fast(*points()).position_costs.shape == (20,)


def test_the_utility_is_used_as_the_document_says(written):
    written(UTILITY)
    names = dict(zip(("x_train", "y_train", "x_val", "y_val"), points(), strict=True))
    found = run(USE, **names)
    values, utility = found["values"], found["utility"]
    assert values.rounds >= 200
    # Each round's marginals sum to v(all) - v(empty) in every order that is a full permutation;
    # over all rounds the values do, within their intervals.
    total = utility.score(np.arange(20)) - utility.score(np.arange(0))
    assert values.low.sum() <= total <= values.high.sum()
    assert values.value[:2].mean() < values.value[2:].mean()  # the wrong labels


def test_the_command_line_of_the_document_makes_the_utility(written):
    written(UTILITY)
    (line,) = [line for name, line in COMMAND_LINES if name == "utilities.md"]
    chosen = parse(COMMANDS["value"], shlex.split(line)[2:], Config(), "value")
    x_train, y_train, x_val, y_val = points()
    utility = new_utility((x_train, y_train), (x_val, y_val), chosen.value, chosen.sample)
    assert type(utility).__name__ == "CentroidAccuracy"
    assert utility.score(np.arange(0)) == 0.1


@pytest.mark.parametrize(("document", "line"), COMMAND_LINES)
def test_every_command_of_the_documents_is_accepted(document, line, tmp_path, monkeypatch):
    shutil.copytree(REPOSITORY / "jobs", tmp_path / "jobs")
    monkeypatch.chdir(tmp_path)
    command, *words = shlex.split(line)[1:]
    assert parse(COMMANDS[command], words, Config(), command)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_name_of_the_package_in_the_documents_is_public(document):
    code = "\n".join(blocks(document, "python"))
    imported = re.findall(r"from dcai_ray import (.*)", code)
    named = {*NAME.findall(code), *(name.strip() for line in imported for name in line.split(","))}
    assert named <= set(dcai_ray.__all__)


def test_the_utilities_example_of_the_readme_runs():
    (block,) = [
        code for code in blocks(REPOSITORY / "README.md", "python") if "KnnAccuracy" in code
    ]
    x_train, y_train, x_val, y_val = points()
    code = block.replace("ray=True", "ray=False")
    assert code != block
    values = run(
        code, dcai_ray=dcai_ray, x_train=x_train, y_train=y_train, x_val=x_val, y_val=y_val
    )["values"]
    assert len(values) == 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_link_of_the_documents_is_there(document):
    text = document.read_text()
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", text)
    assert all((document.parent / link).exists() for link in links)
    files = re.findall(r"`((?:dcai_ray|tests|jobs|benchmarks)/[\w./]+)`", text)
    assert [name for name in files if not (REPOSITORY / name).exists()] == []


def test_the_design_names_every_folder_of_the_package():
    text = (REPOSITORY / "docs/design.md").read_text()
    package = REPOSITORY / "dcai_ray"
    folders = [path.parent.name for path in package.glob("*/__init__.py")]
    assert all(f"`{folder}/`" in text for folder in folders)


def test_the_network_of_the_document_is_one(tmp_path, monkeypatch):
    from dcai_ray.networks.backbones import check, input_pixels

    (code,) = blocks(REPOSITORY / "docs/networks.md", "python")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_networks.py").write_text(code)
    check("my_networks:small", "imagenet", None)
    assert input_pixels("my_networks:small", None).size_px == 64
    sys.modules.pop("my_networks", None)


def test_the_table_of_the_document_can_be_imported(tmp_path, monkeypatch):
    from dcai_ray.steps.feature_import import import_features
    from dcai_ray.storage.location import Location

    monkeypatch.chdir(tmp_path)
    (code,) = blocks(REPOSITORY / "docs/examples.md", "python")
    names = run(code)
    assert (names["label"] != names["wine"].target).sum() == 35
    shape = import_features(
        Location("wine.csv"), None, Location("features/train"), "imported", standardize=True
    )
    assert shape == (178, 13)


@pytest.mark.usefixtures("ray_cluster")
def test_the_notebook_runs_from_top_to_bottom():
    names = {}
    for code in blocks(REPOSITORY / "docs/notebooks.md", "python"):
        exec(code, names)
    assert names["precision"] >= 0.9
    assert names["cleaned"] > names["dirty"] + 0.1
    assert names["values"].shape == (800,)
    assert names["decided"].mean() > 0.1


def test_every_public_name_is_in_the_reference():
    text = (REPOSITORY / "docs/api.md").read_text()
    missing = [name for name in dcai_ray.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == ["__version__"]


def test_every_document_is_in_the_navigation_of_the_site():
    text = (REPOSITORY / "mkdocs.yml").read_text()
    documents = {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    assert documents == set(re.findall(r"[\w]+\.md", text))
