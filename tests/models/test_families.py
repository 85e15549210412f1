"""Every family is told from its files, and refuses checkpoints that upstream would load wrongly."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.tiny import TINY
from tsprune.errors import TspruneError, TspruneWarning
from tsprune.models import FAMILIES, load

NEW = ["chronos-t5", "chronos2", "toto", "moirai", "moirai2", "moirai-moe", "timestral"]


@pytest.fixture(params=NEW)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def checkpoint(family: str, tmp_path: Path) -> Path:
    TINY[f"tiny-{family}"](tmp_path)
    return tmp_path


def problem(directory: Path) -> str:
    with pytest.raises(TspruneError) as caught:
        load(str(directory), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message
    assert len(message) < 600
    return message


def rewrite(directory: Path, **changes: torch.Tensor | None) -> None:
    """Tensors replaced, added or (None) removed."""
    path = directory / "model.safetensors"
    with safe_open(path, "pt") as header:
        metadata = header.metadata()
    weights = load_file(path) | {name: x for name, x in changes.items() if x is not None}
    removed = [name for name, x in changes.items() if x is None]
    save_file({n: x for n, x in weights.items() if n not in removed}, path, metadata=metadata)


def a_matrix(directory: Path) -> str:
    """A tensor that no family is told by."""
    names = sorted(n for n, x in load_file(directory / "model.safetensors").items() if x.ndim == 2)
    known = {name for family in FAMILIES.values() for name in family.weights}
    return next(name for name in names if name not in known and "emb" not in name and "head" not in name)


def test_the_family_is_told(family: str, checkpoint: Path) -> None:
    assert load(str(checkpoint), device="cpu").family == family


def test_weights_must_be_complete(checkpoint: Path) -> None:
    name = a_matrix(checkpoint)
    rewrite(checkpoint, **{name: None})
    assert "config.json and weights disagree" in problem(checkpoint)


def test_weights_must_be_known(checkpoint: Path) -> None:
    rewrite(checkpoint, stranger=torch.zeros(2))
    assert "stranger" in problem(checkpoint)


def test_weights_must_have_the_shape_that_the_config_says(checkpoint: Path) -> None:
    name = a_matrix(checkpoint)
    rewrite(checkpoint, **{name: torch.zeros(3, 5)})
    assert "config.json and weights disagree" in problem(checkpoint)


def test_a_config_that_says_nothing_useful(family: str, checkpoint: Path) -> None:
    key = FAMILIES[family].config_key
    (checkpoint / "config.json").write_text(json.dumps({key: {"nonsense": 1}}))
    message = problem(checkpoint)
    assert "config.json" in message


def test_without_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    assert "it has no config.json" in problem(checkpoint)


@pytest.mark.parametrize("target", ["os.system", "uni2ts.distribution._base.tree_map_multi", None])
def test_moirai_builds_distributions_only(target: str | None, tmp_path: Path) -> None:
    TINY["tiny-moirai"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["distr_output"]["components"][0] = {"_target_": target, "command": f"touch {tmp_path}/fired"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "unknown distribution" in problem(tmp_path)
    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize("name", ["ChronosPipeline", "AutoConfig", "nothing"])
def test_chronos_builds_tokenizers_only(name: str, tmp_path: Path) -> None:
    TINY["tiny-chronos-t5"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["chronos_config"]["tokenizer_class"] = name
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "Chronos-T5" in problem(tmp_path)


@pytest.mark.parametrize("stated", ["0", "-3", "many", "1.5"])
def test_a_history_that_makes_no_sense(stated: str, tmp_path: Path) -> None:
    TINY["tiny-toto"](tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(load_file(path), path, metadata={"max_context": stated})
    assert "max_context" in problem(tmp_path)


ALONE = """
import json, os, sys
import lightning.pytorch, transformers.models.t5.modeling_t5  # for all of them at once, as they take seconds
from tsprune.models import load

class Absent:
    def __init__(self, others):
        self.others = others

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.others:
            raise ModuleNotFoundError(name)

packages = json.loads(sys.argv[1])
assert not {name.split(".")[0] for name in sys.modules} & packages.keys()
for package, directories in packages.items():
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, package
        continue
    sys.meta_path.insert(0, Absent(packages.keys() - {package}))
    print(*[load(directory, device="cpu").family for directory in directories], flush=True)
    os._exit(0)
"""


def test_each_extra_works_alone(tmp_path: Path) -> None:
    """Without the other upstream packages."""
    packages: dict[str, list[str]] = {}
    for family, described in FAMILIES.items():
        TINY[f"tiny-{family}"](tmp_path / family)
        packages.setdefault(described.package, []).append(str(tmp_path / family))
    assert len(packages) >= 5
    code = [sys.executable, "-c", ALONE, json.dumps(packages)]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [Path(path).name for paths in packages.values() for path in paths], (
        done.stderr
    )


def test_a_folder_without_code_is_not_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timecopilot-toto installs a folder toto2, which is not the package of Toto 2.0."""
    (tmp_path / "stray" / "tests").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    family = dataclasses.replace(FAMILIES["toto2"], package="stray")
    assert not family.installed
    assert "toto-2" in family.install or "[toto2]" in family.install  # whether tsprune is installed
    (tmp_path / "stray" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert family.installed


def test_an_upstream_package_newer_than_tested_is_a_warning(checkpoint: Path, family: str) -> None:
    described = FAMILIES[family]
    assert described.tested is not None
    described.warn_if_newer()  # warnings are errors here
    older = dataclasses.replace(described, tested=(described.tested[0], "0.0"))
    with pytest.warns(TspruneWarning, match=f"^{described.tested[0]} .* is newer than 0.0"):
        older.warn_if_newer()
    dataclasses.replace(described, tested=("no-such-distribution", "0.0")).warn_if_newer()
