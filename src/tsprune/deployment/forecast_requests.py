"""Requests for forecasts as JSON: read and checked, or refused in one line; and their answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import each, number, shown, whole
from tsprune.errors import TspruneError, one_line
from tsprune.files import parse_json
from tsprune.models.contexts import checked_contexts
from tsprune.models.forecast import Forecast

_SHAPE = 'send {"contexts": [[1.5, null, 2.0]], "horizon": 24}'
_KEYS = ("contexts", "horizon", "levels")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that one request may ask for.

    body : bytes
    series : histories
    history : steps of each of them; the model sees the last ones of its context length
    horizon : steps to forecast
    levels : quantile levels
    """

    horizon: int
    body: int = 8 * 2**20
    series: int = 256
    history: int = 2**16
    levels: int = 99


@dataclasses.dataclass(frozen=True)
class ForecastRequest:
    """A checked request.

    series : float32 [T] each, NaN where a value is missing
    levels : of the quantiles in the answer; None: the model's
    """

    series: list[NDArray[np.float32]]
    horizon: int
    levels: tuple[float, ...] | None = None


def read_request(body: bytes, limits: Limits) -> ForecastRequest:
    """The request in a body of JSON; missing values are null or NaN.

    Raises TspruneError in one line for anything else, and for more than `limits` allow.
    """
    try:
        stated = _parsed(body)
    except (ValueError, RecursionError) as error:
        raise TspruneError(f"the body is not JSON ({one_line(error, 100)}); {_SHAPE}") from None
    if not isinstance(stated, dict):
        raise TspruneError(f"the body is not a JSON object; {_SHAPE}")
    if unknown := [key for key in stated if key not in _KEYS]:
        raise TspruneError(f"unknown key {shown(unknown[0])}; a request has: {', '.join(_KEYS)}")
    if missing := [key for key in _KEYS[:2] if key not in stated]:
        raise TspruneError(f"{missing[0]} is missing; {_SHAPE}")
    horizon = whole(stated["horizon"], "the horizon", most=limits.horizon)
    return ForecastRequest(
        _series(stated["contexts"], limits), horizon, _levels(stated.get("levels"), limits)
    )


def _parsed(body: bytes) -> Any:
    import orjson  # of the extra serve, as Starlette

    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # of NaN, too, which is a missing value
        return parse_json(body.decode())


def _series(stated: Any, limits: Limits) -> list[NDArray[np.float32]]:
    if not isinstance(stated, list) or not all(isinstance(values, list) for values in stated):
        raise TspruneError(f"contexts must be a list with a list of numbers for each series; {_SHAPE}")
    if len(stated) > limits.series:
        raise TspruneError(f"{len(stated)} series in one request; send at most {limits.series}")
    for index, values in enumerate(stated):
        if len(values) > limits.history:
            raise TspruneError(f"series {index} has {len(values)} steps; send at most {limits.history}")
        if values and isinstance(values[0], list):
            raise TspruneError(f"series {index} holds lists; send each variate as a series")
    return checked_contexts(stated)


def _levels(stated: Any, limits: Limits) -> tuple[float, ...] | None:
    if stated is None:
        return None
    if isinstance(stated, list) and not 0 < len(stated) <= limits.levels:
        raise TspruneError(f"levels must be 1 to {limits.levels} numbers, not {len(stated)}")
    return each(stated, "levels", partial(number, least=0, most=1))


def answer(forecast: Forecast, levels: Sequence[float] | None) -> bytes:
    """The JSON of a finite forecast: `levels` and `quantiles` [series, level, step].

    Numbers have the fewest digits that tell a float32 from its neighbours.
    """
    import orjson

    chosen = forecast.levels if levels is None else tuple(levels)
    quantiles = forecast.quantiles if levels is None else forecast.at(chosen)
    content = {"levels": chosen, "quantiles": np.ascontiguousarray(quantiles)}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
