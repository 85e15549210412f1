"""Every numeric option of every command: what is no such number is one line, before any work."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import typing
from typing import Any

import pytest
from typer.models import ArgumentInfo

from tsprune import cli

HUGE = str(10**30)
NEVER = (
    "text",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1e400",
    HUGE,
    "-1",
    "",
    "0x10",
    "9" * 5000,
    "1 2",
    "\x1b[31m",
)
# numbers that a whole one cannot be
FRACTIONS = ("0.5", "1e3")
# of the commands' own arguments: nothing that is there, so that a run ends where an option was accepted
POSITIONAL = "no/such/model"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """Of a command: its name on the command line, the types it takes, whether it must be given."""

    command: str
    name: str
    types: frozenset[type]
    required: bool

    @property
    def argument(self) -> bool:
        return not self.name.startswith("-")


@functools.cache
def _parameters() -> list[Parameter]:
    """Of every command that is registered, from the annotations of its function."""
    found = []
    for command in cli.app.registered_commands:
        assert command.callback is not None
        hints = typing.get_type_hints(command.callback, include_extras=True)
        for name, parameter in inspect.signature(command.callback).parameters.items():
            value, info = typing.get_args(hints[name])
            dashed = name.replace("_", "-")
            # Typer keeps the first name in an annotation as the default
            names = [str(info.default), *(info.param_decls or ())]
            words = [word for word in names if word.startswith("--")] or [f"--{dashed}"]
            label = dashed if isinstance(info, ArgumentInfo) else words[0]
            found.append(
                Parameter(str(command.name), label, _types(value), parameter.default is parameter.empty)
            )
    return found


def _types(annotation: Any) -> frozenset[type]:
    """int, str, ... of `int | None`, `list[str]` and the like."""
    inner = typing.get_args(annotation)
    return frozenset().union(*map(_types, inner)) if inner else frozenset([annotation])


def _numeric() -> list[Parameter]:
    return [p for p in _parameters() if p.types & {int, float} and bool not in p.types]


def _others(one: Parameter) -> list[str]:
    """All arguments and required options of a command, beside one of its options.

    `prune` needs a folder unless it only says what it would cost.
    """
    given: list[str] = ["--dry-run"] if one.command == "prune" and one.name != "--dry-run" else []
    for other in _parameters():
        if other.command == one.command and (other.required or other.argument) and other != one:
            given += [POSITIONAL] if other.argument else [other.name, POSITIONAL]
    return given


def _refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["tsprune", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capfd.readouterr()
    assert stop.value.code == 2, arguments
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.err[:-1].isprintable()
    return captured.err


def test_the_commands_have_numbers() -> None:
    """The walk below finds what there is: it would pass for want of options, too."""
    found = {(one.command, one.name) for one in _numeric()}
    assert len(found) >= 35
    assert {("sweep", "--memory"), ("latency", "--context"), ("recover", "--minutes")} <= found


@pytest.mark.parametrize("one", _numeric(), ids=lambda one: f"{one.command} {one.name}")
def test_no_such_number(
    one: Parameter, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for value in NEVER + (FRACTIONS if int in one.types else ()):
        said = _refused([one.command, *_others(one), f"{one.name}={value}"], monkeypatch, capfd)
        assert one.name in said, (value, said)
        assert len(said) < 1100


@pytest.mark.parametrize("one", _numeric(), ids=lambda one: f"{one.command} {one.name}")
def test_zero_is_taken_or_refused(
    one: Parameter, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where zero is a number that the option takes, the model that is not there is what is wrong."""
    said = _refused([one.command, *_others(one), f"{one.name}=0"], monkeypatch, capfd)
    assert (one.name in said) or (POSITIONAL in said) or "nothing to verify" in said or "name what to" in said
