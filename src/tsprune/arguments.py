"""Checking numbers that callers pass: one rule and one wording for every function that counts something."""

from __future__ import annotations

import operator

import numpy as np

from tsprune.errors import TspruneError

SHOWN = 40  # characters of a refused value that an error repeats


def shown(value: object) -> str:
    """A refused value for an error line: short, on one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number too long to print, or a class that cannot
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def shape_of(value: object) -> tuple[int, ...] | None:
    """The shape of an array of any package, None of what has none."""
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
    number = _integer(value)
    if number is None:
        raise TspruneError(f"{name} must be a whole number, {limits}, not {shown(value)}")
    if number < least:
        raise TspruneError(f"{name} must be at least {least}, not {shown(number)}")
    if most is not None and number > most:
        raise TspruneError(f"{name} must be at most {most:,}, not {shown(number)}")
    return number


def _integer(value: object) -> int | None:
    if isinstance(value, bool | np.bool_) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
        return None
    if shape_of(value):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except Exception:  # whatever a foreign class raises
        return None
