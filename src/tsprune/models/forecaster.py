"""Forecaster: a pretrained model with its Anatomy, as the rest of the program uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsprune.anatomy import Anatomy
from tsprune.arguments import RULES
from tsprune.errors import TspruneError
from tsprune.models import turns
from tsprune.models.absent import AbsentAttention
from tsprune.models.contexts import CheckedContext, ContextLike, checked_horizon, read_contexts
from tsprune.models.forecast import LEVELS, Forecast, NotFiniteError, Predictor, concatenated, with_gaps
from tsprune.models.gradients import KeepGradients
from tsprune.models.origin import Evidence, Measured, Origin, Recovery
from tsprune.models.saving import write_checkpoint
from tsprune.models.table_predictor import TablePredictor
from tsprune.models.variates import by_variates, rows_of

if TYPE_CHECKING:
    from tsprune.models.checkpoints import Checkpoint

__all__ = [
    "LEVELS", "Evidence", "Forecast", "Forecaster", "Measured", "NotFiniteError", "Origin", "Predictor",
    "Recovery", "SamplingForecaster", "drawing", "with_gaps",
]  # fmt: skip


_Result = TypeVar("_Result")


class Forecaster(TablePredictor):
    """A pretrained model: its upstream pipeline, its torch module, and where its components live.

    Attributes
    ----------
    name : as the user loaded it (hub id, directory or `bundled:NAME`)
    family : the upstream family, e.g. "chronos-bolt"
    module : the torch module that the addresses of `anatomy` are relative to
    anatomy : where attention heads, MLPs and layers live in `module`
    context_length : history longer than this many steps is cut off in front
    upstream : the object users of the upstream package work with
    reference_horizon : steps that reference activations are recorded over; many where the horizon
        is part of the sequence that the network sees
    readout_horizon : steps that one pass of the network forecasts, over which `readout` has gradients
    prefix_steps : a forecast of up to this many steps is the beginning of one of this many steps, to the
        last bit, so that windows of unlike horizons can be forecast together
    origin : of a pruned model: its original and the removed components
    evidence : measurements of a pruned model for its card (`tsprune.prune(..., measure=suite)`)
    stored : types that the checkpoint's tensors are stored in, by name; empty if it was not read from a file
    licence_note : one line if the licence of the released weights limits what derivatives may be used for
    refusal : entries of config.json for which upstream refuses a pruned model that it would read wrongly
    absent : class of the replacement of an attention module without heads, called as upstream calls that
    half : whether upstream's code runs with weights in bfloat16 and float16
    multivariate : whether upstream reads the variates of a context [V, T] together; if not, each is a series
        of its own
    past_covariates : whether upstream reads series beside a context that it does not forecast
    """

    name: str
    family: str
    module: nn.Module
    anatomy: Anatomy
    context_length: int
    upstream: object
    reference_horizon: int = 1
    readout_horizon: int = 1
    prefix_steps: int = 1
    origin: Origin | None = None
    evidence: Evidence = MappingProxyType({})
    stored: Mapping[str, torch.dtype] = MappingProxyType({})
    licence_note: str = ""
    refusal: Mapping[str, Any] = MappingProxyType({})
    absent: type[AbsentAttention] = AbsentAttention
    half: bool = True
    multivariate: bool = False
    past_covariates: bool = False

    def __repr__(self) -> str:
        first = next(self.module.parameters())
        precision = str(first.dtype).removeprefix("torch.")
        size = f"{self.parameter_count:,} parameters, {self.anatomy.brief}"
        return f"<{self.name}: {self.family}, {size}, {first.device.type}, {precision}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.anatomy._repr_html_()}"

    @property
    def licence(self) -> str:
        """One line on the licence of a checkpoint that was made from another."""
        return self.licence_note or "The licence of the original checkpoint applies to this one, too."

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.module.parameters()).dtype

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    def forecast(self, contexts: Sequence[ContextLike], horizon: int) -> Forecast:
        """Forecasts B series at once, exactly as the upstream pipeline does.

        contexts : arrays [T] (or lists, tensors, pandas series) of possibly different lengths. A multivariate
            series is an array [V, T] and stands for V of the B series, one after the other; see
            `multivariate`. Where the family has `past_covariates`, a context can be a dictionary of a
            "target" [T] or [V, T] and "past_covariates", {name: [T]} or [C, T] of the same steps. NaN,
            infinite, masked, None and NA values are missing in every family
        horizon : number of future steps, from 1 to 16,384

        Only one thread at a time uses a model: others wait (see `tsprune.ablate`).

        Raises TspruneError, in one line, for an empty list, a series that is empty, has no observed value,
        does not hold real numbers or exceeds float32's range, and for another horizon;
        NotFiniteError if a quantile, a sampled path, or a number they are computed from is NaN or infinite.
        """
        series, steps = self._read(contexts), checked_horizon(horizon)
        with self.alone(), self._explained():
            forecast = self._over_variates(
                series,
                lambda some, *covariates: self._forecast(some, steps, *covariates),
                lambda parts, order: concatenated(parts).select(order),
            )
        finite = forecast.finite()
        if not finite.all():
            raise NotFiniteError(self._not_finite("forecast", finite), forecast)
        return forecast

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int) -> Forecast:
        """The forecast of checked series (fresh arrays, which may be written to), NaN where it has none.

        series : arrays [T]; those of `multivariate` families are also called with arrays [V, T], V the same
            in all of them, and return V forecasts for each. Those with `past_covariates` are also called
            with arrays [V + C, T] and C, and return V forecasts

        Every family has its own; callers use `forecast`.
        """
        raise NotImplementedError

    def _read(self, contexts: Sequence[ContextLike]) -> list[CheckedContext]:
        """The checked contexts."""
        return read_contexts(contexts, None if self.past_covariates else self.name)

    def _over_variates(
        self,
        series: list[CheckedContext],
        work: Callable[..., _Result],
        ordered: Callable[[list[_Result], NDArray[np.int64]], _Result],
    ) -> _Result:
        """`work` on single series, or on multivariate ones with as many variates; see `by_variates`.

        work : of the arrays, and of the number of past covariates where there are some
        """
        if not self.multivariate:
            return work(rows_of([context.values for context in series]))
        return by_variates(series, lambda some, past: work(some, past) if past else work(some), ordered)

    def teacher_forced(self, contexts: Sequence[ContextLike]) -> Tensor:
        """The network's own output on the contexts, without sampling, decoding or rescaling.

        Returns a tensor whose first dimension is B (a family may run several passes per series;
        their outputs follow each other in later dimensions). Its gradient may be switched off; see
        `differentiable_output`. Contexts and errors as in `forecast`.
        """
        series = self._read(contexts)
        with self.alone(), self._explained():
            output = self._over_variates(
                series, self._teacher_forced, lambda parts, order: torch.cat(parts)[torch.from_numpy(order)]
            )
        finite = torch.isfinite(output).flatten(1).all(1).numpy(force=True)
        if not finite.all():
            raise NotFiniteError(self._not_finite("output", finite))
        return output

    def _teacher_forced(self, series: list[NDArray[np.float32]]) -> Tensor:
        """`teacher_forced` of checked series as in `_forecast`, NaN where there is no output.

        Every family has its own.
        """
        raise NotImplementedError

    def _outputs_of(self, module: nn.Module, series: list[NDArray[np.float32]]) -> list[Tensor]:
        """Outputs of `module`, call by call, on the way to a forecast of one step."""
        recorded: list[Tensor] = []
        hook = module.register_forward_hook(lambda _module, _inputs, output: recorded.append(output))
        try:
            self._forecast(series, 1)
        finally:
            hook.remove()
        return recorded

    def alone(self, *, keeps: bool = False) -> AbstractContextManager[None]:
        """The calling thread has this model alone while the context lasts (see `tsprune.models.turns`)."""
        return turns.alone(self.module, self.name, keeps=keeps)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Upstream's complaints about NaN and infinity, of many kinds, become a NotFiniteError."""
        try:
            yield
        except (ValueError, RuntimeError, IndexError) as error:
            # distributions check their parameters
            if str(error).startswith("Expected parameter") or self.damaged_weight() is not None:
                raise NotFiniteError(self._not_finite("forecast")) from error
            raise

    def _not_finite(self, what: str, finite: NDArray[np.bool_] | None = None) -> str:
        """The error's line: which series, and why, as far as that is known."""
        where = "" if finite is None or not finite.any() else f" for series {int(np.argmin(finite))}"
        damaged = self.damaged_weight()
        cause = "NaN or infinity arises in the network, say from values that are too large"
        if damaged is not None:
            cause = f"NaN or infinity in its weights, first in {damaged}"
        return f"{self.name}: the {what} is not finite{where} ({cause})"

    def quick(self) -> AbstractContextManager[None]:
        """While it lasts, forecasts may come from a faster loop than upstream's, equal up to rounding.

        A family that samples gets the same paths from it, unless a draw falls on the border of two tokens.
        """
        return nullcontext()

    def exact_gradients(self) -> AbstractContextManager[None]:
        """While it lasts, the gradients of what the network computes are its derivatives.

        Needed where upstream scales gradients on their way back.
        """
        return nullcontext()

    def damaged_weight(self) -> str | None:
        """Name of the first weight of the checkpoint that holds NaN or infinity, None if all are finite."""
        weights = dict(self.saved_module.named_parameters())
        if not weights:
            return None
        finite = torch.stack([torch.isfinite(weight).all() for weight in weights.values()])
        # read at once: each single answer would wait for an accelerator
        return next((name for name, whole in zip(weights, finite.tolist(), strict=True) if not whole), None)

    def require_finite_weights(self) -> None:
        """TspruneError, naming the tensor, if a weight is NaN or infinite."""
        if (name := self.damaged_weight()) is not None:
            where = f"NaN or infinity, first in {name}"
            raise TspruneError(
                f"{self.name}: the weights are not finite ({where}); the checkpoint is damaged"
            )

    def differentiable_output(self, contexts: Sequence[ContextLike]) -> Tensor:
        """`teacher_forced` with its gradient in every family, also where upstream switches it off."""
        with self.alone(), torch.enable_grad(), self.exact_gradients(), KeepGradients():
            return self.teacher_forced(contexts)

    def readout(self, contexts: Sequence[ContextLike], horizon: int) -> Tensor:
        """The forecast as a differentiable function of the network, float32 [B, Q, H].

        This is `forecast(contexts, horizon).quantiles`, on the way to which upstream switches
        gradients off; equal up to rounding, as torch takes other attention kernels where gradients
        are recorded. One can differentiate by parameters and, with hooks, by activations.

        Raises TspruneError for more than `readout_horizon` steps (upstream cuts the gradient between
        the passes of an autoregressive forecast), if all parameters are frozen, and for models that
        sample: a draw has no gradient.
        """
        horizon = checked_horizon(horizon)
        if horizon > self.readout_horizon:
            raise TspruneError(
                f"{self.name} has gradients over one pass, {self.readout_horizon} steps, not over {horizon}"
            )
        series = self._read(contexts)
        with self.alone(), torch.enable_grad(), self.exact_gradients(), KeepGradients() as gradients:
            forecast = self.forecast(contexts, horizon)
        if not gradients.left:
            raise TspruneError(f"{self.name}: its forecast has no gradient; its parameters are frozen")
        quantiles = self._readout_of(gradients.left, series, len(forecast.quantiles), horizon)
        if not np.array_equal(quantiles.detach().cpu().numpy(), forecast.quantiles, equal_nan=True):
            raise TspruneError(f"{self.name}: no tensor with a gradient is equal to its forecast")
        return quantiles

    def _readout_of(
        self, left: list[Tensor], series: list[CheckedContext], count: int, horizon: int
    ) -> Tensor:
        """Quantiles [count, Q, horizon] of `series` from all tensors that upstream takes out of torch."""
        return self._readout_quantiles(left[-1], count, horizon)

    def _readout_quantiles(self, output: Tensor, count: int, horizon: int) -> Tensor:
        """Quantiles [count, Q, horizon] from the tensor that upstream last takes out of torch."""
        return output

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Forecaster:
        """The model that `checkpoint.config` describes, with weights as upstream initialises them.

        The values in config.json come from outside: check them (`tsprune.models.stated`), and import or call
        nothing that they name. Any error is reported as a config.json that does not describe such a model.
        """
        raise NotImplementedError

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Forecaster:
        """The model of one of the upstream objects that `Family.objects` lists; shares its weights."""
        raise TspruneError(f"objects of {cls.family} in memory cannot be loaded; save it and load the folder")

    def save(
        self,
        directory: str | Path,
        *,
        evidence: Evidence | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        """Writes the checkpoint in the upstream format (config.json, model.safetensors).

        A pruned model has two more files: tsprune.json, which `tsprune.load` reads, and README.md, a model
        card. The upstream package reads it too if its config can describe the remaining components.

        evidence : measurements before and after pruning, for the model card; None: those in `evidence`
        dtype : type of all weights in the file, "float32", "bfloat16" or "float16"; None: as they were stored
            in the original, and in float32 if removal scaled them. A reloaded model forecasts as this one
            with weights rounded to this type (`tsprune.models.saving.round_weights`); measure evidence on
            those weights

        Raises TspruneError if the directory exists and is not empty, or cannot be written, and for a weight
        that is too large for its type; the directory is written whole or not at all.
        """
        write_checkpoint(self, Path(directory), self.evidence if evidence is None else evidence, dtype)

    def config_file(self) -> dict[str, Any]:
        """The content of config.json; for a pruned model, that of its original."""
        raise NotImplementedError

    def other_files(self) -> dict[str, dict[str, Any]]:
        """Further JSON files of the checkpoint, by name."""
        return {}

    def stored_metadata(self) -> dict[str, str]:
        """Entries of the header of the weights file."""
        return {}

    @property
    def saved_module(self) -> nn.Module:
        """The module whose parameters' names are those in the checkpoint."""
        return self.module

    def upstream_name(self, stored: str) -> str:
        """The name in `saved_module` of a tensor that checkpoints have under the name `stored`."""
        return stored

    def require_dtype(self, dtype: torch.dtype) -> None:
        """Raises TspruneError for a precision that upstream's code does not run in."""
        if not self.half and dtype in (torch.bfloat16, torch.float16):
            name = str(dtype).removeprefix("torch.")
            raise TspruneError(
                f"{self.name}: upstream's {self.family} mixes float32 into {name}; load it in float32"
            )

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves the weights, in place; TspruneError as `require_dtype`."""
        self.require_dtype(dtype)
        nn.Module.to(self.saved_module, device=device, dtype=dtype)

    def adapt(self) -> None:
        """Adapts upstream code to the remaining components after a removal.

        Needed where upstream takes a size to be the same in all layers.
        """

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """`config` (of the original) changed so that upstream alone reads the pruned model; None if no
        upstream config can describe it."""
        return None


class SamplingForecaster(Forecaster):
    """A Forecaster that draws paths, with common random numbers (see `draws`).

    Attributes
    ----------
    samples : paths per window; settable, 1 or more
    seed : of the draws, settable, 0 or more; the same seed gives a window the same draws under any ablation
    """

    _samples: int
    _seed: int = 0

    @property
    def samples(self) -> int:
        return self._samples

    @samples.setter
    def samples(self, samples: int) -> None:
        self._samples = RULES["samples"](samples)

    @property
    def seed(self) -> int:
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = RULES["seed"](seed)

    def readout(self, contexts: Sequence[ContextLike], horizon: int) -> Tensor:
        raise TspruneError(
            f"{self.name} samples its forecasts, which have no gradient; use differentiable_output"
        )

    def from_samples(self, paths: NDArray[np.float32]) -> Forecast:
        """The forecast of sampled paths [B, S, H] (see `Forecast.of_paths`)."""
        return Forecast.of_paths(paths)


def drawing(model: Forecaster, samples: int | None, *, usual: int, of_tokens: int) -> Forecaster:
    """`model`, which from now on draws `samples` paths a window, if it samples.

    usual, of_tokens : how many if `samples` is None; the latter of models that decode a path value by
        value, where paths are most of a forecast's cost
    """
    if isinstance(model, SamplingForecaster):
        model.samples = samples or (of_tokens if model.anatomy.tokens else usual)
    return model
