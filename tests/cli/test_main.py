"""A user's mistakes: exit code 1, one clear line that names the file or value, nothing lost.

A bug has exit code 1 too, but keeps its traceback.
"""

import errno
import os
import pickle
import re
import shlex
import signal

import numpy as np
import pytest
import yaml
from sklearn.base import BaseEstimator, ClassifierMixin

from dcai_ray.cli import commands, flags, main
from dcai_ray.cli.main import _COMMANDS
from dcai_ray.config import Config
from dcai_ray.errors import UserError
from dcai_ray.steps import pipeline, sampled_values
from dcai_ray.storage import parquet
from dcai_ray.storage.features import read_split, write_split
from dcai_ray.storage.location import Location
from tests.support.small_runs import files

GOOD = {f"{split}/{c}": 2 for split in ("train", "shapley_val", "val") for c in ("cat", "dog")}


def refused(capsys, *arguments) -> str:
    """The one line with which a command is refused."""
    assert main([str(argument) for argument in arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "Traceback" in line] == []
    assert lines[-1].startswith("dcai-ray: ")
    return lines[-1].removeprefix("dcai-ray: ")


def write_features(folder, split, *, d=3, backbone="resnet18", labels=("a", "b"), x=None):
    x = np.eye(len(labels), d, dtype=np.float32) if x is None else np.float32(x)
    ids = [f"{label}/{i}" for i, label in enumerate(labels)]
    write_split(Location(str(folder)) / split, ids, labels, x, {"backbone": backbone}, "made")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_names_every_command(arguments, capsys):
    assert main(arguments) == 0
    said = capsys.readouterr().out
    for command in ("demo", "run", "audit", "finetune", "extract", "value", "retrain", "report"):
        assert f"  {command} " in said


def test_alone_it_shows_three_commands_that_work_as_they_stand(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("  dcai-ray ")]
    assert [name for name, *_ in examples] == ["audit", "run", "review"]
    for name, *words in examples:
        assert flags.parse(flags.COMMANDS[name], words, Config(), name)


def test_every_command_has_its_flags():
    assert list(flags.COMMANDS) == list(_COMMANDS)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("statsu", "did you mean status?"),
        ("retain", "did you mean retrain?"),
        ("zzz", "choose from demo, run"),
    ],
)
def test_an_unknown_command_is_wrong_usage(name, meant, capsys):
    assert main([name]) == 2
    assert f"unknown command '{name}'; {meant}" in capsys.readouterr().err


def test_a_run_may_be_named_without_its_flag(tmp_path, capsys):
    said = [
        refused(capsys, *words, tmp_path / "none") for words in (["status"], ["status", "--run"])
    ]
    assert said[0] == said[1] == f"{tmp_path}/none: not a run folder (no config.yaml)"


@pytest.mark.parametrize(
    "flags", [["--k", "many"], ["--metric", "manhattan"], ["--kk", "3"], ["--rule", "best"]]
)
def test_a_wrong_flag_or_value_is_wrong_usage(flags, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["value", "--run", str(tmp_path / "run"), *flags])
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("counts", "folders", "message"),
    [
        ({}, [], "no such folder"),
        ({}, ["train", "val"], "no classes; expected one folder per class with images in it"),
        ({"train/cat": 2, "val/cat": 2}, [], "only one class (cat); at least two are needed"),
        (GOOD, ["train/cow"], "no image in class cow; add images or remove the folder"),
        ({**GOOD, "val/cow": 1}, [], "class cow does not occur in train"),
        ({"cat": 2, "dog": 2}, [], "no folder train; expected train, val"),
    ],
)
def test_folders_that_are_no_data_are_refused(
    counts, folders, message, image_folder, tmp_path, capsys
):
    for folder in folders:
        (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
    if counts:
        image_folder(counts)
    line = refused(capsys, "run", "--data", tmp_path / "data", "--run", tmp_path / "run")
    assert line.startswith(str(tmp_path / "data"))
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"value": {"kk": 3}}, "unknown key value.kk"),
        ({"value": {"k": 0}}, "value.k must be at least 1, got 0"),
        ({"vaule": {}}, "unknown key vaule"),
        ({"extract": {"backbone": "resnet19"}}, "extract.backbone"),
        ("- 1\n- 2: [", "not YAML"),
        ("value: {k: 2024-99-99}", "not YAML"),
        ("value: {k: !!bool x}", "not YAML"),
        ("[" * 3000, "not YAML"),
    ],
)
def test_a_wrong_config_is_refused_with_its_key(content, message, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    line = refused(capsys, "value", "--run", tmp_path / "run", "--config", file)
    assert line.startswith(str(file))
    assert message in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 4}, "train and shapley_val must have the same width, got 3 and 4"),
        ({"backbone": "alexnet"}, "must have the same backbone, got resnet18 and alexnet"),
        ({"labels": ("a", "z")}, "shapley_val: class z does not occur in train"),
        ({"x": [[0, np.nan, 0], [0, 0, 1]]}, "NaN or infinite"),
        ({"x": [[0, np.inf, 0], [0, 0, 1]]}, "NaN or infinite"),
    ],
)
def test_features_that_do_not_fit_are_refused_and_stay(change, message, tmp_path, capsys):
    write_features(tmp_path / "features", "shapley_val", **change)
    write_features(tmp_path / "features", "train")
    before = files(tmp_path / "features")
    line = refused(capsys, "value", "--run", tmp_path / "run", "--features", tmp_path / "features")
    assert message in line
    assert files(tmp_path / "features") == before
    assert not (tmp_path / "run/values").exists()


