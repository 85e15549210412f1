"""A pretend accelerator: its tensors are computed on the CPU, and code must treat them as those of a GPU.

`accelerator()` makes the devices "pretend:0" and "pretend:1" usable while it lasts. As on CUDA, tensors of
two devices do not mix (but for scalars, copies, and indices on the CPU), `.numpy()` and `np.asarray` raise,
and generators of the CPU draw nothing there. Copies to the CPU and other reads of values are counted.

The name of a device cannot be taken back from torch. Importing this module therefore registers it, as
unavailable; `accelerator()` adds everything else and removes it again. Import it at the top of a test module,
because autograd counts the devices at the first backward pass of a process.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils.backend_registration import (
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)

NAME = "pretend"
DEVICE = f"{NAME}:0"
COUNT = 2
_HOST = torch.device("cpu")
_aten = torch.ops.aten

# made on the device without a tensor that is there already; all other factories end in one of these
_FACTORIES = (
    "empty.memory_format",
    "empty_strided",
    "arange",
    "arange.start",
    "arange.start_step",
    "linspace",
    "eye",
    "eye.m",
    "randperm",
    "tril_indices",
    "triu_indices",
)
_COPIES = {_aten.copy_.default, _aten._to_copy.default, _aten.copy.default}
_INDEXED = {_aten.index.Tensor, _aten._unsafe_index.Tensor}
_ASSIGNED = {_aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default}
# results whose value or shape the CPU must know
_READS = {
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.unique_dim.default,
    _aten.unique_consecutive.default,
    _aten.bincount.default,
    _aten.repeat_interleave.Tensor,
}
_PRODUCTS = {_aten.mm.default, _aten.bmm.default, _aten.addmm.default}
_MANY_ROWS = 64


@dataclasses.dataclass
class Tally:
    """Transfers since the accelerator was entered.

    copies : tensors that were copied to the CPU
    reads : values or shapes that the CPU waited for (`item`, `equal`, boolean indices)
    places : where, as file:line outside of torch
    largest : bytes of the largest tensor that was made
    """

    copies: int = 0
    reads: int = 0
    places: Counter[str] = dataclasses.field(default_factory=Counter)
    largest: int = 0

    @property
    def transfers(self) -> int:
        return self.copies + self.reads


@dataclasses.dataclass
class _State:
    """The accelerator that is in use.

    most, kernels_by_rows : as in `accelerator`
    """

    tally: Tally
    most: float
    kernels_by_rows: bool


_state: _State | None = None


class _Hook(_DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return _state is not None


class _Module:
    """`torch.pretend`, which torch asks about the device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return _state is not None

    def device_count(self) -> int:
        return COUNT if _state is not None else 0

    def current_device(self) -> int:
        return 0

    def get_device_name(self, device: Any = None) -> str:
        return "Pretend P100"

    def synchronize(self, device: Any = None) -> None:
        """All is computed at once."""

    def empty_cache(self) -> None:
        """Nothing is kept."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """There are no generators on the device."""


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module(), hook=_Hook())


class Remote(Tensor):
    """A tensor on the device; `host` has its values."""

    host: Tensor
    # nothing is done where functions are called; the default costs every call and every property
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor, device: torch.device) -> Remote:
        made: Remote = Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=device,
        )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Remote({self.host!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied: Tensor = self.detach().clone()
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied, self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def untyped_storage(self) -> Any:
        return self.host.untyped_storage()


@dataclasses.dataclass(frozen=True)
class _Traits:
    """Facts of an operator.

    composite : it may be made of others
    reshapes : it changes the shape of its argument in place
    """

    composite: bool
    reshapes: bool
    copies: bool
    assigns: bool
    indexed: bool
    reads: bool
    product: bool


@functools.cache
def _traits(func: Any) -> _Traits:
    return _Traits(
        func._can_decompose(),
        torch.Tag.inplace_view in func.tags,
        func in _COPIES,
        func in _ASSIGNED,
        func in _INDEXED | _ASSIGNED,
        func in _READS,
        func in _PRODUCTS,
    )


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Computes one torch operator with at least one tensor of the device."""
    if _state is None:
        raise RuntimeError(f"no {NAME} device: its accelerator() was left")
    traits = _traits(func)
    if traits.composite:
        made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
    given = [*_leaves(args), *_leaves(kwargs.values())]
    if not traits.copies:
        _require_one_device(func, args, kwargs, given)
    device = _device_of_result(traits, args, given)
    _count(traits, args, device)
    if traits.reshapes:  # shape and strides, which the wrapper has too
        with no_dispatch():
            func(*args, **kwargs)
    remote = {id(x.host): x for x in given if isinstance(x, Remote)}
    hosts = _on_host(args), {name: _on_host(x) for name, x in kwargs.items()}
    if _state.kernels_by_rows and traits.product:
        result = _in_halves(func, *hosts[0], **hosts[1])
    else:
        result = func(*hosts[0], **hosts[1])
    return _there(result, device, remote)


def _there(x: Any, device: torch.device, remote: dict[int, Remote]) -> Any:
    """A result on the device; what was changed in place is the argument that it was."""
    if isinstance(x, (list, tuple)):
        return type(x)(_there(part, device, remote) for part in x)
    if not isinstance(x, Tensor):
        return x
    if id(x) in remote:
        return remote[id(x)]
    return x if device.type == _HOST.type else _placed(x, device)


