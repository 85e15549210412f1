"""Anatomy: where the components of one model live, as data.

Everything else in the program (ablation, replay, scores, removal) is written once against these
descriptions.

Components of a pruned model keep their addresses: layer and head numbers are those of the original,
wherever the weights are now. So a plan, a table or a sweep made on the original still applies, and
plans can be carried out one after the other. `numbers` and `position` translate.
"""

from tsprune.anatomy.anatomy import Anatomy, Architecture
from tsprune.anatomy.component import DESCRIPTION, KINDS, Component, Kind, Selection, check_kinds, described
from tsprune.anatomy.sites import (
    AttentionSite,
    Block,
    Factor,
    MLPSite,
    PerHead,
    Projection,
    Readout,
    SharedBias,
    Size,
    Stack,
    TimeAxis,
)

__all__ = [
    "DESCRIPTION", "KINDS", "Anatomy", "Architecture", "AttentionSite", "Block", "Component", "Factor",
    "Kind", "MLPSite", "PerHead", "Projection", "Readout", "Selection", "SharedBias", "Size", "Stack",
    "TimeAxis", "check_kinds", "described",
]  # fmt: skip
