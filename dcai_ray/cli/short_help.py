"""`--help` of a command in at most 40 lines: what it does, an example, the flags used most.

All flags, with the whole of what there is to say about each, are in `--help-all`.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from dcai_ray.cli import helptext

_WIDTH, _COLUMN = 79, 26  # of a line, and where the help of a flag begins
_FEW = 3  # choices that are listed
_OFTEN = {
    "images": ("unreadable",),
    "extract": ("backbone",),
    "finetune": ("epochs",),
    "value": ("rule", "evidence", "probabilities"),
    "sample": ("stop",),
    "resources": ("num_cpus",),
}
"""Settings that people change, by section; the others are for `--help-all`."""


def short_help(command: type, name: str) -> str:
    """The help of a command.

    Args:
        command: the class of its flags.
        name: its name on the command line.
    """
    helptext.join_lines(command)
    flags = list(_flags(command))
    needed = [flag for flag, _, is_needed in flags if is_needed]
    usage = textwrap.fill(
        " ".join([f"usage: dcai-ray {name}", *needed, "[FLAGS]"]), _WIDTH, subsequent_indent="  "
    )
    about = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    about[0] = textwrap.fill(about[0], _WIDTH)
    blocks = [usage, *about, "Flags:"]
    lines = [line for flag, text, _ in flags for line in _entry(flag, text)]
    more = f"More about these, and all others: dcai-ray {name} --help-all"
    return "\n".join(["\n\n".join(blocks), *lines, "", more]) + "\n"


def _flags(command: type) -> Iterator[tuple[str, str, bool]]:
    """Each flag with its value, the first sentence of its help, and whether it must be given."""
    hints = get_type_hints(command, include_extras=True)
    for field in fields(command):
        kind = get_type_hints(command)[field.name]
        if not is_dataclass(kind):
            yield _spelled("", field, hints[field.name]), _first(field), field.default is MISSING
            continue
        flat = get_origin(hints[field.name]) is Annotated
        inner = {each.name: each for each in fields(kind)}
        types = get_type_hints(kind, include_extras=True)
        often = _OFTEN.get(field.name, tuple(inner) if field.name == "shown" else ())
        if field.name == "extract" and not flat:
            often = ()  # there, --backbone sets both backbones
        for setting in often:
            flag = _spelled("" if flat else f"{field.name}.", inner[setting], types[setting])
            yield flag, _first(inner[setting]), False


def _spelled(prefix: str, field: Field[Any], hint: Any) -> str:
    """A flag with what follows it: "--run RUN"; what is positional has no flag."""
    text = repr(hint)
    named = re.search(r"metavar='([^']+)'", text)
    if named:
        value = named[1]
    elif "bool" in text:
        value = ""
    elif 0 < len(choices := _choices(hint)) <= _FEW:
        value = "{" + ",".join(choices) + "}"
    else:
        value = field.name.rpartition("_")[2].upper()
    if "Positional" in text:
        return value
    return f"--{prefix}{field.name.replace('_', '-')} {value}".rstrip()


def _choices(hint: Any) -> list[str]:
    """The words of a Literal, wherever it stands in an annotation."""
    found: list[str] = []
    for part in get_args(hint):
        found += [part] if isinstance(part, str) else _choices(part)
    return found


def _first(field: Field[Any]) -> str:
    """The first sentence of the help of a flag."""
    text = field.metadata["help"]
    return re.split(r"(?<=[.;:]) (?=[A-Za-z])", text)[0].rstrip(";:.") + "."


def _entry(flag: str, text: str) -> list[str]:
    """A flag and its help in lines."""
    lines = textwrap.wrap(text, _WIDTH - _COLUMN)
    if len(flag) > _COLUMN - 4:
        return [f"  {flag}", *(" " * _COLUMN + line for line in lines)]
    head = f"  {flag}".ljust(_COLUMN)
    return [head + lines[0], *(" " * _COLUMN + line for line in lines[1:])]
