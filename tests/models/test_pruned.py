"""Pruned checkpoints that are damaged, contradictory or in the way; the model card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.suites import tiny
from tsprune.errors import TspruneError, TspruneWarning
from tsprune.models import load
from tsprune.pruning import prune


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prune(tiny("tiny-timesfm"), ["stack.0.self.head.0", "stack.1.mlp"]).save(tmp_path / "pruned")
    return tmp_path / "pruned"


def problem(directory: Path) -> str:
    with pytest.raises(TspruneError) as caught:
        load(str(directory), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert "tsprune.json" in message
    assert len(message) < 600
    return message


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("components"), "is damaged (no 'components')"),
        (lambda x: x.update(components=5), "is damaged"),
        (lambda x: x.update(components=["stack.0.mlp.head"]), "is not an address"),
        (lambda x: x.update(components=["stack.7.mlp"]), "does not fit its own model ('stack.7.mlp' matches"),
        (
            lambda x: x.update(components=["stack.0", "stack.1", "stack.2"]),
            "nothing would be left of the stack",
        ),
        (
            lambda x: x["components"].append("stack.2.mlp"),
            "and the weights disagree (unexpected: stacked_xf.2.",
        ),
        (lambda x: x["components"].pop(0), "and the weights disagree (of another shape: stacked_xf.0.attn"),
        (lambda x: x.update(family="gpt"), "names the unknown family 'gpt'"),
        (lambda x: x.update(family="toto"), "does not describe a toto model"),
        (lambda x: x.update(format=99), "has format 99; this version of tsprune reads format 1"),
        (lambda x: x.update(shapes={}), "does not describe a timesfm model"),
        (lambda x: x["shapes"].update({"stacked_xf.1.attn.out.weight": [24, 25]}), "contradicts itself"),
        (lambda x: x.update(shapes="big"), "is damaged"),
        (lambda x: x.update(config=None), "is damaged"),
        (lambda x: x.update(config={"max_context": -1}), "max_context in config.json must be at least"),
        (lambda x: x.update(parameters={}), "is damaged (no 'before')"),
        (lambda x: x.update(recovery={"teacher": "me"}), "is damaged (no 'components')"),
        (lambda x: x.update(recovery=[1]), "is damaged"),
    ],
)
def test_contradictions_are_one_clear_line(directory: Path, change: Change, message: str) -> None:
    path = directory / "tsprune.json"
    stated = json.loads(path.read_text())
    change(stated)
    path.write_text(json.dumps(stated))
    assert message in problem(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_damage_is_one_clear_line(directory: Path, content: bytes) -> None:
    (directory / "tsprune.json").write_bytes(content)
    assert "is damaged" in problem(directory)


def test_weights_of_another_shape(directory: Path) -> None:
    path = directory / "model.safetensors"
    weights = load_file(path)
    name = "stacked_xf.0.attn.out.weight"
    save_file({**weights, name: weights[name][:, 1:].contiguous()}, path)
    assert f"of another shape: {name}" in problem(directory)
    save_file({key: x for key, x in weights.items() if key != name}, path)
    assert f"missing: {name}" in problem(directory)
    save_file({**weights, "more": torch.ones(1)}, path)
    assert "unexpected: more" in problem(directory)


def test_a_target_that_is_in_the_way(directory: Path) -> None:
    pruned = load(str(directory), device="cpu")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(TspruneError, match=r"pruned is not empty; name a new folder$"):
        pruned.save(directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    with pytest.raises(TspruneError, match=r"config.json is a file; name a new folder$"):
        pruned.save(directory / "config.json")
    assert [path.name for path in directory.parent.iterdir()] == ["pruned"]


def test_nothing_is_half_written(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = load(str(directory), device="cpu")

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tsprune.models.pruned.model_card", fail)
    with pytest.raises(KeyboardInterrupt):
        pruned.save(directory.parent / "second")
    assert [path.name for path in directory.parent.iterdir()] == ["pruned"]


def test_an_empty_folder_is_no_obstacle(directory: Path) -> None:
    (directory.parent / "empty").mkdir()
    load(str(directory), device="cpu").save(directory.parent / "empty")
    assert {path.name for path in (directory.parent / "empty").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tsprune.json",
    }


def test_the_card_says_what_was_removed_and_measured(tmp_path: Path) -> None:
    model = tiny("tiny-moirai")
    pruned = prune(model, ["stack.0.mlp", "stack.1.self.head.0"])
    pruned.save(tmp_path / "bare")
    bare = (tmp_path / "bare" / "README.md").read_text()
    assert "- 1 MLPs: `stack.0.mlp`" in bare
    assert "- 1 attention heads: `stack.1.self.head.0`" in bare
    assert f"{model.parameter_count:,} before, {pruned.parameter_count:,} after" in bare
    assert "Not measured" in bare
    assert sum("CC-BY-NC" in line and "do not publish" in line for line in bare.splitlines()) == 1
    pruned.save(tmp_path / "measured", evidence={"MASE": (0.81234, 0.82), "ms": (10.0, 7.5)})
    card = (tmp_path / "measured" / "README.md").read_text()
    assert "| MASE | 0.8123 | 0.82 |" in card
    assert "| ms | 10 | 7.5 |" in card


def test_other_families_may_be_passed_on_as_their_original_may(directory: Path) -> None:
    card = (directory / "README.md").read_text()
    assert "The licence of the original checkpoint applies" in card
    assert "released weights" not in card


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("tiny-moirai2", "non-commercial"),
        ("tiny-timestral", "revenue clause"),
        ("tiny-timesfm3", "non-commercial"),
    ],
)
def test_saving_says_what_a_licence_forbids_in_one_line(name: str, terms: str, tmp_path: Path) -> None:
    pruned = prune(tiny(name), "stack.0.mlp")
    with pytest.warns(TspruneWarning, match=terms) as told:
        pruned.save(tmp_path / "pruned")
    (line,) = (str(warning.message) for warning in told)
    assert line == pruned.licence
    assert line in (tmp_path / "pruned" / "README.md").read_text()


def test_an_unpruned_model_has_no_tsprune_json(tmp_path: Path) -> None:
    tiny("tiny-timesfm").save(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {"config.json", "model.safetensors"}
