"""What `--help` shows, and that the flags mean what it says."""

import re
import shlex
import shutil
import subprocess
from dataclasses import MISSING, fields, is_dataclass
from typing import get_type_hints

import pytest
import tyro

from dcai_ray.cli import flags, main
from dcai_ray.cli.flags import parse
from dcai_ray.config import Config, parse_config

COMMANDS = flags.COMMANDS


def value_of(*words):
    """The section `value` of `dcai-ray value` with these flags."""
    return parse(flags.Value, ["--run", "r", *words], Config(), "value").value


@pytest.fixture
def shown(capsys, monkeypatch):
    """The help of a command, as a terminal of 100 columns shows it."""
    monkeypatch.setenv("COLUMNS", "100")

    def help_of(name):
        with pytest.raises(SystemExit) as ended:
            main([name, "--help-all"])
        assert ended.value.code == 0
        return capsys.readouterr().out

    return help_of


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_a_sentence_and_an_example_that_the_command_accepts(
    name, shown, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/laptop.yaml").touch()
    lines = shown(name).splitlines()
    sentence, example = lines[2], lines[lines.index("Example:") + 1]
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    start, command, *words = shlex.split(example)
    assert (start, command) == ("dcai-ray", name)
    assert parse(COMMANDS[name], words, Config(), name)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_flag_is_one_paragraph_of_sentences(name, shown):
    shown(name)
    hints = get_type_hints(COMMANDS[name])
    sections = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    for owner in (COMMANDS[name], *sections.values()):
        given = get_type_hints(owner, include_extras=True)
        for field in fields(owner):
            if field.name not in sections and not is_fixed(given[field.name]):
                text = field.metadata["help"]
                assert text[0].isupper(), text
                assert text.endswith("."), text
                assert "\n" not in text


def is_fixed(hint):
    return tyro.conf.Fixed in getattr(hint, "__metadata__", ())


def test_a_paragraph_of_the_source_is_one_paragraph_of_the_help(shown):
    words = " ".join(shown("value").replace("│", " ").split())
    assert "(the default without a clean set). zero: keep value > 0. chance: keep value" in words
    assert "None" not in words.replace("None is", "")


def test_a_switch_of_the_settings_can_be_set_both_ways():
    base = parse_config({"value": {"per_class": True}, "finetune": {"flip": False}}, "x")
    start = ["--data", "d", "--run", "r"]
    turned = [*start, "--value.no-per-class", "--finetune.flip"]
    as_they_were, other = (parse(flags.Run, words, base, "run") for words in (start, turned))
    assert (as_they_were.value.per_class, as_they_were.finetune.flip) == (True, False)
    assert (other.value.per_class, other.finetune.flip) == (False, True)


@pytest.mark.parametrize("word", ["auto", "None"])
def test_auto_stands_for_the_default_that_depends_on_something_else(word):
    base = parse_config({"value": {"rule": "zero"}, "resources": {"num_cpus": 2}}, "x")
    words = ["--run", "r", "--rule", word, "--num-cpus", word]
    chosen = parse(flags.Value, words, base, "value")
    assert chosen.value.rule is None
    assert chosen.resources.num_cpus is None


def test_optional_numbers_and_names_are_read_as_what_they_are():
    chosen = parse(flags.Value, ["--run", "r", "--base", "3", "--levels", "2"], Config(), "value")
    assert (chosen.sample.base, chosen.sample.levels) == (3, 2)
    assert value_of("--rule", "certain", "--method", "sample").rule == "certain"


@pytest.mark.parametrize("words", [["--rule", "best"], ["--num-cpus", "many"]])
def test_an_optional_value_out_of_its_kind_is_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as ended:
        value_of(*words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_options_of_a_utility_keep_their_types():
    words = ["C", "0.5", "max_iter", "7", "probability", "True", "kernel", "rbf", "tol", "1e-3"]
    options = value_of("--method", "sample", "--utility-options", *words).utility_options
    assert options == {"C": 0.5, "max_iter": 7, "probability": True, "kernel": "rbf", "tol": 1e-3}
    assert [type(each) for each in options.values()] == [float, int, bool, str, float]


@pytest.mark.parametrize("flag", ["--run", "--config", "--preset"])
def test_a_flag_without_its_value_is_refused_by_its_own_command(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["value", flag])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert flag in said
    assert "dcai-ray value --help" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_on_a_screen_and_names_what_must_be_given(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 79
    assert f"  dcai-ray {name} " in "\n".join(lines)  # an example
    needed = [
        f for f in fields(COMMANDS[name]) if f.default is MISSING and f.name in ("run", "data")
    ]
    assert all(f"--{field.name} " in lines[0] for field in needed)


def named_in(text):
    """The flags that a help text describes."""
    lines = [line.strip("│ ") for line in text.splitlines() if "│ " in line or "  --" in line]
    described = [re.match(r"(-h, )?--[a-z].*", line) for line in lines]
    return {flag for line in described if line for flag in re.findall(r"--[a-z][a-z.-]*", line[0])}


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_are_completed_that_the_help_describes(name, shown, capsys):
    everything = named_in(shown(name))
    assert everything <= set(flags.names(COMMANDS[name]))
    assert set(flags.names(COMMANDS[name])) - everything <= {"--help", "--help-all"}
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert named_in(capsys.readouterr().out) <= everything


@pytest.mark.parametrize("flag", ["method", "utility", "validation", "self-weight"])
def test_audit_offers_nothing_that_it_would_refuse(flag, capsys):
    with pytest.raises(SystemExit):
        main(["audit", "--help-all"])
    assert f"--value.{flag} " not in capsys.readouterr().out
    assert f"--value.{flag}" not in flags.names(COMMANDS["audit"])
    with pytest.raises(SystemExit) as end:
        main(["audit", "folder", f"--value.{flag}", "1"])
    assert end.value.code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["st"], ["status"]),
        (["audit", "--value.ru"], ["--value.rule"]),
        (["status", "--r"], ["--run"]),
        (["status", "--rule"], []),
    ],
)
def test_bash_completes_commands_and_the_flags_of_each(words, completed, capsys, tmp_path):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    line = " ".join(["dcai-ray", *words])
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; _dcai_ray; echo ${{COMPREPLY[@]}}"
    command = f"source {tmp_path}/script; {ask}"
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert said.stdout.split() == completed
