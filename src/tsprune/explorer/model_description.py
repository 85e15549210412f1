"""The explorer's description of a model and its series, from which the page draws the map."""

from __future__ import annotations

from typing import Any

import tsprune
from tsprune.anatomy import Component
from tsprune.choices import MODES
from tsprune.explorer.chosen_series import DRAWN_HORIZON, DRAWN_STEPS, forecastable, window_name
from tsprune.explorer.explorer_requests import json_ready
from tsprune.explorer.map_scores import MapScores
from tsprune.explorer.session import SHOWN_LEVELS, Session
from tsprune.models.forecaster import SamplingForecaster
from tsprune.report import palette


def description(session: Session, scores: MapScores) -> dict[str, Any]:
    """All that does not change while a session lasts, as JSON."""
    model, suite = session.model, session.suite
    samples = model.samples if isinstance(model, SamplingForecaster) else None
    return {
        "tsprune": tsprune.__version__,
        "model": {
            "name": model.name,
            "family": model.family,
            "brief": model.anatomy.brief,
            "parameters": model.parameter_count,
            "context_length": model.context_length,
            "samples": samples,
            "span": 1 if model.anatomy.stacks[0].time is None else model.anatomy.stacks[0].time.span,
        },
        "rows": rows(session),
        "modes": list(MODES),
        "levels": list(SHOWN_LEVELS),
        "scores": json_ready(list(scores.scores.values())),
        "data": suite.name,
        "few": {"windows": len(session.few.suite), "configurations": len(session.few.suite.configurations)},
        "series": [
            {"configuration": c.name, "windows": found, "names": [window_name(c, row) for row in found]}
            for c in suite.configurations
            if (found := forecastable(c, model.context_length))
        ],
        "drawn": {"steps": DRAWN_STEPS, "horizon": DRAWN_HORIZON},
        "colours": {
            "sequential": palette.SHARE_SCALE,
            "diverging": palette.CHANGE_SCALE,
            # on a light page and on a dark one
            "before": [palette.BEFORE.colour, palette.SKY],
            "after": [palette.AFTER.colour, palette.AMBER],
        },
    }


def rows(session: Session) -> list[dict[str, Any]]:
    """One row of the map per layer: its sublayers, each with the addresses of its cells."""
    found = []
    for stack in session.model.anatomy.stacks:
        for layer, block in stack.numbered():
            parts: list[dict[str, Any]] = []
            for site in block.attention:
                cells = [Component(stack.name, layer, site.role, head).address for head in site.numbers]
                over = "series" if site.axis == "series" else "time"
                parts.append({"role": site.role, "over": over, "cells": cells, "numbers": list(site.numbers)})
            if block.mlp is not None:
                cell = Component(stack.name, layer, mlp=True).address
                parts.append({"role": "mlp", "over": "", "cells": [cell], "numbers": [0]})
            found.append({"stack": stack.name, "layer": layer, "parts": parts})
    return found
