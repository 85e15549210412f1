"""Inputs that laws are tried on, and ways to look at a model while it computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tsprune.anatomy import Anatomy, Component
from tsprune.models.forecaster import Forecaster

Context = NDArray[np.float32]
_Item = TypeVar("_Item")
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def ragged(model: Forecaster, count: int = 6) -> list[Context]:
    """Up to 6 series of different lengths: tiny, odd, with gaps, NaN in front, beyond the context length."""
    rng = np.random.default_rng(5)
    full = model.context_length
    lengths = [full, full // 2 + 3, full + 29, full - 1, 3, 2 * full + 5]
    series = [
        10 * np.sin(np.arange(n) / 4 + i) + 3 * i + rng.standard_normal(n) for i, n in enumerate(lengths)
    ]
    series[1][[0, 4, 5, 6, -3]] = np.nan
    series[2][-full // 2 :: 5] = np.nan
    series[2][20:40] = np.nan  # across the place where it is cut off
    series[3][: full // 3] = np.nan
    series[5][: full + 11] = np.nan
    return [x.astype(np.float32) for x in series[:count]]


def multivariate(model: Forecaster, count: int = 1) -> list[Context]:
    """Up to 2 contexts of 3 variates: half of the context length, with gaps; and beyond it."""
    rng = np.random.default_rng(6)
    contexts = []
    for place, length in enumerate((model.context_length // 2 + 3, model.context_length + 29)[:count]):
        common = 10 * np.sin(np.arange(length) / 4 + place)
        context = common * [[1], [0.5], [-2]] + rng.standard_normal((3, length))
        context[0, [0, 5, 6, -3]] = np.nan
        context[1, : length // 3] = np.nan
        contexts.append(context.astype(np.float32))
    return contexts


def full_length(model: Forecaster, count: int, seed: int = 0) -> list[Context]:
    """Random walks of exactly the context length, without gaps."""
    rng = np.random.default_rng(seed)
    walks = rng.standard_normal((count, model.context_length)).cumsum(1)
    return list(walks.astype(np.float32))


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most `most` of `items`, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def one_head_each(anatomy: Anatomy) -> list[Component]:
    """A head of every attention sublayer that has some: the first of one, the second of the next, ..."""
    sites = [(sublayer, site) for sublayer, site in anatomy.sites() if site.heads]
    return [
        dataclasses.replace(sublayer, head=site.numbers[place % site.heads])
        for place, (sublayer, site) in enumerate(sites)
    ]


def _traces(module: nn.Module) -> dict[str, list[object]]:
    """Everything that could change a module's behaviour besides its tensors, by place."""
    traces: dict[str, list[object]] = {}
    for name, part in module.named_modules():
        for hooks in _HOOKS:
            traces[f"{name} {hooks}"] = list(getattr(part, hooks))
        traces[f"{name} forward"] = [part.__dict__["forward"]] if "forward" in part.__dict__ else []
    return traces


@contextmanager
def pristine(model: Forecaster) -> Iterator[None]:
    """Raises AssertionError unless the model is afterwards bit for bit as before, without a hook."""
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    traces = _traces(model.module)
    try:
        yield
    finally:
        after = model.module.state_dict()
        same = after.keys() == before.keys() and all(
            torch.equal(after[name], before[name]) for name in before
        )
        if not same or _traces(model.module) != traces:
            raise AssertionError("the model is not as it was: a weight, a hook or a forward is left changed")


class _Widening(TorchFunctionMode):
    """Where float64 meets float32, float32 is widened; only values assigned to a part of it are rounded."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if len(args) > 1:  # most calls, such as those of properties, have one and need no look at it
            args = self._widened(func, args)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _widened(func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
        if func is torch.Tensor.__setitem__ and isinstance(args[2], torch.Tensor):
            return (*args[:2], args[2].to(args[0].dtype))
        types = [x.dtype if isinstance(x, torch.Tensor) else None for x in args]
        if torch.float64 in types and torch.float32 in types:
            return tuple(x.double() if t == torch.float32 else x for x, t in zip(args, types, strict=True))
        return args


@contextmanager
def double_precision(model: Forecaster) -> Iterator[None]:
    """The network computes in float64, with the same weights, while the context lasts.

    Two computations that are equal up to rounding then differ by some 1e-16, which no depth of network
    makes 1e-6, and no sampled path meets the edge between two draws.
    """
    model.module.double()
    try:
        with _Widening():
            yield
    finally:
        model.module.float()


@contextmanager
def zeroed(parameter: Tensor, columns: slice | None = None) -> Iterator[None]:
    """A weight with some of its input columns (None: all) at zero while the context lasts."""
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter[..., columns if columns is not None else slice(None)] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def _is_copy(value: object, weight: Tensor) -> bool:
    """Whether `value` is a weight, or holds the same numbers: some upstreams pass it through an operation."""
    same_shape = isinstance(value, Tensor) and value.shape == weight.shape
    return value is weight or (same_shape and torch.equal(value, weight))  # type: ignore[arg-type]


class CountLinear(TorchFunctionMode):
    """Counts how often weights, or copies of them, are used by torch.nn.functional.linear.

    counts : of each weight, in the order given
    """

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.weights = weights
        self.counts = [0] * len(weights)

    @property
    def count(self) -> int:
        """Uses of all weights together."""
        return sum(self.counts)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is nn.functional.linear:
            for place, weight in enumerate(self.weights):
                self.counts[place] += any(_is_copy(value, weight) for value in args)
        return func(*args, **(kwargs or {}))


class QueriesAndKeys(TorchFunctionMode):
    """Collects the (query, key) of every call of torch's scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key"), args, strict=False)) | (kwargs or {})
            self.seen.append((given["query"], given["key"]))
        return func(*args, **(kwargs or {}))
