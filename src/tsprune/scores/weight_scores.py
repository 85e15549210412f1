"""Scores from the weights alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tsprune.anatomy import KINDS, Component, Kind
from tsprune.models.forecaster import Forecaster
from tsprune.scores.score import Order, Score, ScoringTask, Values
from tsprune.scores.spectrum import SPECTRUM_SCORES, head_matrices, spectra
from tsprune.scores.stable_rank import stable_ranks

STABLE_RANKS = ("stable_rank", "stable_rank_effective")
MAGNITUDE = "weight_magnitude"


def measure_weights(task: ScoringTask) -> Mapping[str, Values]:
    """`WEIGHT_SCORES`: of heads from the tables of `stable_ranks` and `spectra`, and magnitudes."""
    names = [score.name for score in task.scores]
    found: dict[str, Values] = {}
    for table, its in ((stable_ranks, STABLE_RANKS), (spectra, SPECTRUM_SCORES)):
        columns = [name for name in names if name in its]
        if columns and task.model.anatomy.components("head"):
            frame = table(task.model)
            heads = [Component.parse(address) for address in frame["address"]]
            found |= {name: dict(zip(heads, frame[name].tolist(), strict=True)) for name in columns}
    if MAGNITUDE in names:
        found[MAGNITUDE] = {c: magnitude(task.model, c) for c in task.scored_by(MAGNITUDE)}
    return {name: found.get(name, {}) for name in names}


def magnitude(model: Forecaster, component: Component) -> float:
    """Root mean square of the entries of all weight matrices of a component; NaN if it has none.

    Vectors (biases, scales of norms) do not count; matrices that several heads share count for each.
    """
    squares, count = _squares(model, component)
    return (squares / count) ** 0.5 if count else float("nan")


def _squares(model: Forecaster, component: Component) -> tuple[float, int]:
    """(sum of squares, number) of the weights of a component."""
    matrices: list[Tensor] = []
    anatomy = model.anatomy
    if component.kind in ("head", "attention"):
        site = anatomy.site(component)
        if site.heads:
            sides = head_matrices(model, site)
            rows = slice(None) if component.head is None else site.position(component.head)
            matrices = [side[rows] for side in sides]
    elif component.kind == "mlp":
        mlp = anatomy.mlp(component)
        modules = (model.module.get_submodule(path) for path in (*mlp.others, mlp.output))
        matrices = [p.detach() for module in modules for p in module.parameters() if p.dim() > 1]
    else:
        parts = [_squares(model, part) for part in anatomy.expand([component])]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)
    return sum(float((x.double() ** 2).sum()) for x in matrices), sum(x.numel() for x in matrices)


def _score(
    name: str, about: str, redundant: Order = "low-to-high", kinds: tuple[Kind, ...] = ("head",)
) -> Score:
    return Score(name, kinds, redundant, "weights", about, measure_weights)


WEIGHT_SCORES = (
    _score(
        "stable_rank",
        "||A||_F^2 / ||A||_2^2 of A = W_Q W_K^T: how many modes share its energy (arXiv 2602.01605)",
        "high-to-low",
    ),
    _score(
        "stable_rank_effective",
        "the same with the q/k norm weights and per-dimension scales that act on q . k folded in",
        "high-to-low",
    ),
    _score(
        "entropic_rank",
        "exp(-sum p log p), p = s^2 / sum s^2 over the singular values of W_Q W_K^T (Roy & Vetterli, 2007)",
        "high-to-low",
    ),
    _score("query_key_spectral_norm", "largest singular value of W_Q W_K^T"),
    _score("query_key_frobenius_norm", "Frobenius norm of W_Q W_K^T"),
    _score("value_output_spectral_norm", "largest singular value of W_V W_O"),
    _score("value_output_frobenius_norm", "Frobenius norm of W_V W_O"),
    _score(
        MAGNITUDE,
        "root mean square of the component's weight matrices (magnitude pruning: Han et al., "
        "arXiv 1506.02626)",
        kinds=KINDS,
    ),
)
