"""PatchNet for tsprune. Only the description is here: torch and the network are imported when needed."""

from tsprune.models import Family

FAMILY = Family(
    name="patchnet",
    title="PatchNet",
    code="tsprune_example.family:PatchNetForecaster",
    package="tsprune_example",
    weights=("blocks.0.attention.q.weight", "head.weight"),
    config_key="patchnet",
    objects=("tsprune_example.network.PatchPipeline",),
    architecture="decoder-only over patches",  # this and what follows is for the table of `tsprune models`
    attention=("self",),
)
