"""Numbers that callers pass: every public function takes, or refuses, the same ones."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import tsprune
import tsprune.evaluation
import tsprune.scores
from tsprune.arguments import RULES, SEED, checked, each, number, whole
from tsprune.errors import TspruneError
from tsprune.pruning import compare, latency_evidence, tradeoff

NO_NUMBERS = [None, "1", b"1", 1j, [1], object(), float("nan"), float("inf"), True, np.True_]
WHOLE = [1, np.int64(1), np.array(1), torch.tensor(1), np.uint8(1)]


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public ones, by name."""
    modules = (tsprune, tsprune.data, tsprune.explain, tsprune.scores, tsprune.evaluation)
    for module in modules:
        for name in module.__all__:
            if inspect.isfunction(found := getattr(module, name)):
                yield f"{module.__name__}.{name}", found
    for found in (compare, latency_evidence, tradeoff):
        yield found.__name__, found


CASES = [
    pytest.param(function, name, id=f"{label}-{name}")
    for label, function in functions()
    for name, parameter in inspect.signature(function).parameters.items()
    if name != "period"  # NaN where there is none
    and any(kind in str(parameter.annotation).split(" | ") for kind in ("int", "float"))
]


@pytest.mark.parametrize(("function", "name"), CASES)
def test_numbers_are_checked_before_anything_else(function: Callable[..., Any], name: str) -> None:
    """Models and suites are not even looked at."""
    parameters = inspect.signature(function).parameters
    others = {
        other: None
        for other, one in parameters.items()
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD and other != name
    }
    for value in (-1, "1", float("nan"), 10**40 if "int" in str(parameters[name].annotation) else None):
        if value is None and "None" in str(parameters[name].annotation):
            continue
        with pytest.raises(TspruneError) as error:
            function(**others, **{name: value})
        assert len(str(error.value)) < 200


def test_sequences_of_numbers() -> None:
    assert RULES["shares"](np.array([0, 0.25, 1])) == (0.0, 0.25, 1.0)
    for value in (3, "12", None, [1.01], [-1], [float("nan")], ["0.5"]):
        with pytest.raises(TspruneError, match="shares must be"):
            RULES["shares"](value)
    assert each(iter([1, 2]), "blocks", whole) == (1, 2)


@pytest.mark.parametrize("value", WHOLE)
def test_whole_numbers_of_all_kinds(value: Any) -> None:
    assert type(RULES["seed"](value)) is int
    assert number(value, "x") == 1.0


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value).split(" at ")[0])
def test_other_things_are_no_numbers(value: Any) -> None:
    with pytest.raises(TspruneError, match="the seed must be a whole number"):
        RULES["seed"](value)
    with pytest.raises(TspruneError, match="x must be a number, not"):
        number(value, "x")


def test_limits() -> None:
    assert RULES["seed"](SEED) == SEED
    with pytest.raises(TspruneError, match=r"the seed must be at most 4,294,967,295"):
        RULES["seed"](SEED + 1)
    with pytest.raises(TspruneError, match="must be a number between 0 and 1, exclusive, not 1"):
        RULES["fraction"](1)
    with pytest.raises(TspruneError, match=r"must be a number of at least 0, not -0\.5"):
        RULES["percent"](-0.5)
    with pytest.raises(TspruneError, match="must be a number above 0, not 0"):
        RULES["minutes"](0)
    with pytest.raises(TspruneError, match="of at least 0, not"):
        RULES["percent"](10**400)


def test_checked_arguments_arrive_as_python_numbers() -> None:
    @checked
    def function(model: str, percent: float, *, seed: int = 0, minutes: float | None = None) -> Any:
        return model, percent, seed, minutes

    assert function("m", np.float32(2), seed=np.int8(3)) == ("m", 2.0, 3, None)
    assert function("m", percent=1, minutes=None) == ("m", 1.0, 0, None)
    with pytest.raises(TspruneError, match="the percentage"):
        function("m", None)  # type: ignore[arg-type]
    assert list(inspect.signature(function).parameters) == ["model", "percent", "seed", "minutes"]


def test_no_suite_or_table_has_a_name_that_is_checked_as_a_number() -> None:
    """Such an argument would be refused, whatever it was."""
    for label, function in functions():
        for name, one in inspect.signature(function).parameters.items():
            others = {"Suite", "DataFrame", "Forecaster", "Masks"} & set(
                re.findall(r"\w+", str(one.annotation))
            )
            assert not others or name not in RULES, f"{label} takes {name} as {one.annotation}"
