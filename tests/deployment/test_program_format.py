"""A program is read as it was written, and whatever else a file says is refused in one line, unexecuted."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tsprune.deployment.program_format import (
    Axis,
    Name,
    Node,
    ProgramInput,
    ProgramText,
    Value,
    Weight,
    as_text,
    from_text,
)
from tsprune.deployment.program_reading import read_program
from tsprune.errors import TspruneError

# rows of pairs [2n] and a weight [2]: their products, of which infinite ones are 1
EXAMPLE = ProgramText(
    sizes={"n": (1, 100)},
    inputs=(ProgramInput("x", "float32", (Axis("n", 2),)),),
    weights=(Weight("w", "float32", "float32", (2,)),),
    nodes=(
        Node("aten.view.default", (Value(0), (-1, 2))),
        Node("aten.mul.Tensor", (Value(2), Value(1))),
        Node("aten.eq.Scalar", (Value(3), math.inf)),
        Node(
            "aten.ones_like.default",
            (Value(3),),
            {"dtype": Name("dtype", "float32"), "device": Name("device")},
        ),
        Node("aten.where.self", (Value(4), Value(5), Value(3))),
    ),
    outputs={"y": 6},
)
Change = Callable[[dict[str, Any]], object]


def written(folder: Path, content: object = None) -> Path:
    path = folder / "model.json"
    path.write_text(as_text(EXAMPLE) if content is None else json.dumps(content))
    save_file({"w": torch.tensor([2.0, 3.0])}, folder / "model.safetensors")
    return path


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert from_text(as_text(EXAMPLE)) == EXAMPLE
    (y,) = read_program(written(tmp_path))(torch.tensor([1.0, 1.0, math.inf, -1.0]))
    assert y.tolist() == [[2, 3], [1, -3]]


def test_every_kind_of_argument_is_read_as_it_was_written() -> None:
    arguments: tuple[Any, ...] = (
        None, True, False, 0, -3, 2**63 - 1, 1.5, math.inf, -math.inf, "floor", "...ab,bc->ac",
        (1, None, Value(0)), (), Name("dtype", "bool"), Name("layout", "strided"),
        Name("memory_format", "contiguous_format"), Name("device"),
    )  # fmt: skip
    program = ProgramText({}, EXAMPLE.inputs[:0], EXAMPLE.weights, (Node("item", arguments),), {"y": 0})
    assert from_text(as_text(program)) == program


def _node(place: int, *parts: object) -> Change:
    return lambda content: content["nodes"].__setitem__(place, list(parts))


def _argument(value: object) -> Change:
    return lambda content: content["nodes"][1][1].__setitem__(1, value)


def _at(*path: str | int, value: object) -> Change:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return change


X = {"value": 0}
HOSTILE: dict[str, tuple[Change, str]] = {
    "a shell": (_node(1, "os.system", ["touch hacked"]), "'os.system' is not an operator"),
    "a shell in torch": (_node(1, "torch.os.system", ["id"]), "is not an operator"),
    "unpickling": (_node(1, "torch.load", ["hacked.pt"]), "'torch.load' is not an operator"),
    "a chain of attributes": (
        _node(1, "aten.mul.__class__.__base__.__subclasses__", []),
        "is not an operator",
    ),
    "an attribute of an operator": (_node(1, "aten.mul.__class__", []), "is not an operator"),
    "the operators' module": (_node(1, "torch.ops.aten.mul.Tensor", [X, X]), "is not an operator"),
    "operator.call": (_node(1, "_operator.call", [X]), "is not an operator"),
    "getattr": (_node(1, "getattr", [X, "data"]), "is not an operator"),
    "a file opened by ATen": (_node(1, "aten.from_file.default", ["/etc/passwd"]), "is not an operator"),
    "memory as it is": (_node(1, "aten.as_strided.default", [X, [9], [1]]), "is not an operator"),
    "an operator in place": (_node(1, "aten.add_.Tensor", [X, X]), "is not an operator"),
    "another namespace": (_node(1, "profiler._record_function_enter.default", ["x"]), "is not an operator"),
    "an operator that is no text": (
        _node(1, {"value": 0}, [X]),
        "the name of the operator of node 1 is none",
    ),
    "a node that is a call": (_at("nodes", 1, value="aten.mul.Tensor(x, x)"), "node 1: no list"),
    "a text to evaluate": (_argument("__import__('os').system('id')"), "is not one of"),
    "a symbol to evaluate": (_at("inputs", 0, "shape", 0, value="2*n"), "no whole number"),
    "a size to evaluate": (
        _at("inputs", 0, "shape", 0, "size", value="n.__class__"),
        "'n.__class__' is not one of",
    ),
    "a type by its path": (
        _node(3, "aten.ones_like.default", [X], {"dtype": {"dtype": "os"}}),
        "'os' is not one of",
    ),
    "a device by its name": (_argument({"device": "cuda:7"}), "'cuda:7' is not one of"),
    "a kind that is unknown": (_argument({"object": "os.system"}), "'object' is no kind of argument"),
    "two kinds": (_argument({"value": 0, "dtype": "bool"}), "cannot be an argument"),
    "lists in lists": (_argument([[0]]), "cannot be an argument"),
    "a value of itself": (_argument({"value": 3}), "node 1 takes value 3, which is not before it"),
    "a later value": (_argument({"value": 5}), "which is not before it"),
    "a cycle": (_at("nodes", 0, 1, 0, value={"value": 6}), "which is not before it"),
    "a value below 0": (_argument({"value": -1}), "no whole number"),
    "an integer beyond 64 bits": (_argument(2**63), "cannot be an argument"),
    "a value that is NaN": (_argument({"value": math.nan}), "no whole number"),
    "an argument that is NaN": (_argument(math.nan), "cannot be an argument"),
    "a size that is NaN": (_at("sizes", "n", value=[1, math.nan]), "no whole number"),
    "a size that is true": (_at("sizes", "n", value=[True, 2]), "no whole number"),
    "limits in disorder": (_at("sizes", "n", value=[5, 2]), "the least one is above"),
    "a huge weight": (_at("weights", 0, "shape", value=[2**39, 2**39]), "w: more than"),
    "a huge size": (_at("weights", 0, "shape", value=[2**60]), "no whole number"),
    "many axes": (_at("weights", 0, "shape", value=[1] * 99), "no list of at most"),
    "a long list": (_argument([0] * 70_000), "no list of at most"),
    "an unknown field": (lambda content: content.update(code="import os"), "the field 'code' is unknown"),
    "a missing field": (lambda content: content.pop("sizes"), "the field 'sizes' is missing"),
    "an unknown field of a weight": (_at("weights", 0, "url", value="x"), "the field 'url' is unknown"),
    "another format": (_at("format", value="tsprune-program-9"), "its format is not"),
    "an unknown type": (_at("inputs", 0, "dtype", value="object"), "'object' is not one of"),
    "two weights of one name": (lambda content: content["weights"].append(content["weights"][0]), "one name"),
    "no output": (_at("outputs", value={}), "its outputs are not values of it"),
    "an output that is not there": (_at("outputs", "y", value=7), "its outputs are not values of it"),
    # of the right form, and found out by the operators' signatures and by shapes
    "too many arguments": (_node(1, "aten.abs.default", [X, X]), "it takes 1 arguments, not 2"),
    "too few": (_node(1, "aten.mul.Tensor", [X]), "its argument other is missing"),
    "an unknown keyword": (
        _node(1, "aten.abs.default", [X], {"out": X}),
        "it takes no further argument 'out'",
    ),
    "an argument twice": (
        _node(1, "aten.abs.default", [X], {"self": X}),
        "it takes no further argument 'self'",
    ),
    "a type in place of a tensor": (_argument({"dtype": "bool"}), "its argument other is not of type Tensor"),
    "a tensor in place of a size": (
        _node(1, "aten.unsqueeze.default", [X, X]),
        "its argument dim is not of type int",
    ),
    "an item of one tensor": (_node(1, "item", [X, 0]), "it takes tensors and a number"),
    "an item that is not there": (
        lambda content: content["nodes"].__setitem__(
            slice(0, 2), [["aten.unbind.int", [X]], ["item", [{"value": 2}, 2**40]]]
        ),
        "item cannot take its arguments",
    ),
    "a size of a tensor": (_node(1, "size.mul", [X, 2]), "it takes 2 sizes"),
    "an output that is no tensor": (_node(4, "aten.sym_size.int", [X, 0]), "an output is no tensor"),
    "shapes that do not fit": (_node(1, "aten.view.default", [X, [7, 7]]), "aten.view.default cannot take"),
    "types that do not fit": (
        _node(1, "aten.gather.default", [X, 0, X]),
        "aten.gather.default cannot take its arguments",
    ),
    "an axis that is not there": (_node(1, "aten.sum.dim_IntList", [X, [5]]), "cannot take its arguments"),
    "memory without an end": (
        _node(1, "aten.full.default", [[2**20, 2**20], 1.0], {"device": {"device": ""}}),
        "returns more than",
    ),
    "a long range": (
        _node(1, "aten.arange.default", [2**40], {"device": {"device": ""}}),
        "returns more than",
    ),
    "a tensor that is made on no device": (
        _node(1, "aten.full.default", [[2**20, 2**20], 1.0]),
        "its argument device is missing",
    ),
    "copies without an end": (_node(1, "aten.repeat.default", [X, [2**40]]), "returns more than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    change, reason = HOSTILE[name]
    content = copy.deepcopy(json.loads(as_text(EXAMPLE)))
    change(content)
    with pytest.raises(TspruneError, match=reason) as caught:
        read_program(written(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 10_000, '{"format": "tsprune-program-1"}', "\x80"]
)
def test_a_file_that_is_no_program(text: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TspruneError) as caught:
        read_program(path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_the_programs(tmp_path: Path) -> None:
    path, weights = written(tmp_path), tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for content, reason in (
        (whole[:-2], "not readable"),
        (b"", "not readable"),
        (b"\x80\x04N.", "not readable"),
    ):
        weights.write_bytes(content)
        with pytest.raises(TspruneError, match=reason) as caught:
            read_program(path)
        assert "\n" not in str(caught.value)
    others: list[tuple[dict[str, torch.Tensor], str]] = [
        ({}, "the weight 'w' is missing"),
        ({"w": torch.ones(2), "../../v": torch.ones(1)}, r"the weight '\.\./\.\./v' is unknown"),
        ({"w": torch.ones(3)}, r"w is float32 of shape \[3\], and the program needs float32 of \[2\]"),
        ({"w": torch.ones(2, dtype=torch.float64)}, "w is float64"),
    ]
    for tensors, reason in others:
        save_file(tensors, weights)
        with pytest.raises(TspruneError, match=reason):
            read_program(path)
    weights.unlink()
    with pytest.raises(TspruneError, match="there is no file of weights"):
        read_program(path)
