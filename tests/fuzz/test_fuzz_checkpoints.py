"""Damaged, contradictory and hostile checkpoints, and odd arguments: a model, or one TspruneError."""

from __future__ import annotations

import copy
import json
import os
import pickle
import resource
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.tiny import TINY, few_samples
from tsprune.errors import TspruneError, TspruneWarning
from tsprune.models import Forecaster, load
from tsprune.pruning import prune

pytestmark = pytest.mark.filterwarnings("ignore::tsprune.errors.TspruneWarning", "ignore::UserWarning")
FAMILIES = [name for name in TINY if not name.endswith("cached")]
SECONDS = 30  # that no input may take, on a busy machine
MEGABYTES = 500  # that all of them together may take
SERIES = [[1.0, 2.0, 4.0, 3.0] * 6]


def fuzzed(examples: int) -> Callable[..., Any]:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a failure is as it was drawn
    )


def _too_slow(*_: object) -> None:
    raise AssertionError(f"took longer than {SECONDS} s")


def survives(action: Callable[[], Forecaster]) -> None:
    """`action` returns a model that forecasts, or raises a TspruneError of one printable line."""
    before = signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(SECONDS)
    message = "no problem"
    try:
        few_samples(action()).forecast(SERIES, 3)
    except TspruneError as error:
        message = str(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert message.isprintable()
    assert 0 < len(message) <= 1000


@pytest.fixture(scope="module", autouse=True)
def _little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < MEGABYTES * 1024  # kilobytes


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every family; one that is pruned, one in shards, and one with an adapter."""
    root = tmp_path_factory.mktemp("fuzz")
    made = {name: root / name for name in FAMILIES}
    for name, path in made.items():
        TINY[name](path)
    for name in ("tiny-timesfm", "tiny-chronos-bolt"):
        model = load(made[name], device="cpu")
        made[f"{name}-pruned"] = root / f"{name}-pruned"
        prune(model, [f"{model.anatomy.stacks[0].name}.1.mlp"]).save(made[f"{name}-pruned"])
    made["shards"] = _sharded(made["tiny-timesfm"], root / "shards")
    made["adapter"] = _adapted(made["tiny-chronos2"], root / "adapter")
    return made


def _sharded(source: Path, target: Path) -> Path:
    target.mkdir()
    weights = load_file(source / "model.safetensors")
    placed = {}
    for number, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, target / file)
        placed |= dict.fromkeys(names, file)
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return target


def _adapted(source: Path, target: Path) -> Path:
    """LoRA of one projection, as peft writes it."""
    shutil.copytree(source, target)
    path = "base_model.model.encoder.block.0.layer.0.self_attention.q"
    width, inner = load_file(source / "model.safetensors")[
        "encoder.block.0.layer.0.self_attention.q.weight"
    ].shape[::-1]
    factors = {
        f"{path}.lora_A.weight": torch.ones(2, width) / width,
        f"{path}.lora_B.weight": torch.ones(inner, 2),
    }
    save_file(factors, target / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"], "rank_pattern": {}}
    (target / "adapter_config.json").write_text(json.dumps(config))
    return target


# --- JSON -----------------------------------------------------------------------------------------

VALUES = st.sampled_from(
    [
        10**9,
        10**19,
        2**63 - 1,
        -1,
        0,
        1,
        2,
        7,
        0.5,
        1e308,
        -0.0,
        float("nan"),
        float("inf"),
        True,
        False,
        None,
        "",
        "x",
        "10",
        "[bold]\x1b[31m</b>",
        "../../etc/passwd",
        "\ud800",
        "a" * 5000,
        [],
        [0],
        [1, "x", None],
        [[[[]]]],
        {},
        {"_target_": "os.system", "command": "false"},
        {"a": {"b": [1]}},
    ]
)
TEXTS = st.sampled_from(
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"num_layers": ' + b"9" * 10_000 + b"}",
        b"\x00" * 1000,
        b"{}" + b" " * 2**21,
        b"\xef\xbb\xbf{}",
        b'{"d_model": 1e999999}',
    ]
)


@st.composite
def changes(draw: Any) -> Callable[[Any], Any]:
    """A function that changes one or two places of a JSON value, in any depth."""
    steps = [
        (draw(st.integers(0, 10**6)), draw(st.sampled_from(["set", "drop", "add", "copy"])), draw(VALUES))
        for _ in range(draw(st.integers(1, 2)))
    ]

    def change(value: Any) -> Any:
        value = copy.deepcopy(value)
        for place, how, new in steps:
            spots = list(_places(value))
            if not spots:
                return copy.deepcopy(new)
            holder, key = spots[place % len(spots)]
            if how == "set":
                holder[key] = copy.deepcopy(new)
            elif how == "drop":
                del holder[key]
            elif how == "add" and isinstance(holder, dict):
                holder[f"{key}_more"] = copy.deepcopy(new)
            elif isinstance(holder, dict):
                holder[key] = [holder[key]]
        return value

    return change


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def with_file(source: Path, name: str, content: bytes, action: Callable[[Path], Forecaster]) -> None:
    """`action` on a checkpoint, one file of which holds something else meanwhile."""
    path = source / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        survives(lambda: action(source))
    finally:
        path.write_bytes(before)


def from_folder(path: Path) -> Forecaster:
    return load(path, device="cpu")


@pytest.mark.parametrize("name", FAMILIES)
@fuzzed(22)
@given(change=changes())
def test_config(name: str, checkpoints: dict[str, Path], change: Callable[[Any], Any]) -> None:
    changed = change(json.loads((checkpoints[name] / "config.json").read_text()))
    with_file(checkpoints[name], "config.json", json.dumps(changed).encode(), from_folder)


FILES = {
    "config.json": "tiny-chronos-t5",
    "generation_config.json": "tiny-chronos-t5",
    "tsprune.json": "tiny-timesfm-pruned",
    "model.safetensors.index.json": "shards",
    "adapter_config.json": "adapter",
}


@pytest.mark.parametrize("file", FILES)
@fuzzed(12)
@given(text=TEXTS)
def test_text_that_is_no_json(file: str, checkpoints: dict[str, Path], text: bytes) -> None:
    with_file(checkpoints[FILES[file]], file, text, from_folder)


@pytest.mark.parametrize(
    "file", ["generation_config.json", "model.safetensors.index.json", "adapter_config.json"]
)
@fuzzed(20)
@given(change=changes())
def test_other_files(file: str, checkpoints: dict[str, Path], change: Callable[[Any], Any]) -> None:
    source = checkpoints[FILES[file]]
    changed = change(json.loads((source / file).read_text()))
    with_file(source, file, json.dumps(changed).encode(), from_folder)


@pytest.mark.parametrize("name", ["tiny-timesfm-pruned", "tiny-chronos-bolt-pruned"])
@fuzzed(25)
@given(change=changes())
def test_removal(
    name: str,
    checkpoints: dict[str, Path],
    change: Callable[[Any], Any],
) -> None:
    changed = change(json.loads((checkpoints[name] / "tsprune.json").read_text()))
    with_file(checkpoints[name], "tsprune.json", json.dumps(changed).encode(), from_folder)


# --- weights --------------------------------------------------------------------------------------


@st.composite
def damages(draw: Any) -> Callable[[bytes], bytes]:
    """A function that damages the bytes of a safetensors file: its length, its header, or its numbers."""
    kind = draw(st.sampled_from(["cut", "flip", "length", "header", "tail"]))
    place, byte = draw(st.floats(0, 1)), draw(st.integers(0, 255))
    length = draw(st.sampled_from([0, 1, 7, 2**20, 2**31, 2**40, 2**63, 2**64 - 1]))
    change = draw(changes())

    def damage(content: bytes) -> bytes:
        at = min(int(place * len(content)), len(content) - 1)
        (size,) = struct.unpack("<Q", content[:8])
        if kind == "cut":
            return content[:at]
        if kind == "flip":
            at = int(place * min(len(content) - 1, 400))  # mostly the header
            return content[:at] + bytes([byte]) + content[at + 1 :]
        if kind == "length":
            return struct.pack("<Q", length) + content[8:]
        if kind == "tail":
            return content + bytes([byte]) * 10
        header = json.dumps(change(json.loads(content[8 : 8 + size]))).encode()
        return struct.pack("<Q", len(header)) + header + content[8 + size :]

    return damage


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("tiny-timesfm", "model.safetensors"),
        ("tiny-chronos-bolt", "model.safetensors"),
        ("shards", "model-00001-of-00002.safetensors"),
        ("adapter", "adapter_model.safetensors"),
    ],
)
@fuzzed(15)
@given(damage=damages())
def test_weights(
    name: str, file: str, checkpoints: dict[str, Path], damage: Callable[[bytes], bytes]
) -> None:
    source = checkpoints[name]
    with_file(source, file, damage((source / file).read_bytes()), from_folder)


@fuzzed(30)
@given(
    name=st.sampled_from(["shards", "adapter", "tiny-timesfm", "tiny-timesfm-pruned"]),
    pick=st.integers(0, 10**6),
    how=st.sampled_from(["gone", "folder", "pipe", "loop", "device", "empty", "copy", "pickle"]),
)
def test_other_things_in_place_of_files(
    name: str, pick: int, how: str, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("other") / "copy"
    shutil.copytree(checkpoints[name], folder)
    path = sorted(folder.iterdir())[pick % len(list(folder.iterdir()))]
    if how == "copy":
        shutil.copy(path, path.with_name(f"more-{path.name}"))
    else:
        path.unlink()
        make = {
            "gone": lambda: None,
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "loop": lambda: path.symlink_to(path.name),
            "device": lambda: path.symlink_to("/dev/zero"),
            "empty": path.touch,
            "pickle": lambda: path.write_bytes(pickle.dumps({"weight": 1})),
        }
        make[how]()
    survives(lambda: from_folder(folder))


# --- arguments ------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "",
        " ",
        ".",
        "..",
        "/",
        "~",
        "~nosuchuser/x",
        "nowhere",
        "checkpoints/mine",
        "a/b/c",
        "a//b",
        "a/b@",
        "a/b@main:",
        "a/b@../..:x",
        "owner/bad name!",
        "bundled:",
        "bundled:../../etc",
        "bundled:nothing",
        "x" * 300,
        "y/" + "x" * 300,
        "nul\0byte",
        "a/\0",
        "\ud800",
        "[bold]/[/]",
        "\x1b[31m/red",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        b"bytes",
        Path("nowhere"),
        Path("a/b"),
        None,
        3,
        2.5,
        [],
        {},
        object(),
        str,
        torch.zeros(2),
        torch.nn.Linear(2, 2),
    ]
)


@fuzzed(60)
@given(
    name=NAMES,
    revision=st.sampled_from([None, None, "main", "", "../x", 3, "x" * 500]),
    subfolder=st.sampled_from([None, None, "", "sub", "../x", "/etc", 3, "a\0b"]),
)
def test_names(name: Any, revision: Any, subfolder: Any) -> None:
    survives(lambda: load(name, device="cpu", revision=revision, subfolder=subfolder))


@fuzzed(40)
@given(
    device=st.sampled_from(
        [None, "cpu", "cuda:99", "gpu", "mps", "meta", "nonsense", "", 123, -1, b"cpu", [], "cpu:x", "\0"]
    ),
    dtype=st.sampled_from([None, "float32", "float64", "int8", "nonsense", torch.int8, torch.float16, 3, []]),
    samples=st.sampled_from([None, 1, 0, -1, 2.5, "4", True, 10**12, float("nan")]),
    seed=st.sampled_from([0, 1, -1, 2.5, None, "1", 10**30]),
)
def test_arguments(device: Any, dtype: Any, samples: Any, seed: Any, checkpoints: dict[str, Path]) -> None:
    if device is None or device == "mps":  # the machine may have one
        device = "cpu" if device is None else "mps:99"
    path = checkpoints["tiny-moirai"]
    survives(lambda: load(path, device=device, dtype=dtype, samples=samples, seed=seed))


def test_the_warning_is_a_line() -> None:
    """What is ignored above is one line, too."""
    assert str(TspruneWarning("a\nb\x1b[31m")) == "a b\\x1b[31m"
