"""The networks of a run: chosen once, checked before an image is read."""

import pytest
import yaml

from dcai_ray.cli import main
from dcai_ray.config import Config, ExtractConfig, parse_config
from dcai_ray.images.listing import Listing
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import pipeline, reading
from dcai_ray.steps.backbones import with_names_of_backbones
from dcai_ray.storage.location import Location
from tests.support import in_process

AUTO = Config(extract=ExtractConfig(size_px=32))


@pytest.fixture
def choices(monkeypatch):
    """The networks that are best at hand, in turn; gives those that were asked for."""
    asked = []

    def next_one():
        asked.append(("resnet18", "alexnet")[len(asked)])
        return asked[-1], f"features by {asked[-1]}"

    monkeypatch.setattr("dcai_ray.networks.choice.best_at_hand", next_one)
    return asked


def test_the_choice_is_said_recorded_and_kept_by_a_rerun(choices, tmp_path, capsys):
    run = RunDirectory(Location(str(tmp_path / "run")))
    first = with_names_of_backbones(run, AUTO, "extract")
    assert first.extract.backbone == "resnet18"
    assert capsys.readouterr().err == "features by resnet18\n"
    run.bind_settings({"extract": {"backbone": first.extract.backbone}})
    assert (
        with_names_of_backbones(run, AUTO, "extract").extract.backbone == "alexnet"
    )  # no work yet
    (tmp_path / "run/features").mkdir()
    assert with_names_of_backbones(run, AUTO, "extract").extract.backbone == "resnet18"
    assert len(choices) == 2


def test_nothing_is_chosen_where_a_network_is_named_or_not_used(choices, tmp_path):
    run = RunDirectory(Location(str(tmp_path / "run")))
    named = parse_config({"extract": {"backbone": "vgg11_bn"}}, "x")
    assert with_names_of_backbones(run, named, "extract") == named
    assert with_names_of_backbones(run, AUTO, "value") == AUTO
    random = parse_config({"extract": {"weights": "none"}}, "x")
    assert with_names_of_backbones(run, random, "extract").extract.backbone == "resnet18"
    of_file = parse_config({"extract": {"weights": "w.pth"}}, "x")
    with pytest.raises(ValueError, match=r"weights w\.pth: of which network\? Name it with"):
        with_names_of_backbones(run, of_file, "extract")
    assert not choices


def test_a_local_folder_is_recorded_by_its_full_path(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = {"extract": {"backbone": "hf:tiny"}, "finetune": {"backbones": ["hf:./tiny"]}}
    run = RunDirectory(Location("run"))
    found = with_names_of_backbones(run, parse_config(settings, "x"), "extract", "finetune")
    assert found.extract.backbone == f"hf:{tmp_path}/tiny"
    assert found.finetune.backbones == (f"hf:{tmp_path}/tiny",)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--backbone", "efficientnet"], 2, "unknown backbone 'efficientnet', did you mean eff"),
        (["--backbone", "torchvision:resnet51"], 2, "torchvision:resnet51; did you mean resnet50"),
        (["--backbone", "no.module:f"], 2, "unknown backbone no.module:f: cannot be imported"),
        (["--backbone", "alexnet", "--size-px", "40"], 1, "size_px must be at least 63 for alex"),
        (["--backbone", "resnet18", "--weights", "/no/file"], 1, "/no/file: no such file"),
    ],
)
def test_what_is_wrong_with_a_network_is_one_line_before_an_image_is_read(
    flags, code, message, image_folder, tmp_path, monkeypatch, capsys
):
    data = image_folder({"cat": 2, "dog": 2})
    monkeypatch.setattr(reading, "run_tasks", lambda *_: pytest.fail("an image was read"))
    assert main(["audit", str(data), "--run", str(tmp_path / "run"), *flags]) == code
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_a_wrong_name_for_both_networks_of_a_run_is_said_once(image_folder, tmp_path, capsys):
    flags = ["--data", str(image_folder({"train/a": 1})), "--run", str(tmp_path / "run")]
    assert main(["run", *flags, "--backbone", "resnet17"]) == 2
    assert capsys.readouterr().err.count("resnet17") == 1


def test_the_backbone_of_the_flag_sets_both_networks_and_auto_only_that_of_features(monkeypatch):
    configs = []
    monkeypatch.setattr(
        "dcai_ray.cli.commands._pipeline", lambda d, r, c, *_, **__: configs.append(c)
    )
    for name in ("alexnet", "auto"):
        assert main(["run", "--data", "d", "--run", "r", "--backbone", name]) == 0
    assert [c.extract.backbone for c in configs] == ["alexnet", "auto"]
    assert [c.finetune.backbones for c in configs] == [("alexnet",), ("vgg11_bn",)]


@pytest.mark.slow
def test_a_run_without_a_backbone_says_which_it_takes_and_a_rerun_computes_nothing(
    image_folder, tmp_path, monkeypatch, capsys
):
    in_process.patch(monkeypatch)
    data = image_folder({"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/dog": 2})
    run = tmp_path / "run"
    command = ["extract", "--data", str(data), "--run", str(run), "--size-px", "32"]
    assert main(command) == 0
    assert "features by efficientnet_lite2, the best network at" in capsys.readouterr().err
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["extract"]["backbone"] == "efficientnet_lite2"
    monkeypatch.setattr("dcai_ray.networks.choice.PREFERRED", ("efficientnet_lite0",))
    shards = {f: f.stat().st_mtime_ns for f in run.rglob("*.parquet")}
    assert main(command) == 0
    assert {f: f.stat().st_mtime_ns for f in run.rglob("*.parquet")} == shards
    assert "features by" not in capsys.readouterr().err


def test_every_step_that_reads_images_checks_its_networks_first(monkeypatch, tmp_path):
    checked = []
    monkeypatch.setattr(pipeline, "check_backbones", lambda c, *s: checked.append(set(s)))
    monkeypatch.setattr(pipeline, "read_images", lambda *_: pytest.fail("read before checked"))
    steps = (pipeline.run_baseline, pipeline.run_extraction, pipeline.run_retraining)
    listing = Listing(Location(str(tmp_path / "data")), (), (), ())
    config = parse_config({"extract": {"backbone": "alexnet"}}, "x")
    for number, step in enumerate(steps):
        with pytest.raises(pytest.fail.Exception, match="read before checked"):
            step(RunDirectory(Location(str(tmp_path / f"run{number}"))), listing, config)
    assert ["finetune" in s for s in checked] == [True, False, True]
    assert ["extract" in s for s in checked] == [False, True, False]
