"""Checking numbers that callers pass: one rule and one wording for every argument of a name (`RULES`)."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from tsprune.errors import TspruneError

_SHOWN = 40  # characters of a refused value that an error repeats
SEED = 2**32 - 1  # the largest that every generator takes
SAMPLES = 2**16  # of a window
COUNT = 1_000_000  # of what takes time or memory, one by one
UNLIMITED = 2**63 - 1
BELOW_1 = math.nextafter(1, 0)

Rule = Callable[[Any], Any]
Given = ParamSpec("Given")
Returned = TypeVar("Returned")
Each = TypeVar("Each")


def shown(value: object) -> str:
    """A refused value for an error line: short, on one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number too long to print, or a class that cannot
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def shape_of(value: object) -> tuple[int, ...] | None:
    """The shape of an array of any package; None for other objects."""
    try:
        return tuple(value.shape)  # type: ignore[attr-defined]
    except Exception:  # nested tensors, among others, raise
        return None


def whole(value: object, name: str, *, least: int = 1, most: int | None = None) -> int:
    """`value` as an int between `least` and `most`.

    Integers of any kind (Python's, NumPy's, a tensor of one integer) are taken; floats, booleans and text
    are not.

    name : of the argument, as the error calls it

    Raises TspruneError.

    >>> whole(3, "the batch size")
    3
    """
    limits = f"at least {least}" if most is None else f"between {least} and {most:,}"
    try:
        number = None if _boolean(value) or shape_of(value) else operator.index(value)  # type: ignore[arg-type]
    except Exception:  # whatever a foreign class raises
        number = None
    if number is None:
        raise TspruneError(f"{name} must be a whole number, {limits}, not {shown(value)}")
    if number < least:
        raise TspruneError(f"{name} must be at least {least}, not {shown(number)}")
    if most is not None and number > most:
        raise TspruneError(f"{name} must be at most {most:,}, not {shown(number)}")
    return number


def _boolean(value: object) -> bool:
    """Also of NumPy and torch, neither of which is imported here."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def number(
    value: object, name: str, *, least: float = -math.inf, most: float = math.inf, open_ends: bool = False
) -> float:
    """`value` as a finite float between `least` and `most`; with `open_ends` neither of the two.

    Integers and floats of any kind are taken; booleans and text are not.

    Raises TspruneError.

    >>> number(1, "the share", least=0, most=1)
    1.0
    """
    try:
        real = not (isinstance(value, str | bytes) or _boolean(value) or shape_of(value))
        found = float(value) if real else math.nan  # type: ignore[arg-type]
    except Exception:  # whatever a foreign class raises
        found = math.nan
    inside = least < found < most if open_ends else least <= found <= most
    if not (math.isfinite(found) and inside):
        raise TspruneError(f"{name} must be a number{_range(least, most, open_ends)}, not {shown(value)}")
    return found


def _range(least: float, most: float, open_ends: bool) -> str:
    if math.isinf(least):
        return ""
    if math.isinf(most):
        return f" above {least:g}" if open_ends else f" of at least {least:g}"
    return f" between {least:g} and {most:g}{', exclusive' if open_ends else ''}"


def each(values: object, name: str, rule: Callable[[object, str], Each]) -> tuple[Each, ...]:
    """`values` as a tuple, each checked by `rule`; TspruneError if they are not a sequence."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TspruneError(f"{name} must be a list of numbers, not {shown(values)}")
    return tuple(rule(value, f"each of {name}") for value in values)


def _whole(name: str, least: int = 1, most: int = UNLIMITED) -> Rule:
    return lambda value: whole(value, name, least=least, most=most)


def _number(name: str, least: float = -math.inf, most: float = math.inf, *, open_ends: bool = False) -> Rule:
    return lambda value: number(value, name, least=least, most=most, open_ends=open_ends)


def _each(name: str, least: int = 1, most: int = COUNT) -> Rule:
    return lambda values: each(values, name, functools.partial(whole, least=least, most=most))


# an argument of one of these names means the same in every public function
RULES: dict[str, Rule] = {
    "seed": _whole("the seed", 0, SEED),
    "samples": _whole("the number of samples", 1, SAMPLES),
    "batch_size": _whole("batch_size"),
    "context_length": _whole("the context length"),
    "memory": _whole("memory for replay", 0),
    "jobs": _whole("jobs"),
    "threads": _whole("threads", 1, 1024),
    "patience": _whole("patience"),
    "steps": _whole("steps"),
    "recover_steps": _whole("recover_steps", 0, COUNT),
    "season": _whole("the season"),
    **{name: _whole(name) for name in ("per_configuration", "per_system")},
    **{name: _whole(name, 1, COUNT) for name in ("motif", "draws", "sequences", "rounds", "points")},
    **{name: _whole(name, 1, COUNT) for name in ("count", "histories", "history", "context")},
    "horizon": _whole("the horizon", 1, COUNT),
    "shares": lambda values: each(values, "shares", functools.partial(number, least=0, most=1)),
    **{name: _each(name) for name in ("blocks", "repeats", "batches")},
    **dict.fromkeys(
        ("fraction", "calibration", "calibration_fraction"),
        _number("the calibration fraction", 0, 1, open_ends=True),
    ),
    "own_share": _number("the share of own histories", 0, 1),
    "percent": _number("the percentage", 0),
    "max_loss": _number("the loss allowed", 0),
    "budget": _number("the budget in seconds", 0, 1e9, open_ends=True),
    "max_slowdown": _number("the slowdown allowed", 0),
    "max_drift": _number("the drift allowed", 0),
    "saving": _number("the share to save", 0, 1, open_ends=True),
    "bandwidth": _number("the bandwidth", 0, open_ends=True),
    **{name: _number(name, 0, open_ends=True) for name in ("learning_rate", "minutes")},
    "stream": _number("stream", 0),
    "confidence": _number("the confidence", 0.5, BELOW_1),
}


def checked(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """`function` with those of its arguments that `RULES` knows checked, and made Python's own numbers.

    None passes where the annotation allows it.
    """
    parameters = inspect.signature(function).parameters
    optional = {name for name, one in parameters.items() if "None" in str(one.annotation)}

    def ruled(name: str, value: Any) -> Any:
        if name not in RULES or (value is None and name in optional):
            return value
        return RULES[name](value)

    @functools.wraps(function)
    def with_checks(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        placed = [ruled(name, value) for name, value in zip(parameters, args, strict=False)]
        named = {name: ruled(name, value) for name, value in kwargs.items()}
        return function(*placed, *args[len(placed) :], **named)  # type: ignore[arg-type]

    return with_checks
