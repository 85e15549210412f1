"""Which files hold a checkpoint: shards, strays, what is missing, and what real checkpoints hold besides."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import TINY, write_bolt, write_t5, write_timesfm
from tsprune.errors import TspruneError, TspruneWarning
from tsprune.models import load

SERIES = [np.sin(np.arange(40) / 3).astype(np.float32)]
FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
INDEX = "model.safetensors.index.json"


@pytest.fixture
def bolt(tmp_path: Path) -> Path:
    write_bolt(tmp_path / "bolt")
    return tmp_path / "bolt"


@pytest.fixture
def shards(bolt: Path) -> Path:
    """A Chronos-Bolt in two files with an index, as transformers writes it."""
    divide(bolt)
    return bolt


def divide(folder: Path) -> None:
    """Puts the weights of a checkpoint into two files with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    placed = {FIRST: names[::2], SECOND: names[1::2]}
    for file, tensors in placed.items():
        save_file({name: weights[name] for name in tensors}, folder / file, metadata={"format": "pt"})
    index = {name: file for file, tensors in placed.items() for name in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))


def problem(path: Path) -> str:
    with pytest.raises(TspruneError) as caught:
        load(path, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def forecast(path: Path) -> np.ndarray:
    return load(path, device="cpu").forecast(SERIES, 5).quantiles


def assert_equal_weights(folder: Path, expected: Mapping[str, torch.Tensor]) -> None:
    found = load(folder, device="cpu").module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize("name", TINY)
def test_shards_with_an_index(name: str, tmp_path: Path) -> None:
    TINY[name](tmp_path)
    expected = load(tmp_path, device="cpu").module.state_dict()
    divide(tmp_path)
    assert_equal_weights(tmp_path, expected)


def test_a_missing_shard(shards: Path) -> None:
    (shards / SECOND).unlink()
    assert f"the shard {SECOND} is missing" in problem(shards)
    (shards / INDEX).unlink()
    assert f"the shard {SECOND} is missing" in problem(shards)


def test_a_shard_that_the_index_does_not_know(shards: Path) -> None:
    shutil.copy(shards / FIRST, shards / "model-00003-of-00003.safetensors")
    assert "model-00003-of-00003.safetensors" in problem(shards)


def test_a_second_file(bolt: Path) -> None:
    save_file({"other": torch.ones(1)}, bolt / "older.safetensors")
    assert "older.safetensors" in problem(bolt)


def test_tensors_that_are_elsewhere_than_the_index_says(shards: Path) -> None:
    edit(shards / FIRST, lambda weights: weights.update(stranger=torch.ones(1)))
    assert "stranger" in problem(shards)
    edit(shards / FIRST, lambda weights: weights.pop("stranger"))
    name = sorted(load_file(shards / SECOND))[0]
    edit(shards / SECOND, lambda weights: weights.pop(name))
    assert name in problem(shards)


def test_a_tensor_in_two_shards(shards: Path) -> None:
    (shards / INDEX).unlink()
    name = sorted(load_file(shards / FIRST))[0]
    edit(shards / SECOND, lambda weights: weights.update({name: torch.ones(1)}))
    assert f"{name} is in {FIRST} and again in {SECOND}" in problem(shards)


@pytest.mark.parametrize(
    "file", ["../../etc/x.safetensors", "/etc/x.safetensors", "x.bin", "", None, 5, "a\0b"]
)
def test_an_index_that_names_other_files(shards: Path, file: object) -> None:
    index = json.loads((shards / INDEX).read_text())
    index["weight_map"]["shared.weight"] = file
    (shards / INDEX).write_text(json.dumps(index))
    assert INDEX in problem(shards)


def test_links_are_followed_and_pipes_are_not(bolt: Path, tmp_path: Path) -> None:
    expected = forecast(bolt)
    weights = bolt / "model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    np.testing.assert_array_equal(forecast(bolt), expected)
    (tmp_path / "blob").unlink()
    assert "model.safetensors is a link to" in problem(bolt)
    weights.unlink()
    os.mkfifo(weights)
    assert "pipe" in problem(bolt)
    weights.unlink()
    weights.mkdir()
    assert "model.safetensors" in problem(bolt)


def test_an_empty_file(bolt: Path) -> None:
    (bolt / "model.safetensors").write_bytes(b"")
    assert "model.safetensors is damaged" in problem(bolt)


def test_weights_of_a_type_that_holds_no_weights(bolt: Path) -> None:
    edit(bolt / "model.safetensors", lambda w: w.update({"shared.weight": torch.ones(2, 24).to(torch.int8)}))
    assert "shared.weight (I8)" in problem(bolt)


# --- what released checkpoints hold ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", TINY)
def test_other_types(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    TINY[name](tmp_path)
    before = load(tmp_path, device="cpu").saved_module.state_dict()
    edit(
        tmp_path / "model.safetensors",
        lambda w: w.update({n: x.to(dtype) for n, x in w.items() if x.is_floating_point()}),
    )
    model = load(tmp_path, device="cpu")
    assert {x.dtype for x in model.module.parameters() if x.is_floating_point()} == {torch.float32}
    assert set(model.stored.values()) == {dtype}
    found = model.saved_module.state_dict()
    assert all(torch.equal(found[n], before[n].to(dtype).float()) for n in model.stored)


@pytest.mark.parametrize("write", [write_bolt, write_t5])
def test_tied_weights_doubled_or_under_their_other_name(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path)
    path, tied = tmp_path / "model.safetensors", "encoder.embed_tokens.weight"
    expected = load(tmp_path, device="cpu").module.state_dict()
    edit(path, lambda weights: weights.update({tied: weights["shared.weight"].clone()}))
    doubled = load(tmp_path, device="cpu").module.state_dict()
    edit(path, lambda weights: weights.pop("shared.weight"))
    other = load(tmp_path, device="cpu").module.state_dict()
    for found in (doubled, other):
        assert all(torch.equal(found[name], x) for name, x in expected.items())
    edit(path, lambda weights: weights.update({"shared.weight": weights[tied] + 1}))
    assert "ties" in problem(tmp_path)


def test_tensors_that_follow_from_the_sizes_or_upstream_ignores(tmp_path: Path) -> None:
    TINY["tiny-chronos2"](tmp_path / "two")
    TINY["tiny-chronos-t5"](tmp_path / "five")
    for folder, name in (
        ("two", "encoder.rope_embed.inv_freq"),
        ("five", "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
    ):
        expected = forecast(tmp_path / folder)
        module = load(tmp_path / folder, device="cpu").module
        derived = dict(module.named_buffers())
        name = next((n for n in derived if n.endswith("inv_freq")), name)
        edit(tmp_path / folder / "model.safetensors", lambda w, name=name: w.update({name: torch.ones(3)}))
        np.testing.assert_array_equal(forecast(tmp_path / folder), expected)


@pytest.mark.parametrize("name", ["tiny-toto", "tiny-moirai", "tiny-moirai2"])
def test_unknown_keys_of_a_config_are_named(name: str, tmp_path: Path) -> None:
    TINY[name](tmp_path)
    path = tmp_path / "config.json"
    expected = load(tmp_path, device="cpu").module.state_dict()
    more = {"mystery": 3, "_target_": "os.getcwd", "architectures": ["Toto"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    with pytest.warns(TspruneWarning, match="unknown keys are ignored: mystery, _target_, architectures"):
        assert_equal_weights(tmp_path, expected)


def test_distributions_may_be_named_by_their_package(tmp_path: Path) -> None:
    TINY["tiny-moirai"](tmp_path)
    expected = load(tmp_path, device="cpu").module.state_dict()
    text = (tmp_path / "config.json").read_text()
    for file in ("mixture", "student_t", "normal", "negative_binomial", "log_normal"):
        text = text.replace(f"uni2ts.distribution.{file}.", "uni2ts.distribution.")
    (tmp_path / "config.json").write_text(text)
    found = load(tmp_path, device="cpu").module.state_dict()
    assert all(torch.equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize(
    "part",
    [
        {"_target_": "uni2ts.distribution.normal.NormalFixedScaleOutput", "scale": {"_target_": "os.getcwd"}},
        {"_target_": "uni2ts.distribution.mixture.MixtureOutput", "components": [{"_target_": "os.getcwd"}]},
        {"_target_": "uni2ts.distribution.student_t.StudentTOutput", "_partial_": True},
        {"_target_": "uni2ts.distribution.normal.NormalFixedScaleOutput", "scale": "${oc.env:HOME}"},
    ],
)
def test_nothing_is_made_of_what_is_nested_in_a_distribution(part: object, tmp_path: Path) -> None:
    TINY["tiny-moirai"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["distr_output"]["components"][0] = part
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert str(tmp_path) in problem(tmp_path)


def test_a_foreign_config_or_none_changes_nothing_of_timesfm(tmp_path: Path) -> None:
    write_timesfm(tmp_path)
    expected = forecast(tmp_path)
    config = tmp_path / "config.json"
    for foreign in ({"model_type": "timesfm", "num_layers": 10**9}, {"architectures": ["Llama"]}, {}):
        config.write_text(json.dumps(foreign))
        np.testing.assert_array_equal(forecast(tmp_path), expected)
    config.unlink()
    np.testing.assert_array_equal(forecast(tmp_path), expected)


@pytest.mark.parametrize("name", [name for name in TINY if not name.endswith("cached")])
@pytest.mark.parametrize("value", [10**9, 2**24, 0, -1])
def test_a_config_cannot_ask_for_more_than_the_weights_hold(name: str, value: int, tmp_path: Path) -> None:
    """Every size, one after the other; time and memory are watched by the fuzz suite."""
    TINY[name](tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    sizes = [
        key
        for key in config
        if key in ("d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "vocab_size",
                   "embed_dim", "mlp_hidden_dim", "patch_size", "num_predict_token")
        and not (key == "vocab_size" and "bolt" in name)
        and not (key == "vocab_size" and "chronos2" in name)
    ]  # fmt: skip
    for key in sizes:
        path.write_text(json.dumps({**config, key: value}))
        said = problem(tmp_path)
        # a patch that exceeds the context contradicts what the weights' metadata say of it
        assert "config.json" in said or (key == "patch_size" and "max_context in the metadata" in said), key
