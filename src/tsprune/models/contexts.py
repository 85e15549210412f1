"""_Series that callers pass: converted to float32 arrays, or refused in one line, alike for every family.

A series is [T], a multivariate one [V, T] with a row per variate. Past covariates are further rows, which are
read and not forecast.
Masked, None, NA, NaN and infinite values are missing (NaN from here on). Anything that is no real number is
refused, and so are finite numbers that float32 cannot hold.
"""

from __future__ import annotations

import decimal
import math
import numbers
import sys
import warnings
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import shape_of, shown, whole
from tsprune.errors import TspruneError

if TYPE_CHECKING:
    from torch import Tensor

_Series = NDArray[np.float32]
ContextLike = ArrayLike | Mapping[str, Any]

# GIFT-Eval's longest horizon is 900; every family forecasts this many steps in bounded memory
MOST_STEPS = 2**14
LARGEST = float(np.finfo(np.float32).max)
_UNLIKE = "has {} dimensions; pass an array [steps] per series, or [variates, steps]"
_TOO_LARGE = f"has values beyond {LARGEST:.1e}, the range of float32; rescale it"
_KINDS = {"c": "complex numbers", "M": "dates", "m": "durations", "V": "records"}
_KINDS |= dict.fromkeys("SUT", "text")


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether it is a torch tensor; exported models are used without torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


class CheckedContext(NamedTuple):
    """A checked context.

    values : [T] of a single series; [V + C, T] of V variates, and of C past covariates after them
    covariates : C
    """

    values: _Series
    covariates: int = 0


class CovariateContext:
    """A context with past covariates, an array [V + C, T] to numpy.

    target : [T], or [V, T] of several variates, to forecast
    past_covariates : [C, T], of the same steps
    """

    def __init__(self, target: ArrayLike, past_covariates: ArrayLike) -> None:
        self.target = target
        self.past_covariates = past_covariates

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        rows = [np.atleast_2d(np.asarray(part)) for part in (self.target, self.past_covariates)]
        return np.concatenate(rows).astype(dtype or np.float32, copy=False)


class _RefusedError(Exception):
    """Why a series cannot be used, to be completed by which one it is."""


def checked_horizon(horizon: object) -> int:
    """The horizon as an int; TspruneError unless it is a whole number between 1 and `MOST_STEPS`."""
    return whole(horizon, "the horizon", most=MOST_STEPS)


def checked_contexts(contexts: Sequence[ContextLike], horizon: int = 1) -> list[_Series]:
    """Contexts as fresh float32 arrays [T], or [V, T] with V > 1, NaN where a value is missing.

    Infinite values are missing. Raises TspruneError with one line that names the series, or the horizon, and
    for past covariates.
    """
    checked_horizon(horizon)
    return [context.values for context in read_contexts(contexts, "this forecaster")]


def read_contexts(contexts: Sequence[ContextLike], unable: str | None = None) -> list[CheckedContext]:
    """Contexts as fresh float32 arrays, NaN where a value is missing, with the numbers of past covariates.

    contexts : arrays; with past covariates a `CovariateContext`, or {"target": ..., "past_covariates": ...}
        as chronos-forecasting takes them
    unable : name of what reads no past covariates; None: they are read

    Raises TspruneError with one line that names the series.
    """
    found = []
    for index, context in enumerate(_each(contexts)):
        try:
            found.append(_read(context))
        except _RefusedError as refused:
            raise TspruneError(f"series {index} {refused}") from None
        if unable is not None and found[-1].covariates:
            raise TspruneError(
                f"series {index} has past covariates, which {unable} does not read; pass its target alone"
            )
    if not found:
        raise TspruneError("no series to forecast: the list of contexts is empty")
    return found


