"""The residual stream of a stack: what every block is given and returns, recorded or replaced.

Blocks take and return the stream in containers of their own kind (a tuple with a cache, a dict); it is
the first tensor of the model's width among what a block is given, and among what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from tsprune.anatomy import Block, Stack
from tsprune.models.forecaster import Forecaster

Edit = Callable[[Tensor], Tensor]


@contextmanager
def streams(model: Forecaster, stack: Stack, *, gradients: bool = False) -> Iterator[list[list[Tensor]]]:
    """Records the stream of `stack` while the context lasts.

    Yields a list by layer of tensors by call, [..., T, d_model]: first what the first block is given
    (the embedding), then what each of the L blocks that are there returns; L + 1 in all.
    With `gradients` they stay part of the graph they were computed in.
    """

    def seen(value: Any) -> Tensor:
        stream = stream_of(model, value)
        return stream if gradients else stream.detach()

    recorded: list[list[Tensor]] = [[] for _ in range(len(stack.blocks) + 1)]
    with model.alone(keeps=True), ExitStack() as hooks:
        for place, block in enumerate(stack.blocks):
            module = model.module.get_submodule(block.module)

            def hook(_: Any, args: Any, kwargs: Any, output: Any, place: int = place) -> None:
                if place == 0:
                    recorded[0].append(seen((args, kwargs)))
                recorded[place + 1].append(seen(output))

            hooks.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield recorded


@contextmanager
def replaced(model: Forecaster, block: Block, edit: Edit) -> Iterator[None]:
    """The stream that `block` returns goes through `edit` while the context lasts."""
    module = model.module.get_submodule(block.module)

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        stream = stream_of(model, output)
        return _exchanged(output, stream, edit(stream))

    with model.alone(keeps=True), ExitStack() as hooks:
        hooks.callback(module.register_forward_hook(hook).remove)
        yield


def stream_of(model: Forecaster, value: Any) -> Tensor:
    """The stream in what a block is given, (args, kwargs), or in what it returns: [..., T, d_model]."""
    found = _first(value, model.anatomy.d_model)
    assert found is not None, "a block without a residual stream"
    return found


def _first(value: Any, width: int) -> Tensor | None:
    if isinstance(value, Tensor):
        return value if value.is_floating_point() and value.shape[-1:] == (width,) else None
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return next((found for item in items if (found := _first(item, width)) is not None), None)


def _exchanged(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value` with the tensor `old` (that very one) replaced by `new`; containers are made anew."""
    if value is old:
        return new
    if isinstance(value, dict):
        return type(value)(**{name: _exchanged(item, old, new) for name, item in value.items()})
    if type(value) in (tuple, list):
        return type(value)(_exchanged(item, old, new) for item in value)
    return value
