"""Pruned checkpoints on disk: upstream's files, tsprune.json, which describes them, and a model card.

Weights keep upstream's names. Where upstream's config can describe the pruned model (whole layers, equal
head counts), config.json does, and upstream's own loader reads the checkpoint. Where it cannot,
config.json is one that upstream refuses: some of its loaders would leave missing weights random.

Reading builds the original architecture, removes the listed components, and loads the weights
strictly. Nothing in a checkpoint is executed or unpickled.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsprune.anatomy import Component
from tsprune.arguments import shown
from tsprune.errors import TspruneError, one_line
from tsprune.files import as_json, read_object
from tsprune.models.locations import CONFIG, REMOVAL
from tsprune.models.origin import Evidence, Measured, Origin, Recovery
from tsprune.models.stated import list_of, whole_number
from tsprune.text import code, markdown

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecaster

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class PruningRecord:
    """The content of tsprune.json.

    config : config.json of the original checkpoint
    """

    family: str
    config: Mapping[str, Any]
    origin: Origin


def complete(
    model: Forecaster, origin: Origin, original: dict[str, Any], directory: Path, evidence: Evidence | None
) -> None:
    """Adds config.json, tsprune.json and the card to a folder with the weights of a pruned model.

    original : config.json of the model that it was made from
    """
    reduced = model.upstream_config(original)
    refused = {  # no upstream loader takes this for a config of its own
        "model_type": "tsprune",
        "load_with": "tsprune.load or tsprune.load_pipeline",
        "family": model.family,
        **model.refusal,
    }
    (directory / CONFIG).write_text(as_json(refused if reduced is None else reduced))
    record = {
        "format": FORMAT,
        "tsprune": _version(),
        "family": model.family,
        "upstream_reads_it": reduced is not None,
        "model": origin.name,
        "checkpoint": origin.sha256,
        "parameters": {"before": origin.parameters, "after": model.parameter_count},
        "components": [component.address for component in origin.components],
        "provenance": dict(origin.provenance),
        "recovery": None if origin.recovery is None else dataclasses.asdict(origin.recovery),
        "config": original,
        "shapes": {name: list(shape) for name, shape in origin.shapes.items()},
    }
    (directory / REMOVAL).write_text(as_json(record))
    card = model_card(model, origin, upstream_reads_it=reduced is not None, evidence=evidence)
    (directory / "README.md").write_text(card)


def _version() -> str:
    try:
        return version("tsprune")
    except PackageNotFoundError:
        return "unknown"


def model_card(
    model: Forecaster, origin: Origin, *, upstream_reads_it: bool, evidence: Evidence | None
) -> str:
    """README.md: removed components, their cost, how to load the model, and its licence.

    evidence : name -> before, after and change, as the caller measured them
    """
    share = 1 - model.parameter_count / origin.parameters
    lines = [
        f"# {markdown(origin.name)}, pruned" + (" and recovered" if origin.recovery else ""),
        "",
        f"A {model.family} checkpoint with {share:.1%} of its parameters removed by tsprune: "
        f"{origin.parameters:,} before, {model.parameter_count:,} after.",
        "",
        f"Made from {code(origin.name)}"
        + (f" (SHA-256 of its weights {markdown(origin.sha256)})." if origin.sha256 else "."),
        "",
        "## What was removed",
        "",
        *_removed(origin),
        *_recovered(origin),
        "",
        "## What it costs and gains",
        "",
        *_table(evidence),
        "",
        "## Loading it",
        "",
        "```python",
        "import tsprune",
        "",
        'model = tsprune.load("path/to/this/folder")',
        'pipeline = tsprune.load_pipeline("path/to/this/folder")  # the upstream object',
        "```",
        "",
        "The upstream package alone reads it too."
        if upstream_reads_it
        else "The upstream package alone does not read it: its layers are of unlike sizes.",
        "",
        "## Licence",
        "",
        model.licence,
    ]
    return "\n".join(lines) + "\n"


def _removed(origin: Origin) -> list[str]:
    """The removed components by kind, and how they were chosen."""
    names = {"layer": "layers", "attention": "attention sublayers", "mlp": "MLPs", "head": "attention heads"}
    lines = []
    for kind, name in names.items():
        addresses = [f"`{component}`" for component in origin.components if component.kind == kind]
        if addresses:
            lines.append(f"- {len(addresses)} {name}: {', '.join(addresses)}")
    if origin.provenance:
        lines += ["", "Chosen by:", ""]
    for key, value in origin.provenance.items():
        if not isinstance(value, list):  # the way to a plan, step by step, is in tsprune.json
            lines.append(f"- {markdown(key)}: {markdown(value)}")
    return lines


def _recovered(origin: Origin) -> list[str]:
    how = origin.recovery
    if how is None:
        return []
    later = len(origin.components) - how.components
    return [
        "",
        "## Recovered",
        "",
        f"Trained after the removal to forecast as {code(how.teacher)} does: {how.steps:,} steps, "
        f"{how.histories:,} synthetic histories (`tsprune recover`). The weights are those of step "
        f"{how.best_step:,}, the best on calibration series of {markdown(how.suite)} "
        f"({how.windows} windows): "
        f"{markdown(how.metric)} relative to Seasonal Naive {how.score_before:.4g} before, "
        f"{how.score_after:.4g} after." + (f" The last {later} components went later." if later else ""),
    ]


def _table(evidence: Evidence | None) -> list[str]:
    if not evidence:
        return ["Not measured. Measure before you rely on it."]
    measured = ((name, Measured(*row)) for name, row in evidence.items())
    rows = [
        f"| {markdown(name)} | {row.before:.4g} | {row.after:.4g} | {markdown(row.change, begins=False)} |"
        for name, row in measured
    ]
    return ["| | before | after | change |", "|---|---:|---:|---:|", *rows]


def read_record(directory: Path) -> PruningRecord | None:
    """tsprune.json in `directory`; None if there is none, so the checkpoint is not pruned.

    Raises TspruneError if it is damaged or of a format that this version does not know.
    """
    path = directory / REMOVAL
    if not os.path.lexists(path):
        return None
    try:
        stated = read_object(path, REMOVAL)
    except TspruneError as error:
        raise TspruneError(f"{path} is damaged ({str(error).removeprefix(f'{path} ')})") from None
    try:
        return _record(stated, path)
    except TspruneError as error:
        raise TspruneError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else one_line(error, 200)
        raise TspruneError(f"{path} is damaged ({detail})") from None


def _record(stated: Mapping[str, Any], path: Path) -> PruningRecord:
    if stated["format"] != FORMAT:
        raise TspruneError(
            f"{path} has format {shown(stated['format'])}; this version of tsprune reads format {FORMAT}"
        )
    for key in ("shapes", "config", "provenance", "parameters"):
        if not isinstance(stated[key], dict):
            raise TypeError(f"{key} is not an object")
    shape_rule = list_of(whole_number(0, 2**40))  # a tensor without dimensions has []
    wrong = [name for name, shape in stated["shapes"].items() if shape != [] and shape_rule(shape)]
    if wrong:
        raise ValueError(f"no shape: {wrong[0]}")
    origin = Origin(
        name=str(stated["model"]),
        sha256=str(stated["checkpoint"]),
        parameters=int(stated["parameters"]["before"]),
        shapes={name: tuple(shape) for name, shape in stated["shapes"].items()},
        components=tuple(Component.parse(address) for address in stated["components"]),
        provenance=stated["provenance"],
        recovery=_recovery(stated.get("recovery")),
    )
    if origin.parameters < 1:
        raise ValueError("the original has no parameters")
    return PruningRecord(str(stated["family"]), stated["config"], origin)


def _recovery(stated: Mapping[str, Any] | None) -> Recovery | None:
    """The record of a training; every value becomes one of its field's type."""
    if stated is None:
        return None
    types: dict[str, Callable[[Any], Any]] = {"str": str, "int": int, "float": float}
    fields = {one.name: types.get(str(one.type), dict) for one in dataclasses.fields(Recovery)}
    return Recovery(**{name: make(stated[name]) for name, make in fields.items()})
