"""Smaller batches when memory runs out, of a CPU or of an accelerator.

Some families' forecasts depend, up to rounding, on the other windows of the batch. Scores are therefore
comparable bit by bit only between equal batches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from tsprune.errors import TspruneError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_parts(
    work: Callable[[Sequence[_Item]], _Result], items: Sequence[_Item], size: int | None = None
) -> Iterator[tuple[slice, _Result]]:
    """Calls `work` on parts of at most `size` items, and halves the parts whenever memory runs out.

    Yields each part with its result, in order. The parts stay small once they were halved. `work` must leave
    nothing behind when it fails.

    Raises TspruneError if a single item does not fit in memory, or for a size below 1.
    """
    if size is not None and size < 1:
        raise TspruneError(f"the batch size must be at least 1, not {size}")
    most, start = size or len(items), 0
    while start < len(items):
        part = slice(start, min(start + most, len(items)))
        result = _attempted(work, items[part])
        if result is not None:
            yield part, result[0]
            start = part.stop
            continue
        most = (part.stop - start) // 2
        if not most:
            raise TspruneError(
                "out of memory with a single window; use a shorter context or a smaller replay memory"
            )
        free_memory()


def free_memory() -> None:
    """Frees memory that nothing uses any more."""
    gc.collect()  # frames of a failed attempt may hold tensors in cycles
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is not None:
        torch.get_device_module(device).empty_cache()


def _attempted(work: Callable[[Sequence[_Item]], _Result], items: Sequence[_Item]) -> tuple[_Result] | None:
    """The result of `work`, or None if memory ran out (its frames are released by then)."""
    try:
        return (work(items),)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None


def out_of_memory(error: Exception) -> bool:
    """Whether `error` reports a lack of memory; torch has no exception of its own for the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)
