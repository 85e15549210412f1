"""Moirai 1.1: likelihood of a mixture of four distributions over masked patches.

Upstream masks the end of a series; here, in half of the windows, some patches before it as well, so
that more of every window is learnt from. Histories are cut short at random, as real ones are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from uni2ts.model.moirai import MoiraiModule
from uni2ts.model.moirai.module import decode_distr_output

from pretrain.loop import Losses, Objective
from tsprune.data.training import CLIP, Windows
from tsprune.models.checkpoints import MAX_CONTEXT

_DISTRIBUTIONS = "uni2ts.distribution"


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are bundled.

    width : a multiple of 64, the width of upstream's heads
    context, future : history and longest horizon in a window, multiples of the patch
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 256
    layers: int = 6
    patch: int = 32
    context: int = 1024
    future: int = 256
    series_length: int = 2304

    @property
    def tokens(self) -> int:
        return (self.context + self.future) // self.patch


def config(size: Size) -> dict[str, Any]:
    """What upstream's config.json says, at another size and for one patch size."""
    components: list[dict[str, Any]] = [
        {"_target_": f"{_DISTRIBUTIONS}.student_t.StudentTOutput"},
        {"_target_": f"{_DISTRIBUTIONS}.normal.NormalFixedScaleOutput", "scale": 1e-3},
        {"_target_": f"{_DISTRIBUTIONS}.negative_binomial.NegativeBinomialOutput"},
        {"_target_": f"{_DISTRIBUTIONS}.log_normal.LogNormalOutput"},
    ]
    return {
        "distr_output": {"_target_": f"{_DISTRIBUTIONS}.mixture.MixtureOutput", "components": components},
        "d_model": size.width,
        "num_layers": size.layers,
        "patch_sizes": [size.patch],
        "max_seq_len": 512,
        "attn_dropout_p": 0.0,
        "dropout_p": 0.0,
        "scaling": True,
    }


def masks(count: int, size: Size, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(patches to forecast, how many patches are cut off in front), [count, tokens] and [count]."""
    history, tokens = size.context // size.patch, size.tokens
    position = np.arange(tokens)[None]
    horizon = rng.integers(1, tokens - history + 1, (count, 1))
    end = position >= tokens - horizon
    scattered = (rng.random((count, 1)) < 0.5) & (
        rng.random((count, tokens)) < rng.uniform(0.1, 0.4, (count, 1))
    )
    cut = np.where(rng.random(count) < 0.4, rng.integers(0, history - 2, count), 0)
    first = position == cut[:, None]  # something must be seen
    return (end | scattered) & ~first, cut


class MoiraiObjective(Objective):
    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.window_length = self.size.context + self.size.future
        self.series_length = self.size.series_length

    def build(self) -> nn.Module:
        sizes = config(self.size)
        module: Any = MoiraiModule(distr_output=decode_distr_output(sizes.pop("distr_output")), **sizes)
        for name, parameter in module.named_parameters():
            if name.endswith((".out_proj.weight", ".fc2.weight")):
                nn.init.normal_(parameter, std=0.3 / self.size.width**0.5)
        # likelihoods need more digits than the loop's autocast leaves
        module.param_proj.forward = _full_precision(module.param_proj.forward)
        built: nn.Module = module
        return built

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        rng = np.random.default_rng([step, 17])
        patch = self.size.patch
        hidden, cut = masks(len(windows), self.size, rng)
        target = torch.from_numpy(windows).view(len(windows), -1, patch)
        position = torch.arange(target.shape[1])[None] - torch.from_numpy(cut)[:, None]
        present = position >= 0
        prediction = torch.from_numpy(hidden) & present
        distribution = model(
            target,
            present[..., None].expand_as(target),
            sample_id=present.long(),
            time_id=position.clamp_min(0),
            variate_id=torch.zeros_like(position),
            prediction_mask=prediction,
            patch_size=torch.full_like(position, patch),
        )
        normalised = ((target - distribution.loc) / distribution.scale).clamp(-CLIP, CLIP)
        usable = prediction & (distribution.scale[..., 0] > 0.05)  # where the history varies
        likelihood = distribution.base_dist.log_prob(normalised).mean(-1)
        total = -(likelihood * usable).sum() / usable.sum().clamp_min(1)
        return Losses(total, total)

    def export(self, model: nn.Module, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # config.json must hold upstream's keys only, so the trained history is noted here
        metadata = {MAX_CONTEXT: str(self.size.context)}
        save_file(model.state_dict(), directory / "model.safetensors", metadata=metadata)
        (directory / "config.json").write_text(json.dumps(config(self.size), indent=2) + "\n")


def _full_precision(forward: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(representations: Tensor, *others: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return forward(representations.float(), *others)

    return wrapped
