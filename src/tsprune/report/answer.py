"""The first screen of a study's report: the question, its answer for each model, and how sure it is."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tsprune.models.families import FAMILIES
from tsprune.report.words import between, percent, windows_of
from tsprune.studies.removals import ANSWER_LOSSES
from tsprune.studies.study_result import ModelStudy, Study, plan_files
from tsprune.text import count

PAPER: Final = "Universal Redundancies in Time Series Foundation Models"
PAPER_AUTHORS = "Bao, Vattikuti, Lai and Gilpin"
NOTE: Final = (
    "Losses are without retraining. The second command distils the original into the smaller model, which "
    "can win accuracy back; this study did not measure that. An exported model forecasts without torch, "
    "often several times as fast."
)
PAPER_LABEL, PAPER_ADDRESS = "arXiv 2602.01605", "https://arxiv.org/abs/2602.01605"


RemovalRow = Mapping[Any, Any]  # of the table of removals


@dataclasses.dataclass(frozen=True)
class Answer:
    """Whether one model can be made smaller.

    verdict : in one sentence; detail : the numbers behind it
    commands : to type in a shell (Python for a model that has no name to load it by)
    """

    verdict: str
    detail: str
    commands: tuple[str, ...]


def studied(study: Study) -> str:
    """The work of a study in two sentences, for a reader who knows neither tsprune nor the paper."""
    names = ", ".join(model.name for model in study.models)
    return (
        f"tsprune switched off every attention head, MLP and layer of {names or 'no model'}, alone and in "
        f"sets, and measured how much worse {windows_of(study)} of real series are forecast. "
        f'It then tested the claims of the paper "{PAPER}" ({PAPER_LABEL}): heads whose weights have a high '
        "stable rank average over many positions, and most of them are redundant."
    )


def answers(study: Study, folder: Path) -> list[Answer]:
    """One answer for each model; `folder` : of the report and the plans, as it was typed."""
    plans = plan_files(study)
    several = len(study.models) > 1
    return [
        _answer(model, folder / plans[place] if place in plans else None, several)
        for place, model in enumerate(study.models)
    ]


def _answer(model: ModelStudy, plan: Path | None, several: bool) -> Answer:
    chosen = chosen_removal(model)
    commands = _commands(model, plan, f"smaller-{_end(model.name)}" if several else "smaller")
    if chosen is None:
        return Answer(*_nothing(model), commands)
    loss = _loss(chosen, "mase")
    limit = float(chosen["mase_high"])
    most = f"for at most {percent(max(limit, 0.0), signed=False)} MASE"
    if math.isnan(limit):
        most = f"for {percent(float(chosen['mase_change']))} MASE, without a known limit"
    verdict = f"{model.name} can lose {_parts(chosen)}, {_share(chosen['saving'])} of its time, {most}."
    detail = (
        f"Measured on series that took no part in the choice: MASE {loss}, CRPS {_loss(chosen, 'crps')}. The "
        "time is estimated."
    )
    return Answer(verdict, detail, commands)


def _nothing(model: ModelStudy) -> tuple[str, str]:
    table = model.removals
    if table.empty or not table["calibration_loss"].notna().any():
        verdict = f"{model.name}: this study did not measure sets of heads and MLPs, so it has no answer."
        return verdict, "A larger budget, or a search with tsprune prune --max-loss 2%, gives one."
    first: RemovalRow = table.iloc[0].to_dict()
    most = _share(ANSWER_LOSSES[-1])
    verdict = (
        f"Nothing can be removed from {model.name} without retraining at a loss that is shown to stay below "
        f"{most}."
    )
    detail = (
        f"Without {_parts(first)} ({_share(first['saving'])} of its estimated time) MASE changes by "
        f"{_loss(first, 'mase')}."
    )
    return verdict, detail


def chosen_removal(model: ModelStudy) -> RemovalRow | None:
    """The row of `ModelStudy.removals` that the plan of the study removes."""
    rows = model.removals[model.removals["chosen"]] if len(model.removals) else model.removals
    return None if rows.empty else dict(rows.iloc[0])


def _commands(model: ModelStudy, plan: Path | None, out: str) -> tuple[str, ...]:
    name, small = shlex.quote(model.name), shlex.quote(out)
    if not model.sha256:  # a model of a script
        what = f'tsprune.Plan.load("{plan}")' if plan else "tsprune.plan(model, saving=0.3)"
        return (f'tsprune.prune(model, {what}).save("{out}")',)
    how = "--saving 30%" if plan is None else f"--plan {shlex.quote(plan.as_posix())}"
    recovered, exported = (shlex.quote(f"{out}-{what}") for what in ("recovered", "exported"))
    commands = (
        f"tsprune prune {name} {how} --out {small}",
        f"tsprune recover {small} --teacher {name} --out {recovered}",
        f"tsprune export {recovered} --out {exported}",
    )
    family = FAMILIES.get(model.family)
    return commands if family is not None and family.graph else commands[:2]


def _end(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", re.split(r"[:/\\]", name.rstrip("/\\"))[-1]).strip("-.") or "model"


def sure(study: Study) -> list[str]:
    """How far the answers can be trusted, in sentences."""
    configurations = count(max((len(model.baseline) for model in study.models), default=0), "configuration")
    limit = (
        ' "At most" is the upper end of the interval: 1 in 40 such answers states too small a loss.'
        if any(chosen_removal(model) is not None for model in study.models)
        else ""
    )
    name = study.models[0].name if len(study.models) == 1 else "MODEL"
    return [
        f"One half of the series chose the sets, the other half measured their loss: "
        f"{windows_of(study)} of {configurations} in all, with 95 % intervals.{limit}",
        "Series of other kinds may lose more or less. To measure the smaller model on your own series: "
        f"tsprune check smaller --baseline {name} --data FILE.",
    ]


def _parts(row: RemovalRow) -> str:
    parts = [
        f"{int(row[kind])} of its {int(row[f'{kind}_total'])} {words}"
        for kind, words in (("heads", "heads"), ("mlps", "MLPs"))
        if int(row[kind])
    ]
    return " and ".join(parts)


def _share(value: float) -> str:
    return f"{100 * value:.2g} %"


def _loss(row: RemovalRow, key: str) -> str:
    value, low, high = (float(row[f"{key}_{part}"]) for part in ("change", "low", "high"))
    return f"{percent(value)} (95 % interval {between(low, high)})"
