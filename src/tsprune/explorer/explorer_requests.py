"""Requests of the page as JSON, read and checked or refused in one line, and the answers to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tsprune.arguments import shown, whole
from tsprune.choices import MODES
from tsprune.errors import TspruneError, one_line
from tsprune.explorer.chosen_series import ChosenSeries, drawn_series, window_of
from tsprune.explorer.session import Session
from tsprune.files import parse_json
from tsprune.hooks.ablation import Ablation

_DIGITS = 7  # of numbers in an answer


def read_body(body: bytes, keys: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object in a body; TspruneError in one line for anything else, or another key than `keys`."""
    try:
        stated = parse_json(body.decode())
    except (ValueError, RecursionError) as error:
        raise TspruneError(f"the body is not JSON ({one_line(error, 100)})") from None
    if not isinstance(stated, dict):
        raise TspruneError("the body is not a JSON object")
    if unknown := [key for key in stated if key not in keys]:
        raise TspruneError(f"unknown key {shown(unknown[0])}; a request has: {', '.join(keys)}")
    return stated


def asked_series(stated: Mapping[str, Any], session: Session) -> ChosenSeries:
    """The series that `series` names: {"configuration", "window"} or {"values"}."""
    found, length = stated.get("series"), session.model.context_length
    if not isinstance(found, dict):
        raise TspruneError('series must be {"configuration": NAME, "window": NUMBER} or {"values": [...]}')
    if set(found) == {"values"}:
        if not isinstance(found["values"], list):
            raise TspruneError(f"the values must be a list of numbers, not {shown(found['values'])}")
        return drawn_series(found["values"], length)
    if set(found) != {"configuration", "window"} or not isinstance(found["configuration"], str):
        raise TspruneError('series must be {"configuration": NAME, "window": NUMBER} or {"values": [...]}')
    window = whole(found["window"], "the window", least=0)
    return window_of(session.suite, found["configuration"], window, length)


def asked_ablation(stated: Mapping[str, Any], session: Session) -> Ablation:
    """The ablation of `off`, a list of addresses, with `mode` and `seed`."""
    off, mode = stated.get("off", []), stated.get("mode", "zero")
    if not isinstance(off, list) or not all(isinstance(one, str) for one in off):
        raise TspruneError(f"off must be a list of addresses, not {shown(off)}")
    if len(off) > len(session.cells):
        raise TspruneError(f"{len(off)} components are off; the model has {len(session.cells)}")
    if not isinstance(mode, str):
        raise TspruneError(f"the mode must be one of {', '.join(MODES)}, not {shown(mode)}")
    wanted = {session.component(address) for address in off}
    components = tuple(c for c in session.cells.values() if c in wanted)
    return Ablation(components, mode, stated.get("seed", 0))  # type: ignore[arg-type]


def json_ready(value: Any, *, digits: int = _DIGITS) -> Any:
    """A value as JSON: arrays as lists, dataclasses as objects, numbers rounded, NaN and infinity as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: json_ready(getattr(value, field.name), digits=digits)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): json_ready(item, digits=digits) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [json_ready(item, digits=digits) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