def _read(context: Any) -> CheckedContext:
    if isinstance(context, CovariateContext):
        context = {"target": context.target, "past_covariates": context.past_covariates}
    if not isinstance(context, Mapping):
        return CheckedContext(_observed(context))
    if not {"target"} <= set(context) <= {"target", "past_covariates"}:
        known = 'a dictionary of a series has "target" and "past_covariates"'
        raise _RefusedError(f"has the keys {', '.join(map(str, context))}; {known}")
    target, past = _observed(context["target"]), context.get("past_covariates", {})
    named = past if isinstance(past, Mapping) else {"past_covariates": past}
    rows = [(name, np.atleast_2d(_numbers(values))) for name, values in named.items()]
    if not any(row.size for _, row in rows):
        return CheckedContext(target)
    for name, row in rows:
        if row.ndim != 2 or row.shape[-1] != target.shape[-1]:
            shape = " x ".join(map(str, row.shape[row.ndim == 2 and len(row) == 1 :]))
            raise _RefusedError(
                f"has {target.shape[-1]} steps, and its past covariate {shown(name)} has {shape}"
            )
    whole = np.concatenate([np.atleast_2d(target), *(row for _, row in rows)])
    whole[np.isinf(whole)] = np.nan
    return CheckedContext(whole, len(whole) - len(np.atleast_2d(target)))


def _each(contexts: Any) -> list[Any]:
    """The series, if `contexts` is a list of them."""
    hint = "pass a list of series, one array or list of numbers each"
    if isinstance(contexts, str | bytes | bytearray | dict | Set):
        raise TspruneError(f"contexts are a {type(contexts).__name__}; {hint}")
    if len(shape_of(contexts) or ()) == 2 and not (isinstance(contexts, np.ndarray) or _is_tensor(contexts)):
        raise TspruneError(f"contexts are a table ({type(contexts).__name__}); {hint}")
    try:
        len(contexts)  # a generator may never end
        found = list(contexts)
    except Exception:  # a single number, None, or an object of any class
        raise TspruneError(f"contexts are {shown(contexts)}; {hint}") from None
    if found and (isinstance(found[0], numbers.Number) or shape_of(found[0]) == ()):
        raise TspruneError(
            "series 0 has 0 dimensions (it is a single number); wrap a single series in a list: [series]"
        )
    return found


def _observed(context: Any) -> _Series:
    """One series, or several variates; raises _RefusedError, whose message goes on from "series 3 "."""
    array = _numbers(context)
    if array.ndim not in (1, 2):
        raise _RefusedError(_UNLIKE.format(array.ndim))
    if array.size == 0:
        raise _RefusedError("is empty; a forecast needs at least one observed value")
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if np.isfinite(array).all():  # almost always
        return array
    infinite = np.isinf(array)
    if infinite.any():
        array[infinite] = np.nan
    # the last value first: mostly that is all there is to look at
    if np.isnan(array[..., -1]).any() and (unseen := np.isnan(array).all(-1)).any():
        lost = infinite if array.ndim == 1 else infinite[int(np.argmax(unseen))]
        where = "" if array.ndim == 1 else f" in variate {int(np.argmax(unseen))}"
        how = "missing" if not lost.any() else "infinite" if lost.all() else "missing or infinite"
        raise _RefusedError(f"has no observed value{where} (all {how}); leave it out")
    return array


def _numbers(context: Any) -> _Series:
    """`context` as a fresh float32 array of any shape; infinity remains."""
    if type(context) is np.ndarray and context.dtype == np.float32:
        return context.copy()  # upstream code may write to it
    return _float32(_array(context))


def _array(context: Any) -> NDArray[Any]:
    """`context` as an array of any dtype, missing values of masked arrays and tables as NaN."""
    if type(context) is np.ndarray:
        return context
    if _is_tensor(context):
        return _of_tensor(context)
    if isinstance(context, str | bytes | bytearray):
        raise _RefusedError("is not a sequence of numbers but text")
    if hasattr(context, "columns"):
        raise _RefusedError("is a table; pass an array [variates, steps], say table.to_numpy().T")
    if str(getattr(context, "dtype", "")) == "category":
        raise _RefusedError("is not a sequence of numbers but of categories")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of masked elements in lists, which are missing
            if isinstance(context, np.ma.MaskedArray):
                return _unmasked(context)
            return np.asarray(context)
    except Exception:  # ragged lists, tensors with gradients in a list, foreign classes
        if isinstance(context, list | tuple):
            return _of_objects(context)
        raise _RefusedError("is not a sequence of numbers") from None


