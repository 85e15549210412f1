"""What the Chronos families share: strict loading through transformers, and quiet long horizons."""

from __future__ import annotations

import logging as python_logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from tsprune.errors import TspruneError
from tsprune.models.checkpoints import Checkpoint, one_line

Model = TypeVar("Model", bound=PreTrainedModel)


def load_pretrained(
    upstream: type[Model],
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    what: str,
    check: Callable[[Model], object] = lambda model: None,
) -> Model:
    """An `upstream` model with exactly the weights of `checkpoint`.

    what : how error messages call the model
    check : raises if config.json cannot be used for another reason

    Raises TspruneError if config.json does not fit, or if weights are missing, unexpected or of
    another shape (upstream would leave such weights random).
    """
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        loaded: Any = upstream.from_pretrained(
            checkpoint.directory,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=dtype,
        )
        model: Model = loaded[0]
        info: dict[str, Any] = loaded[1]
        check(model)
    except Exception as error:  # upstream raises whatever the value it stumbles over leads to
        raise TspruneError(
            f"{checkpoint.name}: config.json does not describe a {what} model ({one_line(error)})"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    info["missing_keys"] = [*info["missing_keys"], *_random(model, checkpoint)]
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if info[problem]:
            first = str(next(iter(info[problem])))
            raise TspruneError(
                f"{checkpoint.name}: config.json and weights disagree ({problem.replace('_', ' ')}: {first})"
            )
    return model


def _random(model: PreTrainedModel, checkpoint: Checkpoint) -> list[str]:
    """Tensors that upstream initialised although it does not report them as missing."""
    tensors: dict[str, Any] = model.state_dict()
    given = set()
    for name in checkpoint.shapes:
        with suppress(KeyError):
            given.add(tensors[name].data_ptr())
    # tied weights are given under one of their names
    return [name for name, tensor in tensors.items() if tensor.data_ptr() not in given]


@contextmanager
def quiet_horizon(logger: python_logging.Logger | None = None) -> Iterator[None]:
    """Long horizons are the caller's decision; upstream would warn (or log) at every batch."""
    before = logger.level if logger else 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="We recommend keeping prediction length")
        try:
            if logger:
                logger.setLevel(python_logging.ERROR)
            yield
        finally:
            if logger:
                logger.setLevel(before)
