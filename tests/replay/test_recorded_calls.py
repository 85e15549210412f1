"""The ledger: never more than the limit, shared memory once, cheap calls make room for dear ones."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tsprune.replay.recorded_calls import Call, CallRecord, Ledger, Worth
from tsprune.replay.values import storages

FLOAT = 4  # bytes


def record(*tensors: Tensor) -> CallRecord:
    return CallRecord(tensors, None, [])


def entered(ledger: Ledger, tensor: Tensor, worth: Worth, *, first: bool = True) -> Call:
    call = Call()
    assert ledger.enter(call, record(tensor), worth, first=first) == (call.record is not None)
    return call


def test_what_does_not_fit_is_not_kept() -> None:
    ledger = Ledger(10 * FLOAT)
    kept, left = entered(ledger, torch.ones(6), Worth.BLOCK), entered(ledger, torch.ones(5), Worth.BLOCK)
    assert kept.record is not None
    assert left.record is None
    assert entered(ledger, torch.ones(4), Worth.SUBLAYER).record is not None
    assert ledger.used == 10 * FLOAT


def test_views_of_one_storage_count_once() -> None:
    ledger = Ledger(6 * FLOAT)
    whole = torch.ones(2, 3)
    for view in (whole, whole[0], whole.T, whole.expand(5, 2, 3)):
        assert entered(ledger, view, Worth.BLOCK).record is not None
    assert ledger.used == 6 * FLOAT


def test_the_cheapest_makes_room() -> None:
    ledger = Ledger(8 * FLOAT)
    block = entered(ledger, torch.ones(4), Worth.BLOCK)
    sublayer = entered(ledger, torch.ones(4), Worth.SUBLAYER)
    stack = entered(ledger, torch.ones(3), Worth.STACK)
    assert (block.record is None, sublayer.record is None, stack.record is None) == (False, True, False)
    assert ledger.used == 7 * FLOAT


def test_a_later_call_never_takes_the_place_of_a_first_one() -> None:
    ledger = Ledger(4 * FLOAT)
    first = entered(ledger, torch.ones(4), Worth.SUBLAYER)
    assert entered(ledger, torch.ones(2), Worth.ENTRY, first=False).record is None
    assert first.record is not None


def test_what_can_never_fit_evicts_nothing() -> None:
    ledger = Ledger(4 * FLOAT)
    small = entered(ledger, torch.ones(4), Worth.SUBLAYER)
    assert entered(ledger, torch.ones(5), Worth.ENTRY).record is None
    assert small.record is not None


def test_memory_shared_with_an_evicted_call_is_counted_anew() -> None:
    """The block's storage is held by nobody once the sublayer that shared it is gone."""
    shared = torch.ones(4)
    ledger = Ledger(6 * FLOAT)
    sublayer = entered(ledger, shared, Worth.SUBLAYER)
    both = Call()
    kept = ledger.enter(both, record(shared, torch.ones(3)), Worth.BLOCK)  # 3 more, not 7, but only 6 fit
    assert not kept
    assert both.record is None
    assert sublayer.record is None
    assert ledger.used == 0


sizes = st.integers(0, 6)
worths = st.sampled_from(list(Worth))


@given(st.integers(0, 40), st.lists(st.tuples(sizes, worths, st.booleans(), st.booleans()), max_size=25))
def test_used_is_what_is_held_and_within_the_limit(
    limit: int, entries: list[tuple[int, Worth, bool, bool]]
) -> None:
    ledger = Ledger(limit * FLOAT)
    pool = [torch.ones(size) for size in range(7)]
    calls = []
    for size, worth, first, shared in entries:
        tensor = pool[size] if shared else torch.ones(size)
        calls.append(entered(ledger, tensor, worth, first=first))
        held: dict[int, int] = {}
        for call in calls:
            if call.record is not None:
                held |= storages(call.record.output)
        assert ledger.used == sum(held.values()) <= ledger.limit


def test_a_record_changed_in_place_is_not_used() -> None:
    tensor = torch.ones(3)
    call = Call(record(tensor[:2]))
    assert call.usable is not None
    tensor.add_(1)  # through another view of the same memory
    assert call.usable is None


def test_inference_tensors_have_no_version() -> None:
    with torch.inference_mode():
        assert Call(record(torch.ones(2))).usable is not None
