"""The explorer as one file that works without Python: every cell alone, computed beforehand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from tsprune.atomic import write_whole
from tsprune.errors import TspruneError
from tsprune.explorer.chosen_series import ChosenSeries, window_of
from tsprune.explorer.explorer_requests import json_ready
from tsprune.explorer.few_windows import Losses
from tsprune.explorer.map_scores import MapScores
from tsprune.explorer.model_description import description
from tsprune.explorer.pruning_text import plan_text
from tsprune.explorer.session import Session, finished
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import NotFiniteError
from tsprune.progress import Progress, showing

SERIES = 4  # the first window of as many configurations
_POSITIONS = 48  # of an attention map
_DIGITS = 4
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
# in the order of their imports
_MODULES = ("scales.js", "state.js", "requests.js", "map.js", "charts.js", "drawing.js", "main.js")


def page_files() -> dict[str, str]:
    """The files of the page by name, with plotly.js as its package ships it, and the report's styles."""
    from plotly.offline import get_plotlyjs

    folder = files("tsprune.explorer").joinpath("page")
    found = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.is_file()}
    found["report.css"] = files("tsprune.report").joinpath("report.css").read_text(encoding="utf-8")
    return found | {"plotly.min.js": get_plotlyjs()}


def write_explorer(session: Session, path: str | Path, *, progress: Progress | bool | None = None) -> None:
    """Writes a page with the forecasts, losses and views of every head and MLP ablated alone (zero).

    progress : called with the stage "cells"

    Raises TspruneError if the file cannot be written.
    """
    with showing(progress) as report:
        write_whole(path, _page(recorded(session, report)).encode())


def recorded(session: Session, progress: Progress) -> dict[str, Any]:
    """All answers that the page asks for, as JSON."""
    scores = MapScores(session)
    about = description(session, scores)
    about["modes"] = ["zero"]
    about["series"] = [
        {**one, "windows": one["windows"][:1], "names": one["names"][:1]} for one in about["series"][:SERIES]
    ]
    names = [(one["configuration"], one["windows"][0]) for one in about["series"]]
    length = session.model.context_length
    series = {f"{name}|{at}": window_of(session.suite, name, at, length) for name, at in names}
    total, done = len(session.cells) * (len(series) + 1), 0

    def count() -> None:
        nonlocal done
        done += 1
        progress("cells", done, total)

    found = {key: _of_series(session, one, count) for key, one in series.items()}
    losses = {"": finished(session.losses(Ablation(())))}
    plans = {}
    for address, component in session.cells.items():
        losses[address] = _finite(partial(_losses, session, Ablation((component,))))
        plans[address] = plan_text(session, (component,))
        count()
    first = next(iter(series.values()))
    table: dict[str, Any] = {}
    for score in [one for one in about["scores"] if not one["of_series"]]:
        try:
            table[score["name"]] = _whole(scores, score["name"], first)
        except TspruneError:  # a score that this model does not have after all
            about["scores"].remove(score)
    for key, one in series.items():
        found[key]["moved"] = _whole(scores, "moved", one)
    answers: dict[str, Any] = json_ready(
        {"model": about, "series": found, "losses": losses, "plans": plans, "scores": table}
    )
    return answers


def _losses(session: Session, ablation: Ablation) -> Losses:
    return finished(session.losses(ablation))


def _whole(scores: MapScores, name: str, series: ChosenSeries) -> Any:
    """All values of a score."""
    while (values := scores.values(name, series)).done < values.total:
        pass
    return values


def _of_series(session: Session, series: ChosenSeries, count: Callable[[], None]) -> dict[str, Any]:
    """The forecasts and views of every cell on one series."""
    forecasts, views = {}, {}
    for address, component in session.cells.items():
        forecasts[address] = _finite(partial(session.without, series, Ablation((component,))))
        views[address] = json_ready(
            session.component_view(series, component, Ablation(()), positions=_POSITIONS), digits=_DIGITS
        )
        count()
    return {"series": session.series_view(series), "forecasts": forecasts, "components": views}


def _finite(work: Callable[[], Any]) -> Any:
    """The result of `work`; None where a forecast is not finite."""
    try:
        return work()
    except NotFiniteError:
        return None


def _page(data: Mapping[str, Any]) -> str:
    """index.html with its styles, scripts and `data` inside."""
    found = page_files()
    script = "\n".join(_alone(found[name]) for name in _MODULES)
    content = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    inside = {
        '<link rel="stylesheet" href="report.css">': f"<style>\n{found['report.css']}</style>",
        '<link rel="stylesheet" href="explorer.css">': f"<style>\n{found['explorer.css']}</style>",
        '<script defer src="plotly.min.js"></script>': f"<script>{found['plotly.min.js']}</script>",
        '<script type="module" src="main.js"></script>': f'<script type="module">\n{script}</script>',
        "</main>": f'</main>\n<script type="application/json" id="explorer-data">{content}</script>',
        '<meta charset="utf-8">': '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
    }
    page = found["index.html"]
    for there, replacement in inside.items():
        assert page.count(there) == 1, there
        page = page.replace(there, replacement)
    return page


def _alone(module: str) -> str:
    """A module without its imports and exports: all stand in one scope, and their names differ."""
    without = re.sub(r"^import .*\n", "", module, flags=re.M)
    return re.sub(r"^export ", "", without, flags=re.M)
