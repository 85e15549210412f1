"""State files: what was written comes back, and nothing else is taken for it."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from tsprune.errors import TspruneError
from tsprune.pruning.training_state import BestWeights, read_state, write_state

KEY = {"steps": 5, "suite": "abc", "minutes": None}
CONTENT = {"best": {"w": torch.arange(3.0)}, "scores": [(0, 1.5), (2, float("inf"))], "finished": False}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state"
    write_state(path, KEY, CONTENT)
    found = read_state(path, KEY)
    assert torch.equal(found["best"].pop("w"), torch.arange(3.0))
    assert found == {"best": {}, "scores": CONTENT["scores"], "finished": False}
    assert [file.name for file in path.parent.iterdir()] == ["state"]


def test_an_interrupted_write_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_state(path, KEY, CONTENT)

    def torn(_value: object, where: BinaryIO) -> None:
        where.write(b"PK half of a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", torn)
        with pytest.raises(KeyboardInterrupt):
            write_state(path, KEY, {**CONTENT, "finished": True})
    assert read_state(path, KEY)["finished"] is False
    write_state(path, KEY, {**CONTENT, "finished": True})
    assert read_state(path, KEY)["finished"] is True
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


def test_what_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for content in (b"", b"text", pickle.dumps(Harmful()), pickle.dumps({"format": 1})):
        path.write_bytes(content)
        with pytest.raises(TspruneError, match="is not the state of a recovery, or is damaged"):
            read_state(path, KEY)
    torch.save({"format": 3, "key": KEY, "content": Harmful()}, path)
    with pytest.raises(TspruneError, match="is not the state of a recovery"):
        read_state(path, KEY)
    torch.save({"format": 7}, path)
    with pytest.raises(TspruneError, match="has format 7; this tsprune reads format 3"):
        read_state(path, KEY)


def test_the_state_of_another_training(tmp_path: Path) -> None:
    write_state(tmp_path / "state", KEY, CONTENT)
    with pytest.raises(TspruneError, match=r"another recovery \(other steps, learning rate\); name another"):
        read_state(tmp_path / "state", {**KEY, "steps": 6, "learning_rate": 1.0})


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(TspruneError, match="is a folder; name a file"):
        write_state(tmp_path, KEY, CONTENT)


# --- the best weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
def test_the_best_weights_are_the_last_that_were_kept(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the module at first; a full disk costs memory, not the training."""
    module = torch.nn.Linear(2, 3)
    if full:

        def refused(**_: object) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with BestWeights(module) as best:
        assert best.kept is None
        assert best.weights["weight"].data_ptr() == module.weight.data_ptr()
        trained = {name: tensor + 1 for name, tensor in module.state_dict().items()}
        for shift in (1.0, 2.0):
            best.keep(trained)
            expected = {name: tensor.clone() for name, tensor in trained.items()}
            for tensor in trained.values():
                tensor.add_(shift)  # training goes on
            for found in (best.weights, best.kept):
                assert found is not None
                assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
