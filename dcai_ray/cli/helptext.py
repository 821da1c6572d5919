"""How flags look in `--help`: one paragraph per flag, and readable types.

By itself tyro breaks a help text wherever the source breaks the string under a field, and shows
`int | None` as `{None}|INT`. Here texts are joined, and None is spelled `auto`.
"""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from itertools import pairwise
from types import GenericAlias, MappingProxyType, NoneType
from typing import Any, get_args, get_origin, get_type_hints

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

AUTO = "auto"
"""Stands for None on the command line, in fields whose default depends on something else."""

READABLE = ConstructorRegistry()
"""Active while a command's flags are parsed."""


def join_lines(command: type) -> None:
    """Give tyro the string under each field as one line, also in the sections of a command."""
    sections: list[Any] = [kind for kind in get_type_hints(command).values() if is_dataclass(kind)]
    owners = [owner for kind in (command, *sections) for owner in reversed(kind.__mro__[:-1])]
    for owner in owners:
        (definition,) = ast.parse(inspect.getsource(owner)).body
        assert isinstance(definition, ast.ClassDef)
        for entry, below in pairwise(definition.body):
            if isinstance(entry, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(entry.target, ast.Name)
                text = " ".join(ast.literal_eval(below.value).split())
                field = owner.__dataclass_fields__[entry.target.id]
                if field.type is bool:
                    text += " Its flag with no- turns that off."
                field.metadata = MappingProxyType({"help": text})


@READABLE.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`int | None` and the like."""
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    if len(kinds) != 1 or NoneType not in get_args(info.type):
        return None
    inner = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    assert isinstance(inner, PrimitiveConstructorSpec)
    absent = ([AUTO], ["None"])
    return replace(
        inner,
        instance_from_str=lambda words: None if words in absent else inner.instance_from_str(words),
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: [AUTO] if value is None else inner.str_from_instance(value),
        choices=None if inner.choices is None else (*inner.choices, AUTO, "None"),
    )


@READABLE.primitive_rule
def _options(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A dictionary of strings to scalars, as names and values in turn."""
    if get_origin(info.type) is not dict:
        return None
    alike: Any = GenericAlias(Mapping, get_args(info.type))  # a kind that this rule leaves alone
    inner = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(alike, info.markers))
    assert isinstance(inner, PrimitiveConstructorSpec)
    return replace(
        inner,
        metavar="[NAME VALUE ...]",
        str_from_instance=lambda options: inner.str_from_instance(options) or ["none"],
    )
