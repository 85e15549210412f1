"""Toto's backbone when its layers have unlike numbers of heads, or none.

Upstream allocates one key-value cache for all layers, with the first layer's number of heads, reads the
length of the history off a layer that must have attention over time, and expands the mask over
variates to the first layer's heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from toto.model.backbone import TotoBackbone
from toto.model.transformer import Transformer
from toto.model.util import KVCache


@dataclasses.dataclass
class UnevenCache(KVCache):
    """Keys and values [time layers, B * variates, most heads, time, head_dim]; layers fill their part.

    How much is filled is advanced by the transformer, for all layers at once: none need have attention.
    """

    def seq_len(self, layer_idx: int) -> int:
        return int(self.current_len(0))

    def append(self, layer_idx: int, kv: Any) -> None:
        keys, values = kv
        _, heads, steps, _ = keys.shape
        place, start = int(self._layer_cache_map[layer_idx]), self.current_len(0)
        self._keys[place, :, :heads, start : start + steps] = keys
        self._values[place, :, :heads, start : start + steps] = values
        self._filled = heads, start + steps

    def __getitem__(self, layer_idx: int) -> Any:
        """The entries up to the last `append`; attention reads them right after it."""
        place = int(self._layer_cache_map[layer_idx])
        heads, end = self._filled
        return self._keys[place, :, :heads, :end], self._values[place, :, :heads, :end]


class UnevenTransformer(Transformer):
    def _get_mask(self, num_heads: int, dtype: Any, id_mask: Tensor | None = None) -> Tensor:
        mask: Tensor = super()._get_mask(1, dtype, id_mask)  # the same for all heads: broadcast
        return mask

    def forward(
        self, inputs: Tensor, id_mask: Tensor, kv_cache: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        before = kv_cache.current_len(0) if kv_cache is not None else 0
        output = super().forward(inputs, id_mask, kv_cache, *args, **kwargs)
        if kv_cache is not None:
            kv_cache._current_idx.fill_(before + output.shape[2])
        return output


class UnevenBackbone(TotoBackbone):
    heads: Sequence[int]
    head_dim: int

    def allocate_kv_cache(
        self, batch_size: int, num_variates: int, max_time_steps: int, device: Any, dtype: Any
    ) -> KVCache:
        most = max((1, *self.heads))
        return UnevenCache(
            batch_size=batch_size,
            num_variates=num_variates,
            transformer_layers=list(self.transformer.layers),
            num_layers=self.num_layers,
            embed_dim=most * self.head_dim,
            num_heads=most,
            max_seq_len=-(-max_time_steps // self.patch_embed.stride),
            device=device,
            dtype=dtype,
            use_memory_efficient_attention=False,
        )


def make_uneven(backbone: Any, heads: Sequence[int], head_dim: int) -> None:
    """Makes `backbone` cope with attention sublayers of these numbers of heads."""
    backbone.__class__, backbone.transformer.__class__ = UnevenBackbone, UnevenTransformer
    backbone.heads, backbone.head_dim = tuple(heads), head_dim


def alternation(kinds: Sequence[str]) -> dict[str, Any] | None:
    """Upstream's settings that make layers of these kinds ("time", "variate"); None: there are none.

    >>> alternation(["time", "variate", "time", "variate"])
    {'spacewise_every_n_layers': 2, 'spacewise_first': False}
    """
    if "variate" not in kinds:
        return {"spacewise_every_n_layers": -1}
    for every in range(1, len(kinds) + 1):
        for first in (False, True):
            others = ["time"] * (every - 1)
            period = ["variate", *others] if first else [*others, "variate"]
            if len(kinds) % every == 0 and period * (len(kinds) // every) == list(kinds):
                return {"spacewise_every_n_layers": every, "spacewise_first": first}
    return None
