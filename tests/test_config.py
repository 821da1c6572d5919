import ast
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest
import yaml

from dcai_ray import config
from dcai_ray.config import Config, differences, parse_config, plain, preset, read_config


def test_an_empty_file_gives_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_config(str(tmp_path / "empty.yaml")) == Config()


def test_the_default_recipe_is_that_of_the_study():
    """Liang et al. 2022: fine-tune all layers, 15 epochs, batches of 32, SGD .001, momentum .9."""
    recipe = Config().finetune
    assert (recipe.epochs, recipe.batch_size, recipe.feature_extract) == (15, 32, False)
    assert (recipe.optimizer, recipe.learning_rate, recipe.momentum) == ("sgd", 0.001, 0.9)
    assert recipe.backbones == ("vgg11_bn",)


def test_the_preset_is_the_valuation_of_the_study():
    study = parse_config({"value": preset("study")}, "preset").value
    assert (study.k, study.metric, study.validation) == (10, "euclidean", "clean")
    assert study.class_weights == "none"
    assert study.chosen_rule == "zero"


def test_classes_weigh_alike_by_default():
    assert Config().value.class_weights == "balanced"


def test_a_file_overrides_what_it_names_and_nothing_else(tmp_path):
    text = "value: {k: 3, metric: euclidean}\nfinetune:\n  learning_rate: 3e-4\n  seeds: [7]\n"
    (tmp_path / "c.yaml").write_text(text)
    got, default = plain(read_config(str(tmp_path / "c.yaml"))), plain(Config())
    default["value"] |= {"k": 3, "metric": "euclidean"}
    default["finetune"] |= {"learning_rate": 0.0003, "seeds": [7]}
    assert got == default


def test_settings_come_back_from_yaml_as_they_were():
    settings = parse_config({"finetune": {"backbones": ["alexnet"], "crop_scale": [0.5, 1]}}, "x")
    text = yaml.safe_dump(plain(settings))
    assert parse_config(yaml.safe_load(text), "x") == settings


def test_unknown_keys_and_wrong_values_are_all_named_at_once_with_their_path(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "typo: 1\n"
        "finetune: {colour: red, learning_rate: fast, backbones: [resnet18, resnet9]}\n"
        "extract: {batch_size: 0}\n"
        "value: {metric: manhattan, k: many}\n"
    )
    with pytest.raises(ValueError, match=r"wrong\.yaml: ") as caught:
        read_config(str(file))
    message = str(caught.value)
    for problem in (
        "unknown key typo",
        "unknown key finetune.colour",
        "finetune.learning_rate: ",
        "got 'fast'",
        "finetune.backbones.1: ",
        "unknown backbone 'resnet9', did you mean resnet18 ",
        "extract.batch_size must be at least 1, got 0",
        "value.metric: input should be 'euclidean' or 'cosine', got 'manhattan'",
        "value.k: ",
        "got 'many'",
    ):
        assert problem in message
    assert message.count("; ") == 6  # seven problems, one each
    assert "\n" not in message


