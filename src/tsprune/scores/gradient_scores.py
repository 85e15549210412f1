"""Scores from gradients on windows; see `screening`."""

from __future__ import annotations

from collections.abc import Mapping

from tsprune.anatomy import KINDS, Component
from tsprune.scores.registry import Score, Task, Values
from tsprune.scores.screening import screen

FIRST_ORDER, SCREENING = "first_order", "screening"


def gradient_scores(task: Task) -> Mapping[str, Values]:
    """Scores of `FAMILY`, from one forward and two backward passes."""
    settings = task.settings
    frame = screen(
        task.model,
        task.windows,
        only=[c.address for c in task.of(FIRST_ORDER, SCREENING)],
        batch_size=max(1, settings.batch_size // 4),
        seed=settings.seed,
        progress=settings.progress,
    )
    components = [Component.parse(address) for address in frame["address"]]
    columns = {FIRST_ORDER: frame["first_order"].abs(), SCREENING: frame["score"]}
    return {name: dict(zip(components, values.tolist(), strict=True)) for name, values in columns.items()}


FAMILY = (
    Score(
        FIRST_ORDER,
        KINDS,
        "low-to-high",
        "gradient",
        "|gradient x activation|: first-order change of CRPS without the component (Molchanov et al., "
        "arXiv 1611.06440)",
        gradient_scores,
    ),
    Score(
        SCREENING,
        KINDS,
        "low-to-high",
        "windows",
        "|first order + Gauss-Newton curvature| of CRPS; of models that sample, the squared change of the "
        "network's output (see tsprune.scores.screen)",
        gradient_scores,
    ),
)
