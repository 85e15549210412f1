"""Pruned checkpoints on disk: upstream's files, and tsprune.json, which says what they are.

Weights keep upstream's names. Where upstream's config can describe what is left (whole layers, equal
head counts), config.json does, and upstream's own loader reads the checkpoint. Where it cannot,
config.json is one that upstream refuses: some of its loaders would leave missing weights random.

Reading builds the original architecture, removes what tsprune.json lists, and loads the weights
strictly. Nothing in a checkpoint is executed or unpickled.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tsprune.anatomy import Component
from tsprune.atomic import whole_directory
from tsprune.errors import TspruneError
from tsprune.models.card import model_card
from tsprune.models.checkpoints import REMOVAL, Checkpoint, load_weights, one_line
from tsprune.models.forecaster import Evidence, Forecaster, Origin, Recovery
from tsprune.models.removal import remove

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Record:
    """What tsprune.json says.

    config : config.json of the original checkpoint
    """

    family: str
    config: Mapping[str, Any]
    origin: Origin


# --- writing ------------------------------------------------------------------------------------


@contextmanager
def written(model: Forecaster, directory: Path, evidence: Evidence | None) -> Iterator[Path]:
    """A directory for upstream's files, with the original's config.json; becomes `directory`, whole."""
    with whole_directory(directory) as aside:
        yield aside
        if model.origin is not None:
            _complete(model, model.origin, aside, evidence)


def _complete(model: Forecaster, origin: Origin, directory: Path, evidence: Evidence | None) -> None:
    path = directory / "config.json"
    original = json.loads(path.read_text())
    reduced = model.upstream_config(original)
    path.write_text(_json(_refused(model) if reduced is None else reduced))
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
    (directory / REMOVAL).write_text(_json(record))
    card = model_card(model, origin, upstream_reads_it=reduced is not None, evidence=evidence)
    (directory / "README.md").write_text(card)


def _refused(model: Forecaster) -> dict[str, Any]:
    """A config.json that no upstream loader takes for one of its own."""
    return {
        "model_type": "tsprune",
        "load_with": "tsprune.load or tsprune.load_pipeline",
        "family": model.family,
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _version() -> str:
    try:
        return version("tsprune")
    except PackageNotFoundError:
        return "unknown"


# --- reading ------------------------------------------------------------------------------------


def read_record(directory: Path) -> Record | None:
    """What tsprune.json in `directory` says; None if there is none, so the checkpoint is not pruned.

    Raises TspruneError if it is damaged or of a format that this version does not know.
    """
    path = directory / REMOVAL
    if not path.exists():
        return None
    try:
        stated = json.loads(path.read_text())
        if stated["format"] != FORMAT:
            raise TspruneError(
                f"{path} has format {stated['format']!r}; this version of tsprune reads format {FORMAT}"
            )
        shapes = {str(name): tuple(int(n) for n in shape) for name, shape in stated["shapes"].items()}
        components = tuple(Component.parse(address) for address in stated["components"])
        origin = Origin(
            name=str(stated["model"]),
            sha256=str(stated["checkpoint"]),
            parameters=int(stated["parameters"]["before"]),
            shapes=shapes,
            components=components,
            provenance=dict(stated["provenance"]),
            recovery=_recovery(stated.get("recovery")),
        )
        return Record(str(stated["family"]), dict(stated["config"]), origin)
    except TspruneError as error:
        raise TspruneError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise TspruneError(f"{path} is damaged ({detail})") from None


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


def open_pruned(
    adapter: ModuleType, checkpoint: Checkpoint, record: Record, device: torch.device, dtype: torch.dtype
) -> Forecaster:
    """The pruned model; TspruneError if tsprune.json contradicts itself or the weights."""
    shapes = record.origin.shapes
    original = dataclasses.replace(checkpoint, config=record.config, shapes=shapes)
    what = f"{checkpoint.name}: {REMOVAL}"
    try:
        with torch.random.fork_rng(devices=[]):  # upstream's initial weights, of which none stays
            model: Forecaster = adapter.blank(original)
    except Exception as error:  # upstream raises whatever the value it stumbles over leads to
        raise TspruneError(f"{what} does not describe a {record.family} model ({one_line(error)})") from error
    if _shapes(model) != dict(shapes):
        raise TspruneError(f"{what} contradicts itself: its shapes are not those of its config")
    try:
        remove(model, model.anatomy.select(record.origin.components))
    except TspruneError as error:
        raise TspruneError(f"{what} does not fit its own model ({error})") from None
    model.origin = record.origin
    _fill(model, load_weights(checkpoint), what)
    model.to(device, dtype)
    return model


def _shapes(model: Forecaster) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.module.state_dict().items()}


def _fill(model: Forecaster, weights: Mapping[str, Tensor], what: str) -> None:
    """Loads `weights` strictly; a tensor with two names is given under one of them."""
    state: dict[str, Tensor] = model.saved_module.state_dict()
    given = {state[name].data_ptr() for name in weights if name in state}
    missing = [name for name in state if name not in weights and state[name].data_ptr() not in given]
    unknown = [name for name in weights if name not in state]
    unlike = [name for name in weights if name in state and state[name].shape != weights[name].shape]
    for problem, names in (("missing", missing), ("unexpected", unknown), ("of another shape", unlike)):
        if names:
            raise TspruneError(f"{what} and the weights disagree ({problem}: {names[0]})")
    with torch.no_grad():
        for name, tensor in weights.items():
            state[name].copy_(tensor)
