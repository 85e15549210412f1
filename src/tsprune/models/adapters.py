"""Fine-tuned adapters (LoRA), merged into the weights they belong to by peft.

The tensors of an adapter determine its targets: their names are the modules, their shapes the ranks. Of
adapter_config.json only numbers and flags are used. Its patterns are compared, never run as expressions that
could take for ever, and its keys that name code to import are not passed on.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import Tensor, nn

from tsprune.arguments import shown
from tsprune.errors import TspruneError, one_line
from tsprune.extras import install
from tsprune.models import stated
from tsprune.models.checkpoints import AdapterFiles
from tsprune.models.forecaster import Forecaster
from tsprune.models.locations import ADAPTER
from tsprune.models.placement import STORED
from tsprune.models.weights import Shapes, named, tensors

_PREFIX = "base_model.model."
# by the suffix of a tensor's name: the dimension of its shape that is the rank
_RANKS = {".lora_A.weight": 0, ".lora_B.weight": 1, ".lora_embedding_A": 0, ".lora_embedding_B": 1}
_USED: dict[str, stated.Requirement] = {
    "r": stated.whole_number(),
    "lora_alpha": stated.real(-1e6, 1e6),
    "rank_pattern": stated.or_none(stated.mapping),
    "alpha_pattern": stated.or_none(stated.mapping),
    **dict.fromkeys(("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias"), stated.flag),
    "bias": stated.word,
    "modules_to_save": stated.or_none(stated.list_of(stated.word)),
}
# without a meaning once the tensors are there, or defaults that stand for nothing
_UNUSED = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core", "peft_type", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
_BY_HAND = "merge it with peft (merge_and_unload) and load the result"
_LITERAL = re.compile(r"\^?(\w|\\?\.)+\$?")  # patterns without repetition


class _Target(NamedTuple):
    """A module that an adapter changes, and by how much."""

    path: str
    rank: int
    alpha: float


def merge(model: Forecaster, adapter: AdapterFiles) -> None:
    """Adds an adapter to the weights of `model`, in place, as peft's `merge_and_unload` does.

    Raises TspruneError if peft is missing, for other methods than LoRA, and for an adapter that does not fit.
    """
    if find_spec("peft") is None:
        raise TspruneError(
            f"the model in {adapter.directory} is fine-tuned by an adapter; "
            f"to merge it, install peft: {install('peft')}"
        )
    _check_config(adapter)
    modules = _modules(adapter)
    root, prefix = _root(model, modules, adapter)
    targets = [_target(adapter, path, path.removeprefix(prefix)) for path in modules]
    _check_shapes(root, targets, prefix, adapter)
    trainable = {name: parameter.requires_grad for name, parameter in root.named_parameters()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _merge(root, targets, prefix, adapter)
    except TspruneError:
        raise
    except Exception as error:  # peft raises many classes
        raise TspruneError(
            f"the adapter in {adapter.directory} does not fit ({one_line(error, 200)})"
        ) from error
    for name, parameter in root.named_parameters():
        parameter.requires_grad_(trainable.get(name, True))
    root.eval()


def _check_config(adapter: AdapterFiles) -> None:
    config, where = adapter.config, f"{adapter.directory}: {ADAPTER}"
    kind = config.get("peft_type")
    if kind != "LORA":
        raise TspruneError(f"{where}: {shown(kind)} adapters are not merged, only LORA; {_BY_HAND}")
    stated.require(config, _USED, where, required=False)
    unknown = [key for key, value in config.items() if value and key not in _USED and key not in _UNUSED]
    start = config.get("init_lora_weights", True)
    # others, such as pissa, also change the weights of the base
    if start not in (True, False, None, "gaussian", "orthogonal"):
        unknown.append(f"init_lora_weights={start}")
    if unknown:
        raise TspruneError(f"{where}: adapters with {named(sorted(unknown))} are not merged; {_BY_HAND}")


def _modules(adapter: AdapterFiles) -> list[str]:
    names, dtypes = adapter.headers.shapes, adapter.headers.dtypes
    strange = [name for name in names if not name.startswith(_PREFIX) or dtypes[name] not in STORED]
    found = {
        name.removeprefix(_PREFIX).removesuffix(end) for name in names for end in _RANKS if name.endswith(end)
    }
    if strange or not found:
        problem = named(strange) if strange else "no LoRA weights"
        raise TspruneError(f"the adapter in {adapter.directory} holds {problem}; {_BY_HAND}")
    return sorted(found)


def _root(model: Forecaster, paths: Iterable[str], adapter: AdapterFiles) -> tuple[nn.Module, str]:
    """The module that the adapter was trained on, and the prefix of its paths.

    Users wrap the upstream network, or the object that holds it.
    """
    first = next(iter(paths)).split(".")
    for root in (model.saved_module, model.module):
        known = {name for name, _ in root.named_modules()}
        for dropped in (0, 1):
            prefix = "".join(f"{part}." for part in first[:dropped])
            if all(path.startswith(prefix) and path.removeprefix(prefix) in known for path in paths):
                return root, prefix
    path = one_line(".".join(first), 100)
    raise TspruneError(f"the adapter in {adapter.directory} is for another model: there is no module {path}")


def _target(adapter: AdapterFiles, path: str, inner: str) -> _Target:
    config = adapter.config
    rank = _by_pattern(config.get("rank_pattern"), path, config.get("r", 8), stated.whole_number())
    alpha = _by_pattern(
        config.get("alpha_pattern"), path, config.get("lora_alpha", 8), stated.real(-1e6, 1e6)
    )
    return _Target(inner, rank, alpha)


def _by_pattern(patterns: Mapping[str, Any] | None, path: str, usual: Any, rule: stated.Requirement) -> Any:
    """The value of the pattern that matches a path as peft matches it, else the usual one."""
    for pattern, value in (patterns or {}).items():
        if _LITERAL.fullmatch(pattern) is None or len(pattern) > 300 or rule(value):
            raise TspruneError(f"{ADAPTER}: the pattern {shown(pattern)} is not supported; {_BY_HAND}")
        if re.match(rf"(.*\.)?({pattern})$", path):
            return value
    return usual


def _check_shapes(root: nn.Module, targets: list[_Target], prefix: str, adapter: AdapterFiles) -> None:
    """TspruneError where ranks and sizes contradict the tensors, before anything of that size is made."""
    shapes: Shapes = adapter.headers.shapes
    for target in targets:
        module = root.get_submodule(target.path)
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            raise TspruneError(f"the adapter in {adapter.directory} changes {target.path}; {_BY_HAND}")
        for suffix, dim in _RANKS.items():
            shape = shapes.get(f"{_PREFIX}{prefix}{target.path}{suffix}")
            if shape is not None and (
                len(shape) != 2 or shape[dim] != target.rank or shape[1 - dim] not in weight.shape
            ):
                raise TspruneError(
                    f"the adapter in {adapter.directory} does not fit: {target.path}{suffix} is "
                    f"{list(shape)}, "
                    f"but {ADAPTER} states the rank {target.rank} and the weight is {list(weight.shape)}"
                )


def _merge(root: nn.Module, targets: list[_Target], prefix: str, adapter: AdapterFiles) -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    config = {key: adapter.config[key] for key in _USED if key in adapter.config}
    config |= {
        "r": targets[0].rank,
        "lora_alpha": targets[0].alpha,
        "rank_pattern": {f"^{re.escape(target.path)}": target.rank for target in targets},
        "alpha_pattern": {f"^{re.escape(target.path)}": target.alpha for target in targets},
        "target_modules": [target.path for target in targets],
    }
    with _with_embeddings(root):
        wrapped: Any = get_peft_model(root, LoraConfig(**config))  # type: ignore[arg-type]
    given = {
        _PREFIX + name.removeprefix(_PREFIX).removeprefix(prefix): tensor
        for name, tensor in tensors(adapter.headers)
    }
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False).keys()
    wrong = sorted(expected ^ given.keys())
    if wrong:
        problem = "lacks" if wrong[0] in expected else "holds what it has no place for:"
        raise TspruneError(f"the adapter in {adapter.directory} {problem} {named(wrong)}")
    set_peft_model_state_dict(wrapped, given)
    merged: nn.Module = wrapped.merge_and_unload()
    assert merged is root
    for left in ("peft_config", "_hf_peft_config_loaded"):
        root.__dict__.pop(left, None)


@contextmanager
def _with_embeddings(root: nn.Module) -> Iterator[None]:
    """Lets peft ask for the embeddings of a model that has them, but not where transformers looks."""
    found: Any = getattr(root, "get_input_embeddings", None)
    try:
        found = found and found()
    except NotImplementedError:
        root.__dict__["get_input_embeddings"] = nn.ModuleList  # none that others are tied to
    try:
        yield
    finally:
        root.__dict__.pop("get_input_embeddings", None)
