"""Upstream models without weights: built to compare shapes, or to be filled from a file.

A config.json can ask for a billion layers. So a model is built twice. First on the meta device, where
tensors have shapes but no memory, and only as long as there are not more of them than the weights could
fill. If the shapes agree, it is built again with parameters on the meta device and everything else
(constants such as rotary frequencies) real; no weights are initialised that a file would replace.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from tsprune.errors import TspruneWarning

SPARE = 128  # parameters beside those of the weights, such as tied ones
TIMES = 3  # a parameter is registered again where modules share it
MOST_CONSTANTS = 2**25  # elements of buffers that no file holds

_Built = TypeVar("_Built")


class TooLargeError(Exception):
    """More was asked for than the weights hold."""


@contextmanager
def _watched(most: int, *, keep_data: bool) -> Iterator[None]:
    """While it lasts, parameters made in this thread lose their data, and no more than `most` are made."""
    thread, count = threading.get_ident(), 0

    def registered(module: nn.Module, name: str, parameter: Any) -> Any:
        nonlocal count
        if threading.get_ident() != thread or parameter is None:
            return None
        count += 1
        if count > most:
            raise TooLargeError("it asks for more tensors than the weights hold")
        # untrained parameters are constants (rotary frequencies), which are not in the file
        if keep_data or parameter.is_meta or not parameter.requires_grad:
            return None
        empty = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        notes = {name: value for name, value in vars(parameter).items() if not callable(value)}
        vars(empty).update(notes)  # of upstream's, which it may insist on
        return empty

    hook = torch_module.register_module_parameter_registration_hook(registered)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        hook.remove()


def outlined(build: Callable[[], _Built], tensors: int) -> _Built:
    """The result of `build` on the meta device: shapes without memory.

    tensors : how many the weights hold

    Raises TooLargeError for many more parameters than that, and the errors of `build`.
    """
    with _watched(TIMES * tensors + SPARE, keep_data=True), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", TspruneWarning)  # it is built again
        return build()


def without_weights(build: Callable[[], _Built], tensors: int) -> _Built:
    """The result of `build`, with parameters on the meta device."""
    with _watched(TIMES * tensors + SPARE, keep_data=False):
        return build()


def require_few_constants(module: nn.Module) -> None:
    """TooLargeError if a module has large buffers that no file holds."""
    stored = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    constants = {id(buffer): buffer.numel() for buffer in module.buffers() if id(buffer) not in stored}
    if sum(constants.values()) > MOST_CONSTANTS:
        raise TooLargeError(f"it asks for tables of {sum(constants.values()):,} numbers")


def constants(module: nn.Module) -> frozenset[str]:
    """Names of buffers that follow from the sizes, so that no file needs to hold them."""
    stored = module.state_dict(keep_vars=True)
    return frozenset(name for name, _ in module.named_buffers() if name not in stored)


def tied(module: nn.Module) -> list[tuple[Tensor, tuple[str, ...]]]:
    """Every tensor of a module's state, with all the names that it has."""
    found: dict[int, tuple[Tensor, tuple[str, ...]]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            _, names = found.get(id(value), (value, ()))
            found[id(value)] = value, (*names, name)
    return list(found.values())


def put(module: nn.Module, names: tuple[str, ...], parameter: nn.Parameter) -> None:
    """Makes `parameter` the one that a module has under these names."""
    for name in names:
        path, _, last = name.rpartition(".")
        module.get_submodule(path)._parameters[last] = parameter
