"""Batches that fit: how much a record takes per window, and going on with smaller batches.

Chunks are part of a protocol: some families' forecasts depend, to rounding, on the other windows of
their batch, so scores are comparable to the last bit only between equal chunks.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from numpy.typing import ArrayLike

from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.replay.replay import Replay

Item = TypeVar("Item")
Result = TypeVar("Result")
_UNLIMITED = 2**63 - 1


def record_bytes(model: Forecaster, contexts: Sequence[ArrayLike], horizon: int) -> int:
    """Bytes that the whole record of a clean pass takes per window, measured on `contexts`.

    Take a few windows (two to four), the longest ones: shorter ones take less. What does not grow
    with the batch (masks, position biases) is counted as if it did, so the estimate is a little high.
    """
    replay = Replay(model, _UNLIMITED)
    with replay.record("sample"):
        model.forecast(contexts, horizon)
    return -(-replay.nbytes // len(contexts))


def in_parts(
    work: Callable[[Sequence[Item]], Result], items: Sequence[Item], size: int | None = None
) -> Iterator[tuple[slice, Result]]:
    """Does `work` on `items`, at most `size` at once, and on half as many whenever memory runs out.

    Yields which items, and what `work` returned for them, in order. Once halved, the size stays:
    a caller with more items should pass on the size of the last slice.

    Raises TspruneError if the memory is not even enough for one item, or for a size below 1.
    """
    if size is not None and size < 1:
        raise TspruneError(f"the batch size must be at least 1, not {size}")
    most, start = size or len(items), 0
    while start < len(items):
        part = slice(start, min(start + most, len(items)))
        result = _attempted(work, items[part])
        if result is None:
            count = part.stop - part.start
            if count == 1:
                raise TspruneError(
                    "out of memory with a single window; use a shorter context or a smaller replay memory"
                )
            most = count // 2
            gc.collect()  # frames of the failed attempt may hold tensors in cycles
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield part, result[0]
        start = part.stop


def _attempted(work: Callable[[Sequence[Item]], Result], items: Sequence[Item]) -> tuple[Result] | None:
    """What `work` returned, or None if memory ran out; its frames are gone by then."""
    try:
        return (work(items),)
    except torch.OutOfMemoryError:  # torch.cuda.OutOfMemoryError is another name of it
        return None
    except (RuntimeError, MemoryError) as error:
        # torch has no exception of its own for the CPU's memory
        if isinstance(error, MemoryError) or "not enough memory" in str(error):
            return None
        raise
