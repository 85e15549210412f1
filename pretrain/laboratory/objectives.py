"""The objective of a run: its family's model at the run's size, with the run's supervision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tsprune
from pretrain.families import chronos2, chronos_bolt, moirai2, timesfm
from pretrain.families.hidden_patches import Contexts
from pretrain.families.supervision import QUANTILES_EVERYWHERE
from pretrain.laboratory.plan import Condition
from pretrain.loop import Objective
from tsprune.errors import TspruneError
from tsprune.models import Forecaster

PATCH, HORIZON = timesfm.PATCH, timesfm.OUTPUT  # TimesFM's, for all


def _timesfm(condition: Condition) -> Objective:
    size = timesfm.Size(
        condition.width, condition.layers, condition.heads, condition.hidden, condition.context
    )
    return timesfm.TimesFMObjective(size, condition.supervision)


def _chronos2(condition: Condition) -> Objective:
    return chronos2.Chronos2Objective(
        chronos2.Size(
            condition.width,
            condition.layers,
            condition.heads,
            condition.hidden,
            PATCH,
            HORIZON,
            _contexts(condition),
        )
    )


def _chronos_bolt(condition: Condition) -> Objective:
    return chronos_bolt.ChronosBoltObjective(
        chronos_bolt.Size(
            condition.width,
            condition.layers // 2,
            condition.heads,
            condition.hidden,
            PATCH,
            HORIZON,
            _contexts(condition),
        )
    )


def _moirai2(condition: Condition) -> Objective:
    return moirai2.Moirai2Objective(_moirai2_size(condition))


def _moirai2_size(condition: Condition) -> moirai2.Size:
    return moirai2.Size(
        condition.width,
        condition.layers,
        condition.heads,
        condition.hidden * 2 // 3,  # as many parameters in three matrices as others have in two
        PATCH,
        HORIZON // PATCH,
        condition.context,
    )


def _contexts(condition: Condition) -> Contexts:
    """Lengths of history of models that see a whole one at once: of whole patches."""
    patches = condition.context // PATCH
    short, middle, long = (max(3, round(share * patches)) * PATCH for share in (3 / 16, 3 / 8, 5 / 8))
    return short, middle, long, condition.context


_MAKERS: dict[str, Callable[[Condition], Objective]] = {
    "timesfm": _timesfm,
    "chronos2": _chronos2,
    "chronos-bolt": _chronos_bolt,
    "moirai2": _moirai2,
}
_SUPERVISED = ("timesfm",)  # whose objectives take a supervision


def is_implemented(condition: Condition) -> bool:
    """Whether this version of the laboratory can train it."""
    plain = condition.supervision == QUANTILES_EVERYWHERE
    return condition.architecture in (_MAKERS if plain else _SUPERVISED)


def objective(condition: Condition) -> Objective:
    """The model and the loss of a condition.

    Raises TspruneError for what is planned, but not implemented yet.
    """
    if not is_implemented(condition):
        raise TspruneError(f"{condition.name}: {not_implemented(condition)}")
    return _MAKERS[condition.architecture](condition)


def not_implemented(condition: Condition) -> str:
    """What to say of a condition that is not implemented."""
    what: str = condition.architecture
    if what in _MAKERS:
        what += " with another supervision than quantiles everywhere"
    return f"training {what} is planned, but not implemented yet; it is left out"


def opened(condition: Condition, checkpoint: Path) -> Forecaster:
    """The trained model of a condition."""
    if condition.architecture == "moirai2":  # upstream's format cannot tell its number of heads
        return moirai2.opened(checkpoint)
    return tsprune.load(str(checkpoint), device="cpu")