def _in_halves(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    """A product of many rows, summed over the second half of the inner dimension first."""
    *bias, left, right = args
    half = left.shape[-1] // 2
    result: Tensor = func(*args, **kwargs)
    if left.shape[-2] <= _MANY_ROWS or not half:
        return result
    parts = [left[..., half:] @ right[..., half:, :], left[..., :half] @ right[..., :half, :]]
    return sum(parts) if not bias else func(*bias, left * 0, right, **kwargs) + sum(parts)


def _placed(host: Tensor, device: torch.device) -> Remote:
    assert _state is not None
    size = host.untyped_storage().nbytes()
    if size > _state.most:
        raise torch.OutOfMemoryError(f"{NAME} out of memory. Tried to allocate {size} bytes.")
    _state.tally.largest = max(_state.tally.largest, size)
    if host.is_inference() == torch.is_inference_mode_enabled():
        return Remote(host, device)
    with torch.inference_mode(host.is_inference()):  # a view of a tensor from outside of inference mode
        return Remote(host, device)


def _on_host(x: Any) -> Any:
    if isinstance(x, Remote):
        return x.host
    if isinstance(x, (list, tuple)):
        return type(x)(map(_on_host, x))
    return _HOST if isinstance(x, torch.device) else x


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Arguments of an operator, those in lists one by one; torch's own trees take most of a test's time."""
    for x in values:
        if isinstance(x, (list, tuple)):
            yield from _leaves(x)
        else:
            yield x


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [x for x in _leaves(values) if isinstance(x, Tensor)]


def _require_one_device(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Any]) -> None:
    """RuntimeError where CUDA raises one."""
    checked = [x for x in given if isinstance(x, Tensor)]
    if _traits(func).indexed:
        for index in _tensors(args[1]):
            if index.device not in (_HOST, args[0].device):
                raise RuntimeError(
                    f"indices should be either on cpu or on the same device ({args[0].device})"
                )
        checked = [args[0], *_tensors(args[2:])]
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != NAME:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{generator.device}'")
    devices = {x.device for x in checked if x.device.type == NAME or x.dim() > 0}
    if len(devices) > 1:
        found = " and ".join(sorted(map(str, devices)))
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {found}! ({func})")


def _device_of_result(traits: _Traits, args: tuple[Any, ...], given: list[Any]) -> torch.device:
    for x in given:
        if isinstance(x, torch.device):
            return _indexed(x)
    if traits.copies or traits.indexed:
        device: torch.device = args[0].device
        return device
    return next(x.device for x in given if isinstance(x, Remote))


def _indexed(device: torch.device) -> torch.device:
    if device.type != NAME:
        return device
    number = device.index or 0
    if number >= COUNT:
        raise RuntimeError(f"{NAME} error: invalid device ordinal {number}")
    return torch.device(NAME, number)


def _count(traits: _Traits, args: tuple[Any, ...], device: torch.device) -> None:
    assert _state is not None
    if traits.copies and device == _HOST:
        _state.tally.copies += 1
    elif traits.reads or (traits.indexed and _by_mask(traits, args)):
        _state.tally.reads += 1
    else:
        return
    _state.tally.places[_caller()] += 1


def _caller() -> str:
    frame, inside = sys._getframe(1), (__file__, str(Path(torch.__file__).parent))
    while frame.f_back and frame.f_code.co_filename.startswith(inside):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _by_mask(traits: _Traits, args: tuple[Any, ...]) -> bool:
    """Whether the number of indexed elements is known on the device only."""
    masks = any(x.dtype in (torch.bool, torch.uint8) and isinstance(x, Remote) for x in _tensors(args[1]))
    return masks and not (traits.assigns and args[2].numel() == 1)  # a scalar is filled in


def _factory(name: str) -> Callable[..., Tensor]:
    packet, _, overload = name.partition(".")
    func = getattr(getattr(_aten, packet), overload or "default")

    def made(*args: Any, device: torch.device, pin_memory: bool | None = None, **kwargs: Any) -> Tensor:
        if _state is None:
            raise RuntimeError(f"no {NAME} device: use it in accelerator()")
        return _placed(func(*args, device=_HOST, **kwargs), _indexed(device))

    return made


@contextmanager
def accelerator(*, most: float = float("inf"), kernels_by_rows: bool = False) -> Iterator[Tally]:
    """The device can be used while the context lasts; yields the count of its transfers.

    most : bytes of the largest tensor that fits; larger ones raise torch.OutOfMemoryError
    kernels_by_rows : products with more than 64 rows are summed in another order, so that the bits of a row
        depend on the number of rows, as with the kernels of GPUs
    """
    global _state
    assert _state is None, "the accelerator is in use"
    library = torch.library.Library("aten", "IMPL")
    everything = torch.library.Library("_", "IMPL")
    overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    try:
        for name in _FACTORIES:
            library.impl(name, _factory(name), "PrivateUse1")
        everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        # torch.tensor(..., device=NAME) is made on the CPU, then moved
        torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        _state = _State(Tally(), most, kernels_by_rows)
        yield _state.tally
    finally:
        _state = None
        torch.__future__.set_overwrite_module_params_on_conversion(overwriting)
        torch._C._set_only_lift_cpu_tensors(False)
        everything._destroy()
        library._destroy()
