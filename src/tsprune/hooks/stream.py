"""The residual stream of a stack, recorded or replaced between blocks.

Blocks take and return the stream inside containers (a tuple with a cache, a dict). The stream is the first
tensor of the model's width among a block's arguments, and among its results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from tsprune.anatomy import Block, Stack
from tsprune.hooks.capture import time_last
from tsprune.models.forecaster import Forecaster


@contextmanager
def streams(model: Forecaster, stack: Stack, *, gradients: bool = False) -> Iterator[list[list[Tensor]]]:
    """Records the stream of `stack` while the context lasts.

    Yields L + 1 lists of tensors [..., T, d_model], one per call: the input of the first block (the
    embedding), then the output of each of the L blocks. They are detached unless `gradients` is set.
    """

    def seen(value: Any, block: Block) -> Tensor:
        stream = stream_of(model, value, block)
        return stream if gradients else stream.detach()

    recorded: list[list[Tensor]] = [[] for _ in range(len(stack.blocks) + 1)]
    with model.alone(keeps=True), ExitStack() as hooks:
        for place, block in enumerate(stack.blocks):
            module = model.module.get_submodule(block.module)

            def hook(
                _: Any, args: Any, kwargs: Any, output: Any, place: int = place, block: Block = block
            ) -> None:
                if place == 0:
                    recorded[0].append(seen((args, kwargs), block))
                recorded[place + 1].append(seen(output, block))

            hooks.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield recorded


@contextmanager
def replaced(model: Forecaster, block: Block, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replaces the stream that `block` returns by `edit` of it, while the context lasts."""
    module = model.module.get_submodule(block.module)

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        stream = _first(output, model.anatomy.d_model)
        assert stream is not None
        edited = time_last(edit(time_last(stream, block.across)), block.across)
        return _exchanged(output, stream, edited)

    with model.alone(keeps=True), module.register_forward_hook(hook):
        yield


def stream_of(model: Forecaster, value: Any, block: Block) -> Tensor:
    """The stream [..., T, d_model] in the arguments of `block`, (args, kwargs), or in its result."""
    found = _first(value, model.anatomy.d_model)
    assert found is not None, "a block without a residual stream"
    return time_last(found, block.across).flatten(0, 1) if block.across else found


def _first(value: Any, width: int) -> Tensor | None:
    if isinstance(value, Tensor):
        return value if value.is_floating_point() and value.shape[-1:] == (width,) else None
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return next((found for item in items if (found := _first(item, width)) is not None), None)


def _exchanged(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value` with the tensor `old` (by identity) replaced by `new`, in new containers."""
    if value is old:
        return new
    if isinstance(value, dict):
        return type(value)(**{name: _exchanged(item, old, new) for name, item in value.items()})
    if type(value) in (tuple, list):
        return type(value)(_exchanged(item, old, new) for item in value)
    return value
