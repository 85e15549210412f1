"""Sampling Toto's patches: the history runs once a window, and draws are paired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MixtureSameFamily
from toto.data.util.dataset import MaskedTimeseries, is_extreme_value
from toto.model.backbone import TotoBackbone, TotoOutput
from toto.model.util import KVCache

from tsprune.models import draws
from tsprune.models.finite import Broken, watched
from tsprune.models.substitution import substituted_forwards

# rows at the edge of a matrix product may be computed another way, with other last bits: there shall be none
STEPS_TOGETHER = 16


@contextmanager
def watched_mixture(backbone: TotoBackbone) -> Iterator[Broken]:
    """Notes at which of [B, V, steps] a parameter of the distribution is NaN or infinite."""
    broken = Broken(3)
    with watched(backbone.output_distribution.children(), broken):
        yield broken


def mixture_of(distribution: Any, steps: int, broken: Broken | None = None) -> tuple[Tensor, Tensor]:
    """Weights [B, V, steps, K] and (df, location, scale) [B, V, steps, K, 3] of the first `steps`.

    The latter are NaN at the places of `broken`.
    """
    if isinstance(distribution, MixtureSameFamily):
        weights: Tensor = distribution.mixture_distribution.probs
        parts: Any = distribution.component_distribution
        parameters = torch.stack([parts.df, parts.loc, parts.scale], -1)
    else:  # a single Student-t
        single = torch.stack([distribution.df, distribution.loc, distribution.scale], -1)
        weights, parameters = torch.ones_like(distribution.df)[..., None], single[..., None, :]
    marked = parameters if broken is None else broken.marked(parameters)
    return weights[:, :, :steps], marked[:, :, :steps]


def _for_mixtures(uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[rows, paths, 1, patch, 3] as number of a component and `draws.polar`, each [rows, 1, patch, paths]."""
    which, radius, angle = uniform.permute(4, 0, 2, 3, 1).contiguous()
    return which, *draws.polar(radius, angle)


