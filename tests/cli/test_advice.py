"""What messages advise exists: every flag that they name is one of some command."""

import ast
import re
from pathlib import Path

import dcai_ray
from dcai_ray.cli import flags

PACKAGE = Path(dcai_ray.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*[a-z]")


def named():
    """Flags in the strings of the package, and where."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for flag in FLAG.findall(node.value):
                    yield flag, file.relative_to(PACKAGE).as_posix()


def test_every_flag_that_a_message_names_exists():
    known = {"--version"}.union(*map(flags.names, flags.COMMANDS.values()))
    found = set(named())
    assert len({flag for flag, _ in found}) > 20
    assert {(flag, file) for flag, file in found if flag not in known} == set()