@pytest.mark.parametrize(
    ("section", "wrong", "message"),
    [
        ("value", {"k": 0}, "value.k must be at least 1, got 0"),
        ("value", {"drop_share": 1.0}, r"value.drop_share must lie in \(0, 1\), got 1.0"),
        ("value", {"wrong_above": 0}, r"value.wrong_above must lie in \(0, 1\), got 0"),
        ("value", {"wrong_above": 1}, r"value.wrong_above must lie in \(0, 1\), got 1"),
        (
            "value",
            {"class_weights": "equal"},
            "class_weights: input should be 'balanced' or 'none'",
        ),
        ("value", {"beta": [0, 1]}, "value.beta must be positive"),
        ("value", {"beta": [4]}, "value.beta.1: field required"),
        ("value", {"second_opinion_up_to": -1}, "second_opinion_up_to must be at least 0"),
        ("value", {"validation": "self", "rule": "validated"}, "needs a clean shapley_val"),
        ("finetune", {"epochs": 0}, "finetune.epochs must be at least 1, got 0"),
        ("finetune", {"batch_size": 0}, "finetune.batch_size must be at least 1"),
        ("finetune", {"learning_rate": 0}, "finetune.learning_rate must be positive"),
        ("finetune", {"size_px": 16}, "finetune.size_px must be at least 32, got 16"),
        ("finetune", {"crop_scale": [0.5, 1.5]}, r"finetune.crop_scale must lie in \(0, 1\]"),
        ("finetune", {"crop_scale": [0.9, 0.5]}, r"finetune.crop_scale must lie in \(0, 1\]"),
        ("finetune", {"learning_rate": float("nan")}, "learning_rate: .* finite number, got nan"),
        ("finetune", {"seeds": [0, -1]}, "finetune.seeds must be at least 0, got -1"),
        ("finetune", {"seeds": []}, "must name at least one each"),
        ("finetune", {"seeds": [1, 1]}, "must not repeat an entry"),
        ("finetune", {"num_threads": 0}, "finetune.num_threads must be at least 1"),
        ("extract", {"shard_size": 0}, "extract.shard_size must be at least 1"),
        ("extract", {"size_px": 31}, "extract.size_px must be at least 32"),
        ("extract", {"backbone": "resnet9"}, "extract.backbone: unknown backbone 'resnet9', did"),
        (
            "extract",
            {"backbone": "timm:"},
            "extract.backbone: unknown backbone 'timm:', known: res",
        ),
        ("finetune", {"backbones": ["auto"]}, "backbones.0: unknown backbone 'auto', "),
        ("retrain", {"probe_seeds": 0}, "retrain.probe_seeds must be at least 1"),
        ("images", {"unreadable": "ignore"}, "images.unreadable: input should be 'fail' or 'skip'"),
        ("resources", {"num_cpus": 0}, "resources.num_cpus must be at least 1"),
        ("resources", {"gpus_per_training": -1}, "resources.gpus_per_training must be at least 0"),
        ("images", {"split_seed": -1}, "images.split_seed must be at least 0, got -1"),
        ("resources", {"decode_threads": 0}, "resources.decode_threads must be at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused(section, wrong, message):
    with pytest.raises(ValueError, match=f"^flags: .*{message}"):
        parse_config({section: wrong}, "flags")


def test_a_secret_in_the_address_of_the_probabilities_is_refused_and_not_repeated():
    secret = {"probabilities": "s3://bucket/p.csv?secret_key=hunter2"}
    with pytest.raises(ValueError, match="must not carry credentials") as caught:
        parse_config({"value": secret}, "flags")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [["x"], "text", 3, {"value": None}, {"value": [1]}, {1: 2}])
def test_what_is_no_settings_at_all_is_refused_in_one_line(content):
    with pytest.raises(ValueError, match=r"^file: (settings|value|1): ") as caught:
        parse_config(content, "file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\t- x", "\x00"])
def test_what_is_not_yaml_is_one_line_that_names_the_file(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml: not YAML") as caught:
        read_config(str(tmp_path / "c.yaml"))
    assert "\n" not in str(caught.value)


def test_yaml_cannot_make_objects(tmp_path):
    (tmp_path / "c.yaml").write_text("value: !!python/object/apply:os.system ['touch made']\n")
    with pytest.raises(ValueError, match=r"not YAML .*python/object"):
        read_config(str(tmp_path / "c.yaml"))


def test_an_absent_file_is_an_os_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        read_config(str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize(
    ("rule", "validation", "chosen"),
    [
        (None, "clean", "validated"),
        (None, "both", "validated"),
        (None, "self", "doubted"),
        ("share", "self", "share"),
    ],
)
def test_the_default_rule_needs_no_clean_set_where_there_is_none(rule, validation, chosen):
    settings = parse_config({"value": {"rule": rule, "validation": validation}}, "x")
    assert settings.value.chosen_rule == chosen


def test_differences_name_each_differing_key_with_both_values():
    old = {"value": {"k": 10, "metric": "cosine"}, "images": {"split_seed": 0}, "data": "a"}
    new = {"value": {"k": 5, "metric": "cosine"}, "extract": {"k": 1}, "data": "b"}
    found = differences(old, new)
    assert [(each.key, each.old, each.new) for each in found] == [
        ("data", "a", "b"),
        ("value.k", 10, 5),
    ]
    assert str(found[1]) == "value.k: 10 in the run, 5 requested"
    assert differences(old, old) == []


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Config().value.k = 3  # type: ignore[misc]


def test_every_field_says_what_it_is_in_a_string_under_it():
    tree = ast.parse(Path(config.__file__).read_text())
    seen = 0
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, below in zip(owner.body, [*owner.body[1:], None], strict=True):
            named = isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.dump(field)
            if named and owner.name not in ("Config", "Difference"):
                seen += 1
                assert isinstance(below, ast.Expr), f"{owner.name}.{ast.unparse(field.target)}"
                assert ast.literal_eval(below.value).strip()
    sections = [field.default_factory for field in fields(Config)]
    assert all(is_dataclass(section) for section in sections)
    assert seen == sum(len(fields(section)) for section in sections)


def test_the_sections_that_decide_results_are_all_but_the_resources():
    assert set(config.STEPS) == {field.name for field in fields(Config)} - {"resources"}