def written(folder):
    """Features with which a run can be valued."""
    for split in ("train", "shapley_val"):
        write_features(folder, split, labels=("a", "b", "a", "b"), d=4)
    return folder


def failing(error):
    """A function that raises, whatever it is given."""

    def fail(*arguments, **options):
        raise error

    return fail


def broadcast(*arguments, **options):
    """A mistake of ours, over which NumPy raises a ValueError."""
    return np.zeros(3) + np.zeros(4)


def test_numpys_own_value_error_inside_a_step_is_a_bug_with_its_traceback(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(pipeline, "compute_values", broadcast)
    run, features = tmp_path / "run", written(tmp_path / "features")
    assert main(["value", "--run", str(run), "--features", str(features)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert any("in broadcast" in line for line in lines)
    assert lines[-2].startswith("ValueError: operands could not be broadcast")
    assert lines[-1].startswith("dcai-ray: this is a bug")
    assert lines[-1].endswith(f"which is in {run}/run.log too")
    log = (run / "run.log").read_text()
    assert "in broadcast" in log
    assert "operands could not be broadcast" in log


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EPIPE + 1, "of no file"),
        KeyError("kept"),
        pickle.UnpicklingError("?"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_before_there_is_a_run_has_its_traceback_and_names_no_log(
    error, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(commands, "list_run", failing(error))
    assert main(["run", "--data", str(tmp_path), "--run", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "Traceback (most recent call last):" in said
    assert said.splitlines()[-1].endswith("with the traceback above")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("value.k must be at least 1, got 0"), "value.k must be at least 1, got 0"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (UserError("a\x1b]0;b\a"), "a\\x1b]0;b\\x07"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, line, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "list_run", failing(error))
    assert refused(capsys, "run", "--data", tmp_path, "--run", tmp_path / "run") == line


def test_debug_shows_the_traceback_of_a_users_mistake_too(tmp_path, capsys):
    arguments = ["status", "--run", str(tmp_path / "nowhere"), "--debug"]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == f"dcai-ray: {tmp_path / 'nowhere'}: not a run folder (no config.yaml)"


def test_debug_and_quiet_together_are_wrong_usage(tmp_path, capsys):
    assert main(["status", "--run", str(tmp_path), "--debug", "--quiet"]) == 2
    assert "--debug and --quiet exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_every_command_knows_debug_and_quiet(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--debug" in said
    assert "--quiet" in said


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "dcai-ray: interrupted; "),
        (signal.SIGTERM, 143, "dcai-ray: stopped; "),
    ],
)
def test_an_interrupted_command_says_so_in_one_line(
    number, code, line, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(commands, "list_run", lambda *_, **__: signal.raise_signal(number))
    assert main(["run", "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--quiet"]) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(line)


class FailingModel(ClassifierMixin, BaseEstimator):
    """Cannot be fitted on more than `limit` points."""

    def __init__(self, limit=0):
        self.limit = limit

    def fit(self, x, y):
        if len(x) > self.limit:
            raise FloatingPointError("no margin\nadvice in more lines")
        self.classes_, self.most_ = np.unique(y), y[0]
        return self

    def predict(self, x):
        return np.full(len(x), self.most_)


@pytest.mark.parametrize(
    ("limit", "flags"),
    [(0, ()), (0, ("--truncation", "0.1")), (3, ("--truncation", "0.1"))],
    ids=["in the pilot", "while it is made", "on all points"],
)
def test_a_model_that_fails_is_told_alike_wherever_it_does(limit, flags, tmp_path, capsys):
    line = refused(
        capsys, "value", "--run", tmp_path / "run", "--features", written(tmp_path / "features"),
        "--method", "sample", "--rule", "zero", "--utility", f"{__name__}.FailingModel",
        "--utility-options", "limit", limit, *flags,
    )  # fmt: skip
    found = re.fullmatch(
        r"FailingModel failed on a coalition of (\d) points \((.*)\): no margin", line
    )
    assert found
    assert int(found[1]) == len(found[2].split(","))


def test_a_bug_in_the_code_of_a_utility_keeps_its_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sampled_values, "new_utility", broadcast)
    assert main([
        "value", "--run", str(tmp_path / "run"), "--features", str(written(tmp_path / "features")),
        "--method", "sample", "--rule", "zero",
    ]) == 1  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert any("in broadcast" in line for line in lines)
    assert lines[-1].startswith("dcai-ray: this is a bug")


def test_a_path_that_no_file_system_takes_is_refused_in_one_line(tmp_path, capsys):
    line = refused(capsys, "status", "--run", tmp_path / ("a" * 300))
    assert line == f"{tmp_path / ('a' * 300)}/config.yaml: {os.strerror(errno.ENAMETOOLONG)}"
    line = refused(capsys, "status", "--run", os.fsdecode(b"caf\xe9"))
    assert "the name is not UTF-8" in line


def test_a_run_of_other_settings_is_refused_with_the_keys(tmp_path, capsys):
    run = tmp_path / "run"
    (run / "values").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"value": {"k": 5, "metric": "cosine"}}))
    before = files(run)
    line = refused(capsys, "value", "--run", run, "--k", "7")
    assert "made with other settings (value.k: 5 in the run, 7 requested)" in line
    assert "use another --run" in line
    assert files(run) == before


