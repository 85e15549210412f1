"""The plan of the laboratory: every training, known beforehand, in the order in which they run.

A condition differs from the base in one thing (two where the parameters are held equal). Each is trained from
several seeds; the order is such that a plan stopped anywhere has answered what matters most.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from pretrain.families.supervision import QUANTILES_EVERYWHERE, Supervision
from pretrain.loop import Schedule
from tsprune.data.training import ALL_SERIES, Source

Architecture = Literal["timesfm", "moirai2", "chronos2", "chronos-bolt"]

BASE = "depth-8"
HEAD_DIM = 16
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
STEPS = 2_500
SEEDS = (0, 1, 2)
# Added when three seeds had left comparisons of these conditions undecided whose differences are large.
FURTHER_SEEDS = {
    **dict.fromkeys(("depth-8", "depth-16", "depth-32", "deep", "wide"), (3, 4)),
    **dict.fromkeys(("moirai2", "bolt", "bolt-16"), (3, 4)),
    **dict.fromkeys(("chronos2", "last-patch", "unparroting"), (3,)),
}

# questions of the paper that it leaves open
ARCHITECTURE, PARROTING, REDUNDANCY, NULL = "architecture", "parroting", "redundancy", "null"


@dataclasses.dataclass(frozen=True)
class Condition:
    """What is trained, but for the seed.

    question : which open question it serves; every condition serves the dose and response of all
    differs : in what it differs from the base, in words
    layers : blocks in a row; an encoder-decoder has half of them in each stack
    context : steps of history
    """

    name: str
    question: str
    differs: str
    architecture: Architecture = "timesfm"
    layers: int = 8
    width: int = 64
    context: int = 512
    steps: int = STEPS
    batch_size: int = BATCH_SIZE
    source: Source = ALL_SERIES
    supervision: Supervision = QUANTILES_EVERYWHERE

    @property
    def heads(self) -> int:
        return self.width // HEAD_DIM

    @property
    def hidden(self) -> int:
        """Width of the MLPs."""
        return 2 * self.width

    @property
    def schedule(self) -> Schedule:
        warmup = max(1, min(300, self.steps * 12 // 100))
        return Schedule(self.steps, self.batch_size, LEARNING_RATE, warmup=warmup)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a condition from one seed, which draws weights and data."""

    condition: Condition
    seed: int

    @property
    def name(self) -> str:
        return f"{self.condition.name}-s{self.seed}"


def _depth(layers: int) -> Condition:
    differs = "the base" if layers == 8 else f"{layers} layers"
    return Condition(f"depth-{layers}", REDUNDANCY, differs, layers=layers)


def _supervised(name: str, question: str, differs: str, supervision: Supervision) -> Condition:
    return Condition(name, question, differs, supervision=supervision)


DEPTHS = tuple(_depth(layers) for layers in (8, 16, 4))
OBJECTIVES = (
    _supervised("last-patch", REDUNDANCY, "loss at the last patch only", Supervision(positions="last")),
    _supervised("squared-error", REDUNDANCY, "squared error", Supervision("squared-error")),
    _supervised("student-t", REDUNDANCY, "likelihood of a Student-t", Supervision("student-t")),
    _supervised("dropout", REDUNDANCY, "layers dropped with 0.2", Supervision(layer_dropout=0.2)),
)
DATA = (
    Condition("aperiodic", PARROTING, "no periodic series", source=Source("aperiodic")),
    Condition("periodic", PARROTING, "periodic series only", source=Source("periodic")),
    _supervised(
        "unparroting", PARROTING, "a penalty on excess parroting", Supervision(parroting_penalty=1.0)
    ),
)
ARCHITECTURES = (
    Condition("chronos2", ARCHITECTURE, "encoder", architecture="chronos2"),
    Condition("bolt", ARCHITECTURE, "encoder-decoder, 4 + 4 layers", architecture="chronos-bolt"),
    Condition("moirai2", ARCHITECTURE, "another decoder", architecture="moirai2"),
    Condition(
        "bolt-16", ARCHITECTURE, "encoder-decoder, 8 + 8 layers", architecture="chronos-bolt", layers=16
    ),
)
NULLS = (_supervised("shuffled", NULL, "targets of other windows", Supervision(shuffled=True)),)
SIZES = (
    Condition("short", REDUNDANCY, "a quarter of the steps", steps=STEPS // 4),
    Condition("width-32", REDUNDANCY, "width 32", width=32),
    Condition("width-128", REDUNDANCY, "width 128", width=128),
    Condition("wide", REDUNDANCY, "2 layers of width 128, as many parameters", layers=2, width=128),
    Condition("few-series", REDUNDANCY, "1,024 series, again and again", source=Source(shards=1)),
)
LATE = (
    Condition("deep", REDUNDANCY, "32 layers of width 32, as many parameters", layers=32, width=32),
    Condition("long", REDUNDANCY, "four times the steps", steps=STEPS * 4),
    _depth(32),
)
CONDITIONS = (*DEPTHS, *OBJECTIVES, *DATA, *ARCHITECTURES, *NULLS, *SIZES, *LATE)


def plan() -> tuple[Run, ...]:
    """Every run, in order: a seed of all but the longest, other seeds, the longest, then further seeds."""
    soon = CONDITIONS[: len(CONDITIONS) - len(LATE)]
    first = [Run(condition, SEEDS[0]) for condition in soon]
    others = [Run(condition, seed) for seed in SEEDS[1:] for condition in soon]
    longest = [Run(condition, seed) for seed in SEEDS for condition in LATE]
    further = [Run(one, seed) for one in CONDITIONS for seed in FURTHER_SEEDS.get(one.name, ())]
    return (*first, *others, *longest, *further)
