"""Pruned checkpoints on disk: upstream's files, and tsprune.json, which describes them.

Weights keep upstream's names. Where upstream's config can describe the pruned model (whole layers, equal
head counts), config.json does, and upstream's own loader reads the checkpoint. Where it cannot,
config.json is one that upstream refuses: some of its loaders would leave missing weights random.

Reading builds the original architecture, removes the listed components, and loads the weights
strictly. Nothing in a checkpoint is executed or unpickled.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tsprune.anatomy import Component
from tsprune.arguments import shown
from tsprune.errors import TspruneError, one_line
from tsprune.models.card import model_card
from tsprune.models.documents import as_json, read_object
from tsprune.models.forecaster import Evidence, Forecaster, Origin, Recovery
from tsprune.models.locations import CONFIG, REMOVAL
from tsprune.models.stated import list_of, whole_number

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class PruningRecord:
    """The content of tsprune.json.

    config : config.json of the original checkpoint
    """

    family: str
    config: Mapping[str, Any]
    origin: Origin


# --- writing ------------------------------------------------------------------------------------


def complete(
    model: Forecaster, origin: Origin, original: dict[str, Any], directory: Path, evidence: Evidence | None
) -> None:
    """Adds config.json, tsprune.json and the card to a folder with the weights of a pruned model.

    original : config.json of the model that it was made from
    """
    reduced = model.upstream_config(original)
    (directory / CONFIG).write_text(as_json(_refused(model) if reduced is None else reduced))
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


def _refused(model: Forecaster) -> dict[str, Any]:
    """A config.json that no upstream loader takes for one of its own."""
    return {
        "model_type": "tsprune",
        "load_with": "tsprune.load or tsprune.load_pipeline",
        "family": model.family,
    }


def _version() -> str:
    try:
        return version("tsprune")
    except PackageNotFoundError:
        return "unknown"


# --- reading ------------------------------------------------------------------------------------


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
    wrong = [name for name, shape in stated["shapes"].items() if _shape(shape)]
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


def _shape(value: object) -> str:
    """The problem with a tensor's shape, "" if there is none; a tensor without dimensions has []."""
    return "" if value == [] else list_of(whole_number(0, 2**40))(value)


def _recovery(stated: Mapping[str, Any] | None) -> Recovery | None:
    if stated is None:
        return None
    return Recovery(
        teacher=str(stated["teacher"]),
        components=int(stated["components"]),
        steps=int(stated["steps"]),
        histories=int(stated["histories"]),
        best_step=int(stated["best_step"]),
        metric=str(stated["metric"]),
        suite=str(stated["suite"]),
        windows=int(stated["windows"]),
        score_before=float(stated["score_before"]),
        score_after=float(stated["score_after"]),
        recipe=dict(stated["recipe"]),
    )
