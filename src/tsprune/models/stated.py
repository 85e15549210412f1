"""Values that files from outside state, checked one by one before upstream builds anything from them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tsprune.arguments import shown
from tsprune.errors import TspruneError, TspruneWarning
from tsprune.models.weights import named

MOST_SIZE = 2**24  # of a width, a number of layers, a length
MOST_LISTED = 1000

# returns the requirement that a value breaks, "" if it is valid
Requirement = Callable[[Any], str]


def whole_number(least: int = 1, most: int = MOST_SIZE) -> Requirement:
    """A whole number within limits; True and False are none."""
    return lambda value: (
        ""
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        else f"a whole number from {least} to {most}"
    )


def real(least: float = -math.inf, most: float = math.inf) -> Requirement:
    """A finite number within limits."""

    def rule(value: Any) -> str:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if numeric and abs(value) < 1e300 and least <= value <= most:
            return ""
        return f"a number from {least:g} to {most:g}" if math.isfinite(least + most) else "a finite number"

    return rule


def anything(_value: Any) -> str:
    """Any value."""
    return ""


def flag(value: Any) -> str:
    """True or False."""
    return "" if isinstance(value, bool) else "true or false"


def word(value: Any) -> str:
    """A short string."""
    return "" if isinstance(value, str) and 0 < len(value) <= 200 else "a short string"


def mapping(value: Any) -> str:
    """A JSON object."""
    return "" if isinstance(value, dict) else "an object"


def list_of(rule: Requirement) -> Requirement:
    """A list that is not empty, whose values follow `rule`."""

    def of_list(value: Any) -> str:
        if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_LISTED:
            return f"a list of 1 to {MOST_LISTED} values"
        wrong = next((problem for item in value if (problem := rule(item))), "")
        return f"a list of values that are each {wrong}" if wrong else ""

    return of_list


def or_none(rule: Requirement) -> Requirement:
    """A value that follows `rule`, or null."""
    return lambda value: "" if value is None or not (problem := rule(value)) else f"{problem}, or null"


def levels(value: Any) -> str:
    """Ascending quantile levels inside (0, 1), 0.5 among them, which is the median."""
    problem = list_of(real(0, 1))(value)
    ascending = not problem and all(0 < x < 1 for x in value) and sorted(set(value)) == list(value)
    return "" if ascending and 0.5 in value else "ascending quantile levels between 0 and 1 with 0.5"


def symmetric_levels(needed: Iterable[float]) -> Requirement:
    """Levels that can be mirrored at 0.5, with those that are `needed`."""

    def rule(value: Any) -> str:
        whole = not levels(value) and set(needed) <= set(value)
        mirrored = whole and all(abs(x + y - 1) < 1e-9 for x, y in zip(value, reversed(value), strict=True))
        return "" if mirrored else "ascending quantile levels, symmetric about 0.5, with 0.1, 0.2, ... 0.9"

    needed = tuple(needed)
    return rule


def require(
    stated: Mapping[str, Any], rules: Mapping[str, Requirement], where: str, *, required: bool = True
) -> None:
    """TspruneError that names the first value of `stated` that breaks its rule.

    where : how messages call the place, e.g. "config.json"
    required : whether every key must be there
    """
    for key, rule in rules.items():
        if key not in stated:
            if required:
                raise TspruneError(f"{where} has no {key}")
        elif problem := rule(stated[key]):
            raise TspruneError(f"{where}: {key} must be {problem}, not {shown(stated[key])}")


def known_only(stated: Mapping[str, Any], known: Iterable[str], where: str) -> dict[str, Any]:
    """The keys of `stated` that are known; warns of the others, which are left out."""
    kept = set(known)
    others = [key for key in stated if key not in kept]
    if others:
        warnings.warn(f"{where}: unknown keys are ignored: {named(others)}", TspruneWarning, stacklevel=2)
    return {key: value for key, value in stated.items() if key in kept}
