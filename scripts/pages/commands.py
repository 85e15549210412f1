"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from tsprune import cli

_SHARED = 4  # an option of so many commands, with one description, is described once
_WORDS = {str: "text", int: "whole number", float: "number", Path: "path", bool: ""}
_INTRODUCTION = """\
# Commands

This page is made from the commands, and repeats their `--help`. [Commands, models and
options](../guides/command-line.md) explains names of models, common options and exit codes.
"""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """An argument or option: its names, values, default and description, in Markdown."""

    names: str
    value: str
    default: str
    about: str

    @property
    def row(self) -> str:
        name = f"{self.names} {self.value}".rstrip()
        return f"| {name} | {self.about} {self.default}".rstrip() + " |"


def page(app: typer.Typer = cli.app) -> str:
    """Every command with its arguments and options; options that many have in common come first."""
    commands: Mapping[str, Any] = typing.cast(Any, typer.main.get_command(app)).commands
    found = {name: list(parameters(command)) for name, command in commands.items()}
    often = Counter(one for each in found.values() for one in each)
    shared = [one for one, count in often.items() if count >= _SHARED]
    parts = [_INTRODUCTION, "## Options of several commands", _table(shared)]
    for name, each in found.items():
        own = [one for one in each if one not in shared]
        others = ", ".join(one.names for one in each if one in shared)
        parts += [f"## tsprune {name}", inspect.cleandoc(commands[name].help or ""), _table(own)]
        parts += [f"Also, as above: {others}."] * bool(others)
    return "\n\n".join(part for part in parts if part) + "\n"


def parameters(command: Any) -> Iterator[Parameter]:
    """The parameters of a command, in their order."""
    signature = inspect.signature(command.callback, eval_str=True).parameters
    for one in command.params:
        yield _parameter(one, signature[one.name])


def _parameter(one: Any, declared: inspect.Parameter) -> Parameter:
    option = one.param_type_name == "option"
    flags = (*one.opts, *one.secondary_opts) if option else (one.metavar or one.name.upper(),)
    names = ", ".join(f"`{flag}`" for flag in flags)
    default = declared.default
    return Parameter(
        names, _value(one, declared.annotation) if option else "", _default(default), _text(one.help or "")
    )


def _default(default: Any) -> str:
    """What an option is where it is not given, as a sentence; nothing where its description has to tell."""
    if default is True:
        return "On by default."
    if default is None or default is False or default in ("", (), inspect.Parameter.empty):
        return ""
    return f"Default: `{default}`."


def _value(one: Any, annotation: Any) -> str:
    (kind, *_) = [part for part in _parts(_parts(annotation)[0]) if part is not type(None)]
    (item,) = _parts(kind) if typing.get_origin(kind) is list else (kind,)
    words = (one.metavar or _WORDS.get(item, "")).split("|")
    many = "; repeatable" * (item is not kind and "repeatable" not in (one.help or ""))
    if len(words) > 1:
        return ", ".join(f"`{word}`" for word in words)
    return f"*{words[0]}{many}*" if words[0] else ""


def _parts(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is not None else (kind,)


def _table(rows: Iterable[Parameter]) -> str:
    lines = [one.row for one in rows]
    return "\n".join(["| name | meaning |", "|---|---|", *lines]) if lines else ""


def _text(text: str) -> str:
    """A description in a cell: one line, without the marks of the terminal's colours."""
    return re.sub(r"\[/?(bold|dim|italic)?\]", "", " ".join(text.split())).replace("|", r"\|")
