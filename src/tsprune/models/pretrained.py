"""Shared by the Chronos families: transformers models, their config.json, and quiet long horizons."""

from __future__ import annotations

import json
import logging as python_logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from tsprune.errors import TspruneError, TspruneWarning
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.forecaster import Forecaster
from tsprune.models.locations import CONFIG, GENERATION
from tsprune.models.objects import network
from tsprune.models.saving import usual_dtype
from tsprune.models.stated import Requirement, flag, levels, or_none, real, require, whole_number, word
from tsprune.models.weights import named

_TOKENS = ("pad_token_id", "eos_token_id", "decoder_start_token_id", "reg_token_id")
# of config.json, beside the keys of the family and `chronos_config`. Unknown keys are left out: upstream
# would make an attribute of anything, and some keys make it fetch or run code
_COMMON: dict[str, Requirement] = {
    "dropout_rate": real(0, 0.99),
    "classifier_dropout": real(0, 0.99),
    "layer_norm_epsilon": real(1e-30, 1),
    "initializer_factor": real(0, 1e6),
    **dict.fromkeys(("feed_forward_proj", "dense_act_fn", "chronos_pipeline_class", "model_type"), word),
    **dict.fromkeys(("transformers_version", "dtype", "torch_dtype"), or_none(word)),
    **dict.fromkeys(("is_decoder", "is_encoder_decoder", "is_gated_act", "scale_decoder_outputs"), flag),
    **dict.fromkeys(("tie_word_embeddings", "use_cache"), flag),
    **dict.fromkeys(_TOKENS, or_none(whole_number(0))),
    **dict.fromkeys(("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size"), whole_number()),
}
PATCHED: dict[str, Requirement] = {  # of chronos_config, of the families that read patches
    **dict.fromkeys(("context_length", "input_patch_size", "input_patch_stride"), whole_number()),
    "quantiles": levels,
    "use_reg_token": flag,
}
# of generation_config.json; the sampling itself is configured by config.json
_GENERATION = {"pad_token_id", "eos_token_id", "decoder_start_token_id", "bos_token_id"}
_GENERATION_NOTES = {"_from_model_config", "transformers_version", "max_length", "use_cache"}

_Built = TypeVar("_Built")


def hub_config(
    checkpoint: Checkpoint, keys: Mapping[str, Requirement], settings: Mapping[str, Requirement]
) -> dict[str, Any]:
    """The known keys of a config.json, checked.

    keys, settings : rules of the family's own keys in it, and in its `chronos_config`

    Raises TspruneError that names the first value that cannot be.
    """
    rules = {**_COMMON, **keys}
    stated = {key: checkpoint.config[key] for key in rules if key in checkpoint.config}
    require(stated, rules, CONFIG, required=False)
    return {**stated, "chronos_config": checkpoint.settings(settings, key="chronos_config")}


def quietly(build: Callable[[], _Built]) -> _Built:
    """The result of `build`, without transformers' log."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return build()
    finally:
        logging.set_verbosity(verbosity)


def check_tokens(model: PreTrainedModel, *, start: bool) -> None:
    """TspruneError unless the special tokens of a model's config are in its vocabulary.

    start : whether there must be one that the decoder starts with
    """
    for name in _TOKENS:
        token = getattr(model.config, name, None)
        if token is None and start and name == "decoder_start_token_id":
            raise TspruneError(f"{CONFIG} has no {name}")
        if token is not None and not 0 <= token < model.config.vocab_size:
            raise TspruneError(f"{CONFIG}: {name} {token} is not in the vocabulary")


def set_generation(model: PreTrainedModel, checkpoint: Checkpoint) -> None:
    """Gives a model the special tokens of generation_config.json, as upstream does; warns of the rest."""
    stated = dict(checkpoint.generation)
    ids = {key: stated.pop(key) for key in _GENERATION & stated.keys()}
    require(ids, dict.fromkeys(ids, or_none(whole_number(0, model.config.vocab_size - 1))), GENERATION)
    unused = [key for key, value in stated.items() if value and key not in _GENERATION_NOTES]
    if unused:
        message = f"{checkpoint.name}: settings in {GENERATION} are ignored: {named(unused)}"
        warnings.warn(message, TspruneWarning, stacklevel=2)
    for key, value in ids.items():
        setattr(model.generation_config, key, value)


class PretrainedForecaster(Forecaster):
    """A Forecaster of a transformers model."""

    module: PreTrainedModel
    upstream: Any

    def config_file(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.module.config.to_json_string())
        config["architectures"] = [type(self.module).__name__]
        # upstream computes in this type, not in that of the stored weights
        config["dtype"] = config.get("dtype") or str(usual_dtype(self)).removeprefix("torch.")
        return config

    def other_files(self) -> dict[str, dict[str, Any]]:
        if not self.module.can_generate():
            return {}
        return {GENERATION: json.loads(self.module.generation_config.to_json_string())}

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves the weights, in place; in float16 those stay in float32 that upstream keeps so."""
        kept = (self.module._keep_in_fp32_modules or ()) if dtype == torch.float16 else ()
        parts = [part for name, part in self.module.named_modules() if name.rpartition(".")[2] in kept]
        exact = [(parameter, parameter.data) for part in parts for parameter in part.parameters()]
        super().to(device, dtype)
        for parameter, data in exact:
            parameter.data = data.to(device, torch.float32)


Adopted = TypeVar("Adopted", bound=PretrainedForecaster)


def adopted(
    family: Callable[[Any, str], Adopted],
    upstream: Any,
    name: str,
    pipeline: type,
    wanted: type[PreTrainedModel],
) -> Adopted:
    """The model of a `pipeline` object, which goes on serving its forecasts, or of its network alone.

    Raises TspruneError for a network of another class than `wanted`.
    """
    model = family(network(upstream, wanted, pipeline), name)
    if isinstance(upstream, pipeline):
        model.upstream = upstream
    return model


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