def _of_tensor(context: Tensor) -> NDArray[Any]:
    if context.is_complex():
        raise _RefusedError("is not a sequence of numbers but of complex numbers")
    try:
        dense = context.detach().to_dense() if context.is_sparse else context.detach()
        # numpy has no bfloat16
        return (dense.float() if dense.is_floating_point() and dense.itemsize < 4 else dense).cpu().numpy()
    except Exception:  # of the meta device, quantised, nested
        raise _RefusedError("is a tensor that has no values to read") from None


def _unmasked(context: np.ma.MaskedArray[Any, Any]) -> NDArray[Any]:
    kind = context.dtype.kind
    if kind not in "biuf":
        return np.asarray(context.data)  # refused, masked or not
    values = np.array(context.data, dtype=np.result_type(context.dtype, np.float64))
    values[np.ma.getmaskarray(context)] = np.nan
    return values


def _float32(array: NDArray[Any]) -> _Series:
    if array.dtype.kind == "O":
        if array.ndim not in (1, 2):
            raise _RefusedError(
                "is not a sequence of numbers" if array.ndim == 0 else _UNLIKE.format(array.ndim)
            )
        array = _of_objects(array.ravel()).reshape(array.shape)
    if array.dtype.kind in _KINDS:
        raise _RefusedError(f"is not a sequence of numbers but of {_KINDS[array.dtype.kind]}")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = np.array(array, dtype=np.float32)
    except Exception:  # dtypes of other packages
        raise _RefusedError(f"is not a sequence of numbers but of {array.dtype}") from None
    if (
        array.dtype.itemsize > 4
        and not (kept := np.isfinite(narrow)).all()
        and np.isfinite(array[~kept]).any()
    ):
        raise _RefusedError(_TOO_LARGE)
    return narrow


def _of_objects(values: Any) -> NDArray[np.float64]:
    """Numbers of various classes, one by one; None and NA are missing."""
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NullScalar"):
        return float("nan")
    if isinstance(value, list | tuple) or shape_of(value):
        raise _RefusedError("holds sequences of unequal lengths; pass an array [variates, steps]")
    stranger = _RefusedError(f"is not a sequence of numbers: it holds {shown(value)}")
    if not (isinstance(value, numbers.Real | decimal.Decimal) or _is_tensor(value)) or isinstance(
        value, np.timedelta64
    ):
        raise stranger
    if _is_tensor(value) and value.is_complex():
        raise stranger
    try:
        number = float(value.detach() if _is_tensor(value) else value)
        overflown = math.isinf(number) and bool(value != number)  # as Decimal("1e400") does
    except OverflowError:  # an integer of hundreds of digits
        raise _RefusedError(_TOO_LARGE) from None
    except Exception:
        raise stranger from None
    if overflown:
        raise _RefusedError(_TOO_LARGE)
    return number


def padded(
    series: Sequence[NDArray[np.float32]], multiple: int = 1, fill: float = math.nan
) -> NDArray[np.float32]:
    """Series of unlike lengths as one array [B, longest], with `fill` in front of the shorter ones.

    multiple : of which the array's length is

    Upstream's Chronos pipelines do the same to a list, one series at a time, which takes longer than a
    small model's decoder.
    """
    longest = -(-max(map(len, series)) // multiple) * multiple
    array = np.full((len(series), longest), fill, dtype=np.float32)
    for row, values in zip(array, series, strict=True):
        row[longest - len(values) :] = values
    return array
