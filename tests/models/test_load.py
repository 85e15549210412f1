"""`load` finds models, and says in one line what is wrong where it does not."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import write_bolt, write_timesfm
from tsprune.errors import TspruneError
from tsprune.extras import install
from tsprune.models import FAMILIES, bundled_names, load
from tsprune.models.checkpoints import find


@pytest.fixture
def bolt(tmp_path: Path) -> Path:
    write_bolt(tmp_path / "bolt")
    return tmp_path / "bolt"


@pytest.fixture
def timesfm(tmp_path: Path) -> Path:
    write_timesfm(tmp_path / "timesfm")
    return tmp_path / "timesfm"


def problem(name: str | Path) -> str:
    """What `load` complains about: one line that names what was asked for."""
    with pytest.raises(TspruneError) as caught:
        load(str(name), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return directory


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_the_family_is_told_from_the_files(bolt: Path, timesfm: Path) -> None:
    assert load(str(bolt)).family == "chronos-bolt"
    assert load(str(timesfm)).family == "timesfm"
    (timesfm / "config.json").unlink()  # as on the hub
    model = load(str(timesfm))
    assert (model.family, model.context_length, model.name) == ("timesfm", 2048, str(timesfm))


def test_a_checkpoint_in_several_files(timesfm: Path) -> None:
    weights = load_file(timesfm / "model.safetensors")
    whole = load(str(timesfm)).module.state_dict()
    (timesfm / "model.safetensors").unlink()
    names = sorted(weights)
    save_file({n: weights[n] for n in names[::2]}, timesfm / "model-00001-of-00002.safetensors")
    save_file({n: weights[n] for n in names[1::2]}, timesfm / "model-00002-of-00002.safetensors")
    parts = load(str(timesfm)).module.state_dict()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_loading_does_not_depend_on_the_working_directory(
    bolt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bolt.parent)
    assert load("bolt").family == "chronos-bolt"
    assert load("./bolt").family == "chronos-bolt"


def test_precision_and_device(bolt: Path, timesfm: Path) -> None:
    for directory, dtype in ((bolt, torch.bfloat16), (timesfm, torch.float64)):
        model = load(str(directory), device="cpu", dtype=dtype)
        assert {p.dtype for p in model.module.parameters()} == {dtype}
        assert model.device == torch.device("cpu")


# What a user can put right


def test_unknown_bundled_name() -> None:
    message = problem("bundled:nonsense")
    assert "'nonsense'" in message
    assert ", ".join(bundled_names()) in message


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "bundled"])
def test_no_such_model(name: str) -> None:
    message = problem(name)
    assert repr(name) in message
    assert "bundled:NAME" in message


def test_a_file_instead_of_a_directory(bolt: Path) -> None:
    assert "is a file; name the directory" in problem(bolt / "model.safetensors")


def test_unknown_architecture(bolt: Path) -> None:
    save_file({"model.embed_tokens.weight": torch.zeros(2, 2)}, bolt / "model.safetensors")
    (bolt / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    message = problem(bolt)
    assert "unknown architecture" in message
    assert "LlamaForCausalLM" in message
    assert ", ".join(FAMILIES) in message


def test_bolt_without_its_config(bolt: Path) -> None:
    (bolt / "config.json").unlink()
    assert "it has no config.json" in problem(bolt)


def test_an_empty_directory(tmp_path: Path) -> None:
    assert "there is no model.safetensors" in problem(tmp_path)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt"])
def test_pickles_are_never_opened(bolt: Path, tmp_path: Path, name: str) -> None:
    fired = tmp_path / "fired"
    bomb = pickle.dumps(Bomb(fired))
    pickle.loads(bomb)  # it does work
    fired.unlink()

    (bolt / "model.safetensors").unlink()
    (bolt / name).write_bytes(bomb)
    message = problem(bolt)

    assert name in message
    assert "pickle" in message
    assert not fired.exists()


def test_a_pickle_beside_safetensors_is_ignored(bolt: Path, tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    (bolt / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(fired)))
    assert load(str(bolt)).family == "chronos-bolt"
    assert not fired.exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(timesfm: Path, keep: int) -> None:
    path = timesfm / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    message = problem(timesfm)
    assert str(path) in message
    assert "damaged" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"{", "not readable JSON"), (b"\xff\xfe", "not readable JSON"), (b"[]", "JSON object"), (b"", "JSON")],
)
def test_garbage_config(bolt: Path, content: bytes, says: str) -> None:
    (bolt / "config.json").write_bytes(content)
    message = problem(bolt)
    assert "config.json" in message
    assert says in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("d_model", 32),
        ("d_kv", 8),
        ("d_ff", 64),
        ("num_heads", 4),
        ("num_layers", 1),
        ("num_layers", 3),
        ("num_decoder_layers", 2),
        ("num_decoder_layers", 4),
        ("relative_attention_num_buckets", 16),
        ("is_gated_act", True),
    ],
)
def test_bolt_config_against_weights(bolt: Path, key: str, value: int) -> None:
    edit(bolt, lambda config: config.update({key: value}))
    assert "config.json and weights disagree" in problem(bolt)


@pytest.mark.parametrize(
    ("key", "value"), [("prediction_length", 16), ("input_patch_size", 8), ("quantiles", [0.1, 0.5, 0.9])]
)
def test_bolt_forecasting_config_against_weights(bolt: Path, key: str, value: int) -> None:
    edit(bolt, lambda config: config["chronos_config"].update({key: value}))
    assert "config.json and weights disagree" in problem(bolt)


@pytest.mark.parametrize(
    "config",
    [
        {"chronos_config": {}},
        {"chronos_config": None},
        {"chronos_config": {"context_length": 10}},
        {"d_model": "wide"},
        {"d_model": -1},
        {"num_layers": None},
        {"feed_forward_proj": "unheard-of"},
    ],
)
def test_bolt_config_that_makes_no_model(bolt: Path, config: dict[str, Any]) -> None:
    edit(bolt, lambda stated: stated.update(config))
    assert "config.json" in problem(bolt)


@pytest.mark.parametrize(
    "name",
    [
        "output_patch_embedding.output_layer.weight",
        "input_patch_embedding.residual_layer.bias",
        "encoder.final_layer_norm.weight",
        "decoder.block.2.layer.1.EncDecAttention.k.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    ],
)
def test_bolt_with_a_missing_tensor(bolt: Path, name: str) -> None:
    """Upstream fills some of these with random numbers without a word."""
    edit_weights(bolt, lambda weights: weights.pop(name))
    message = problem(bolt)
    assert "config.json and weights disagree" in message
    assert name in message


@pytest.mark.parametrize(
    "name",
    [
        "stacked_xf.1.attn.out.weight",
        "stacked_xf.0.attn.query_ln.scale",
        "stacked_xf.0.ff0.weight",
        "tokenizer.hidden_layer.weight",
        "output_projection_quantiles.output_layer.weight",
        "stacked_xf.2.post_ff_ln.scale",
    ],
)
def test_timesfm_with_a_missing_tensor(timesfm: Path, name: str) -> None:
    edit_weights(timesfm, lambda weights: weights.pop(name))
    message = problem(timesfm)
    assert "TimesFM 2.5" in message
    assert name in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("stacked_xf.1.attn.out.weight", (24, 23)),
        ("stacked_xf.0.attn.query_ln.scale", (7,)),
        ("stacked_xf.0.attn.query_ln.scale", (0,)),
        ("stacked_xf.0.attn.query_ln.scale", (25,)),
        ("stacked_xf.0.ff0.weight", (24,)),
        ("tokenizer.hidden_layer.weight", (24, 24)),
        ("output_projection_point.output_layer.weight", (640, 24)),
        ("extra.weight", (1,)),
        ("stacked_xf.x.weight", (1,)),
    ],
)
def test_timesfm_with_a_tensor_that_does_not_fit(timesfm: Path, name: str, shape: tuple[int, ...]) -> None:
    edit_weights(timesfm, lambda weights: weights.update({name: torch.zeros(shape)}))
    assert "TimesFM 2.5" in problem(timesfm)


@pytest.mark.parametrize("limit", [31, 0, -5, "long", None, 2.5, True])
def test_timesfm_context_limit(timesfm: Path, limit: object) -> None:
    edit(timesfm, lambda config: config.update(max_context=limit))
    assert "max_context" in problem(timesfm)


def test_a_family_whose_package_is_missing(timesfm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(
        "tsprune.models.families.find_spec", lambda name: None if name == "timesfm" else original(name)
    )
    message = problem(timesfm)
    assert "timesfm model" in message
    assert install("timesfm") in message


def test_finding_needs_no_upstream_package_and_no_weights(timesfm: Path) -> None:
    checkpoint = find(str(timesfm))
    assert checkpoint.directory == timesfm
    assert checkpoint.shapes["stacked_xf.0.attn.qkv_proj.weight"] == (72, 24)
    assert checkpoint.config["architecture"] == "timesfm-2.5"
