"""Fine-tuned adapters: merged as peft merges them, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from tests.tiny import TINY, few_samples, ragged
from tsprune.errors import TspruneError
from tsprune.extras import install
from tsprune.models import Forecaster, load
from tsprune.pruning import prune

# peft and transformers warn of each other
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
TARGETS = {
    "tiny-chronos-bolt": ["q", "v", "wo"],
    "tiny-chronos-t5": ["q", "o"],
    "tiny-chronos2": ["self_attention.q", "self_attention.o", "output_patch_embedding.output_layer"],
    "tiny-timesfm": ["qkv_proj", "ff0"],
    "tiny-toto": ["wQKV", "wO"],
    "tiny-moirai": ["q_proj", "fc1"],
    "tiny-moirai2": ["q_proj", "fc1"],
    "tiny-moirai-moe": ["q_proj", "fc1"],
    "tiny-timestral": ["wQKV", "_gate"],
}
HOW: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"use_dora": True},
    "patterns": {"use_rslora": True},
}


def opened(path: Path) -> Forecaster:
    return few_samples(load(path, device="cpu"))


def wrapped(model: Forecaster, config: Any) -> Any:
    """The network of `model` with a random adapter, as a user of peft has it."""
    module = model.saved_module
    if model.family == "chronos-bolt":  # peft asks it for embeddings, which it does not name
        module.get_input_embeddings = torch.nn.ModuleList
    torch.manual_seed(0)
    adapted = get_peft_model(module, config)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return adapted.eval()


@pytest.fixture
def chronos2(tmp_path: Path) -> Path:
    """A Chronos-2 with an adapter beside its weights."""
    TINY["tiny-chronos2"](tmp_path / "base")
    adapted = wrapped(opened(tmp_path / "base"), LoraConfig(r=2, target_modules=["self_attention.q"]))
    adapted.save_pretrained(tmp_path / "adapter")
    shutil.copytree(tmp_path / "base", tmp_path / "adapter", dirs_exist_ok=True)
    return tmp_path / "adapter"


def problem(path: Path) -> str:
    with pytest.raises(TspruneError) as caught:
        load(path, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, **changes: object) -> None:
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", TARGETS)
def test_merged_as_peft_merges(name: str, how: str, tmp_path: Path) -> None:
    TINY[name](tmp_path / "base")
    plain, theirs = opened(tmp_path / "base"), opened(tmp_path / "base")
    contexts = ragged(plain, 2)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=TARGETS[name], **HOW[how])
    if how == "patterns":
        config.rank_pattern, config.alpha_pattern = {TARGETS[name][0]: 2}, {TARGETS[name][1]: 3}
    adapted = wrapped(theirs, config)
    adapted.save_pretrained(tmp_path / "adapter")
    edit(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))

    ours = opened(tmp_path / "adapter").forecast(contexts, 5).quantiles

    assert not np.allclose(ours, plain.forecast(contexts, 5).quantiles)
    unmerged = theirs.forecast(contexts, 5).quantiles
    np.testing.assert_allclose(ours, unmerged, rtol=0, atol=2e-4 * np.abs(unmerged).max())
    fresh = opened(tmp_path / "base")
    if fresh.family == "chronos-bolt":
        fresh.saved_module.get_input_embeddings = torch.nn.ModuleList
    PeftModel.from_pretrained(fresh.saved_module, tmp_path / "adapter").merge_and_unload()  # type: ignore[arg-type]
    fresh.saved_module.requires_grad_(
        True
    )  # peft freezes; torch takes other attention kernels for frozen weights
    np.testing.assert_array_equal(ours, fresh.forecast(contexts, 5).quantiles)


def test_nothing_of_peft_is_left(chronos2: Path) -> None:
    plain, merged = opened(chronos2.parent / "base"), opened(chronos2)
    kinds, found = ({n: type(m) for n, m in x.module.named_modules()} for x in (plain, merged))
    assert found == kinds
    assert all(parameter.requires_grad for parameter in merged.module.parameters())
    assert not any("peft" in name for name in vars(merged.module))


def test_the_base_may_be_named_from_the_adapters_folder(
    chronos2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")  # beside which there is no folder of that name
    beside = opened(chronos2).forecast(ragged(opened(chronos2), 1), 4).quantiles
    for file in ("model.safetensors", "config.json"):
        (chronos2 / file).unlink()
    edit(chronos2, base_model_name_or_path="../base")
    model = opened(chronos2)
    assert model.name == str(chronos2)
    np.testing.assert_array_equal(model.forecast(ragged(model, 1), 4).quantiles, beside)


def test_a_fine_tuned_model_is_pruned_and_saved(chronos2: Path, tmp_path: Path) -> None:
    model = opened(chronos2)
    pruned = prune(model, "stack.1.mlp")
    pruned.save(tmp_path / "pruned")
    again = opened(tmp_path / "pruned")
    contexts = ragged(model, 2)
    np.testing.assert_array_equal(
        again.forecast(contexts, 4).quantiles, pruned.forecast(contexts, 4).quantiles
    )


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: edit(p, peft_type="IA3"), "only LORA; merge it with peft"),
    (lambda p: edit(p, peft_type=None), "only LORA"),
    (lambda p: edit(p, layer_replication=[[0, 1]]), "layer_replication"),
    (lambda p: edit(p, megatron_config={"x": 1}, megatron_core="os"), "megatron_config"),
    (lambda p: edit(p, init_lora_weights="pissa"), "init_lora_weights=pissa"),
    (lambda p: edit(p, r=10**9), "r must be"),
    (lambda p: edit(p, r=3), "states the rank 3"),
    (lambda p: edit(p, rank_pattern={"(a+)+$": 3}), "pattern"),
    (lambda p: (p / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    (lambda p: (p / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
    (lambda p: (p / "adapter_model.safetensors").rename(p / "adapter_model.bin"), "pickle"),
    (lambda p: (p / "adapter_config.json").write_text("[" * 100_000), "JSON"),
    (lambda p: (p / "adapter_model.safetensors").write_bytes(b"x" * 20), "damaged"),
    (lambda p: [(p / "model.safetensors").unlink(), edit(p, base_model_name_or_path="./nowhere")], "base"),
    (lambda p: [(p / "model.safetensors").unlink(), edit(p, base_model_name_or_path=None)], "base"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_cannot_be_merged_is_one_line(
    chronos2: Path, change: Callable[[Path], object], message: str
) -> None:
    change(chronos2)
    assert message in problem(chronos2)


def test_an_adapter_of_another_model(chronos2: Path) -> None:
    path = chronos2 / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name.replace("block.0", "block.7"): x for name, x in weights.items()}, path)
    assert "for another model" in problem(chronos2)


def test_without_peft(chronos2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = util.find_spec
    monkeypatch.setattr(
        "tsprune.models.adapters.find_spec", lambda name: None if name == "peft" else original(name)
    )
    assert install("peft") in problem(chronos2)


def test_other_methods(tmp_path: Path) -> None:
    TINY["tiny-chronos2"](tmp_path / "base")
    config = IA3Config(target_modules=["self_attention.q"], feedforward_modules=[])
    wrapped(opened(tmp_path / "base"), config).save_pretrained(tmp_path / "adapter")
    edit(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))
    assert "'IA3' adapters are not merged" in problem(tmp_path / "adapter")
