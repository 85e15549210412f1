"""TimesFM 2.5: quantile loss at every patch, each normalised by the history up to it.

Other losses (`pretrain.families.supervision`) are those of the laboratory.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from timesfm import configs
from timesfm.timesfm_2p5 import timesfm_2p5_torch as upstream
from timesfm.timesfm_2p5.timesfm_2p5_base import TimesFM_2p5_200M_Definition
from torch import Tensor, nn

from pretrain.families.supervision import (
    QUANTILES_EVERYWHERE,
    Supervision,
    as_student_t,
    criterion,
    excess_parroting,
    layer_dropout,
)
from pretrain.loop import Losses, Objective
from tsprune.data.training import CLIP, Windows

PATCH, OUTPUT = 32, 128  # TimesFM 2.5's own, which its decoding relies on
SPREAD = 0.2  # weight of the quantile-spread head's loss


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are bundled.

    context : history in a window, a multiple of PATCH
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 128
    layers: int = 8
    heads: int = 8
    hidden: int = 256
    context: int = 1024
    series_length: int = 2304


def definition(size: Size) -> TimesFM_2p5_200M_Definition:
    """TimesFM 2.5's definition at another size; the spread head covers one output patch."""

    def block(inputs: int, outputs: int, bias: bool) -> configs.ResidualBlockConfig:
        return configs.ResidualBlockConfig(inputs, size.width, outputs, bias, "swish")

    original = TimesFM_2p5_200M_Definition().stacked_transformers.transformer
    transformer = dataclasses.replace(
        original, model_dims=size.width, hidden_dims=size.hidden, num_heads=size.heads
    )
    return TimesFM_2p5_200M_Definition(
        output_quantile_len=OUTPUT,
        tokenizer=block(2 * PATCH, size.width, True),
        stacked_transformers=configs.StackedTransformersConfig(size.layers, transformer),
        output_projection_point=block(size.width, OUTPUT * 10, False),
        output_projection_quantiles=block(size.width, OUTPUT * 10, False),
    )


def running_statistics(patches: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of everything observed up to each patch; [B, N, P] -> two [B, N]."""
    seen = (~masks).double()
    values = patches.double() * seen
    count = seen.sum(-1).cumsum(1).clamp_min(1)
    mean = values.sum(-1).cumsum(1) / count
    square = (values**2).sum(-1).cumsum(1) / count
    return mean.float(), (square - mean**2).clamp_min(0).sqrt().float()


class TimesFMObjective(Objective):
    def __init__(self, size: Size | None = None, supervision: Supervision = QUANTILES_EVERYWHERE) -> None:
        self.size = size or Size()
        self.supervision = supervision
        self.window_length = self.size.context + OUTPUT
        self.series_length = self.size.series_length

    def build(self) -> nn.Module:
        class Module(upstream.TimesFM_2p5_200M_torch_module):
            config = definition(self.size)

        module = Module()
        for part in module.modules():
            if type(part).__name__ == "RMSNorm":
                nn.init.ones_(part.scale)  # upstream starts at zero: nothing would flow
        return module

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        assert isinstance(model, upstream.TimesFM_2p5_200M_torch_module)
        supervision = self.supervision
        x, masks = torch.from_numpy(windows), self._padding(len(windows), step)
        patches = x[:, : self.size.context].reshape(len(x), -1, PATCH)
        mean, deviation = running_statistics(patches, masks)
        safe = torch.where(deviation < 1e-6, 1.0, deviation)[..., None]
        inputs = ((patches - mean[..., None]) / safe).masked_fill(masks, 0.0)
        with layer_dropout(model.stacked_xf, supervision.layer_dropout, step):
            (_, _, point, spread), _ = model(inputs.clamp(-CLIP, CLIP), masks)

        future = x.unfold(1, OUTPUT, PATCH)[:, 1:]  # [B, N, OUTPUT], what follows each patch
        target = ((future - mean[..., None]) / safe).clamp(-CLIP, CLIP)
        usable = (deviation > 0.05).float()
        if supervision.shuffled:
            target, usable = target.roll(1, 0), usable.roll(1, 0)
        point = point.float().view(*target.shape, 10)
        spread = spread.float().view(*target.shape, 10)
        weights = supervision.position_weights(target.shape[1])

        def reduced(values: Tensor) -> Tensor:  # [B, N, OUTPUT] -> scalar
            return (values.mean(-1) * usable * weights).mean()

        loss = criterion(supervision.loss)
        forecast = reduced(loss(point[..., 1:], target))
        total = forecast + SPREAD * reduced(loss(spread[..., 1:], target))
        total = total + 0.1 * reduced(nn.functional.huber_loss(point[..., 0], target, reduction="none"))
        if supervision.parroting_penalty:
            history = (x[:, : self.size.context] - mean[:, -1:]) / safe[:, -1]
            excess = excess_parroting(point[:, -1, :, 5], target[:, -1], history)
            total = total + supervision.parroting_penalty * (excess * usable[:, -1]).mean()
        return Losses(total, forecast)

    def _padding(self, count: int, step: int) -> Tensor:
        """Steps to mask, bool [count, N, PATCH]: a history need not fill its first patch, and upstream
        pads it in front."""
        rng = np.random.default_rng([step, 17])
        padding = np.where(rng.random(count) < 0.5, rng.integers(0, PATCH, count), 0)
        hidden = np.arange(self.size.context)[None] < padding[:, None]
        return torch.from_numpy(hidden).view(count, -1, PATCH)

    def export(self, model: nn.Module, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        tensors = model.state_dict()
        if self.supervision.loss == "student-t":
            tensors = {name: _readout_of_student_t(name, tensor) for name, tensor in tensors.items()}
        save_file(tensors, directory / "model.safetensors")
        config = {
            "architecture": "timesfm-2.5",
            "max_context": self.size.context,
            "definition": dataclasses.asdict(definition(self.size)),
        }
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _readout_of_student_t(name: str, tensor: Tensor) -> Tensor:
    """A readout's last matrices [OUTPUT * 10, width], so that its quantiles are the Student-t's."""
    if not name.startswith("output_projection") or "hidden_layer" in name:
        return tensor
    outputs = tensor.view(OUTPUT, 10, -1).movedim(1, -1)  # the mean, then the nine quantiles
    projected = torch.cat([outputs[..., :1], as_student_t(outputs[..., 1:])], -1)
    return projected.movedim(-1, 1).reshape(tensor.shape).contiguous()