class PatchDraws(Distribution):
    """One patch of every path of B windows of V variates, drawn from `noise`, as upstream's loop wants it.

    noise : of the series, those of one window after each other
    weights, parameters : as `mixture_of` makes them, of the windows or of their paths; then paths are
        outermost, as in the draws
    patch : steps that are drawn; those after the steps of `weights` are 0
    look : called with the draws, [paths * B, V, patch]
    """

    def __init__(
        self,
        weights: Tensor,
        parameters: Tensor,
        noise: draws.Noise,
        paths: int,
        patch: int,
        look: Callable[[Tensor], None] = lambda drawn: None,
    ) -> None:
        self._weights, self._parameters, self._noise = weights, parameters, noise
        self._paths, self._look = paths, look
        self._variates = weights.shape[1]
        windows = noise.windows // self._variates
        super().__init__(torch.Size((paths * windows, self._variates, patch)), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """[paths * B, V, patch]"""
        means = self._whole((self._weights * self._parameters[..., 1]).sum(-1))
        return means.repeat(self.batch_shape[0] // len(means), 1, 1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """[paths * B, V, patch]"""
        which, *polar = (numbers.to(self._weights.device) for numbers in self._numbers())
        index = draws.categorical(self._weights, which)
        freedom, location, scale = (x.gather(-1, index) for x in self._parameters.unbind(-1))
        drawn = draws.student_t(freedom, location, scale, *polar).permute(3, 0, 1, 2)
        whole = self._whole(drawn.reshape(-1, *drawn.shape[2:]))
        self._look(whole)
        return whole

    def _whole(self, steps: Tensor) -> Tensor:
        """[..., patch] from [..., steps]."""
        return nn.functional.pad(steps, (0, self.batch_shape[-1] - steps.shape[-1]))

    def _numbers(self) -> Iterator[Tensor]:
        """Three times [rows, V, steps, draws], for each draw from the distribution of a row."""
        for numbers in self._noise.changed(_for_mixtures, self._paths, 1, self.batch_shape[-1], 3):
            windows = numbers.reshape(-1, self._variates, *numbers.shape[2:])
            wanted = windows[:, :, : self._weights.shape[2]]
            if len(wanted) < len(self._weights):  # each path has a distribution of its own
                wanted = wanted.permute(3, 0, 1, 2).flatten(0, 1)[..., None]
            yield wanted


class SharedHistory:
    """Stands in for the backbone in upstream's sampling loop, which sees the last patch of the history only.

    The history is the same in all paths of a window, so it is run once a window, its keys and values are
    copied for the paths only if there is a second patch. Only the wanted steps after the last position are
    turned into a distribution, and patches are drawn from `noise`. Upstream replaces draws that are NaN,
    infinite or extreme by 0: `lost` marks the paths with such a step.

    history : of B windows, [B, V, T]
    horizon : steps that are drawn
    spare : memory that stand-ins use one after the other
    """

    def __init__(
        self,
        backbone: TotoBackbone,
        history: MaskedTimeseries,
        noise: draws.Noise,
        paths: int,
        horizon: int,
        spare: dict[str, Tensor],
    ) -> None:
        self._backbone, self._history, self._noise = backbone, history, noise
        self._paths, self._horizon, self._spare = paths, horizon, spare
        self._patch: int = backbone.patch_embed.patch_size
        shape = paths * len(history.series), history.series.shape[1]
        self._lost = torch.zeros(shape, dtype=torch.bool, device=history.series.device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def eval(self) -> SharedHistory:
        """Asked for before every forecast; to go through all modules takes longer than a small patch."""
        if self._backbone.training:
            self._backbone.eval()
        return self

    @property
    def tail(self) -> MaskedTimeseries:
        """The last patch of the history."""
        names = ("series", "padding_mask", "id_mask")
        return self._history._replace(
            **{name: getattr(self._history, name)[..., -self._patch :] for name in names}
        )

    def allocate_kv_cache(self, *, device: torch.device, dtype: torch.dtype, **sizes: Any) -> KVCache | None:
        """One for the windows and the patches that are read again, if any are."""
        if self._horizon <= self._patch:
            return None
        series = self._history.series
        steps = series.shape[-1] + self._patch * ((self._horizon - 1) // self._patch)
        return self._backbone.allocate_kv_cache(
            batch_size=len(series),
            num_variates=series.shape[1],
            max_time_steps=steps,
            device=device,
            dtype=dtype,
        )

    def __call__(self, *, inputs: Tensor, kv_cache: KVCache | None, **others: Any) -> TotoOutput:
        drawn = inputs[..., self._patch :]
        if drawn.shape[-1] and kv_cache is not None and kv_cache.batch_size < len(inputs):
            _repeat(kv_cache, self._paths, self._spare)
        steps = min(self._patch, self._horizon - drawn.shape[-1])
        with read_at_end(self._backbone, steps), watched_mixture(self._backbone) as broken:
            base, loc, scale = self._backbone(
                **self._continued(drawn),
                kv_cache=kv_cache,
                scaling_prefix_length=self._history.series.shape[-1],
            )
        loc, scale = (x[..., -self._patch :].repeat(len(inputs) // len(x), 1, 1) for x in (loc, scale))

        def look(drawn: Tensor) -> None:
            self._lost |= is_extreme_value(drawn * scale + loc)[..., :steps].any(-1)

        patch = PatchDraws(*mixture_of(base, steps, broken), self._noise, self._paths, self._patch, look)
        return TotoOutput(patch, loc, scale)

    @property
    def lost(self) -> Tensor:
        """Which paths of the B windows have a step that upstream did not keep, bool [B, V, paths]."""
        lost: Tensor = self._lost.unflatten(0, (self._paths, -1)).permute(1, 2, 0)
        return lost

    def _continued(self, drawn: Tensor) -> dict[str, Tensor]:
        """The history, followed by the draws so far, of every path; the windows' own before the first."""
        series, known, identity = self._history[:3]
        if not drawn.shape[-1]:
            return {"inputs": series, "input_padding_mask": known, "id_mask": identity}

        def after(x: Tensor, more: Tensor) -> Tensor:
            return torch.cat([x.repeat(self._paths, 1, 1), more], -1)

        return {
            "inputs": after(series, drawn),
            "input_padding_mask": after(known, torch.ones_like(drawn, dtype=known.dtype)),
            "id_mask": after(identity, torch.zeros_like(drawn, dtype=identity.dtype)),
        }


def read_at_end(backbone: TotoBackbone, steps: int) -> AbstractContextManager[None]:
    """While it lasts, only the last position is unembedded, to the first `steps` of its patch, or some more.

    (All of it would be almost a third of the work of the released Toto.) Where products are rounded to 16
    bits, those of the distribution are not: torch refuses weights that do not add up to 1.
    """
    head, unembed = backbone.output_distribution, backbone.unembed
    together = -(-steps // STEPS_TOGETHER) * STEPS_TOGETHER
    rows = min(together, backbone.patch_embed.patch_size) * backbone.embed_dim

    def first_steps(stream: Tensor) -> Tensor:
        return nn.functional.linear(stream[..., -1:, :], unembed.weight[:rows], unembed.bias[:rows])

    def exact(stream: Tensor, *scaling: Tensor | None) -> Distribution:
        with torch.autocast(stream.device.type, enabled=False):
            found: Distribution = type(head).forward(head, stream.to(unembed.weight.dtype), *scaling)
        return found

    return substituted_forwards([(unembed, first_steps), (head, exact)])


def _repeat(cache: KVCache, times: int, spare: dict[str, Tensor]) -> None:
    """Tiles a cache `times` times along the batch axis.

    spare : memory of earlier caches, by use; fresh memory is slow
    """
    cache.batch_size *= times
    for name in ("_keys", "_values"):
        own = getattr(cache, name)
        shape = own.shape[0], own.shape[1] * times, *own.shape[2:]
        if name not in spare or spare[name].shape != shape:
            spare[name] = own.new_empty(shape)
        spare[name].unflatten(1, (times, -1)).copy_(own[:, None])
        setattr(cache, name, spare[name])