class _Import:
    def __reduce__(self):
        return print, ("must not be called",)


def test_a_pickle_that_wants_to_import_is_refused(tmp_path, capsys):
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps({"feature": _Import()}))
    assert main(["import-features", str(file), "--split", "train", "--features", "f"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"dcai-ray: {file}: refused, only NumPy arrays")


def test_an_output_that_cannot_be_written_is_named(image_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    line = refused(capsys, "run", "--data", image_folder(GOOD), "--run", tmp_path / "file/run")
    assert str(tmp_path / "file") in line


def test_a_run_that_is_not_there_is_named(tmp_path, capsys):
    for command in ("report", "status"):
        line = refused(capsys, command, "--run", tmp_path / "nowhere")
        assert line == f"{tmp_path / 'nowhere'}: not a run folder (no config.yaml)"


@pytest.mark.ray
def test_unreadable_images_are_all_listed_or_skipped_and_recorded(
    image_folder, tmp_path, capsys, ray_cluster
):
    data = image_folder({name: count + 2 for name, count in GOOD.items()}, size_px=40)
    spoiled = {"cat/000.png": b"", "cat/001.png": b"no image", "dog/000.png": None}
    for name, content in spoiled.items():
        file = data / "train" / name
        file.write_bytes(file.read_bytes()[:60] if content is None else content)
    config = tmp_path / "small.yaml"
    small = {"backbone": "resnet18", "weights": "none", "size_px": 32}
    config.write_text(yaml.safe_dump({"extract": small}))
    command = ["extract", "--data", data, "--run", tmp_path / "run", "--config", config]
    assert main([str(word) for word in command]) == 1
    said = capsys.readouterr().err
    assert "3 unreadable images; repair or remove them" in said
    assert all(f"{data}/train/{name}: " in said for name in spoiled)
    assert main([str(word) for word in [*command, "--unreadable", "skip"]]) == 0
    skipped = parquet.read_table(Location(str(tmp_path / "run/skipped.parquet")))
    assert skipped["id"].to_pylist() == list(spoiled)
    assert read_split(Location(str(tmp_path / "run/features/train"))).x.shape[0] == 5
