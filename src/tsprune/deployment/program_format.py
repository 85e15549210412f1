"""The file of a torch-export program: plain JSON, of which nothing is executed.

`torch.export.export` writes a network as a list of calls of ATen operators. `torch.export.save` keeps that
list in an archive, and reading one is not safe (torch 2.13). Its reader finds each operator by `getattr`
along a dotted name from the file, from the module `torch` on, so that a file can name any function of torch.
It evaluates sizes by `sympy.sympify`, which is Python's `eval`. And it unpickles constants and example inputs
where their plain form cannot be read. One class does the first two, so that a reader of the JSON alone has
them as well.

So the format is our own. A program numbers its values: inputs first, then weights, then one for each node.
A node names an operator of `program_operators` and takes values with smaller numbers, so there are no cycles.
Everything else in it is a number, a truth value, a type, a list of these, one of `WORDS`, or letters that
name the axes of a product. Weights are in a safetensors file beside it.

This module needs no torch: it reads and writes the text, and checks what can be checked without operators.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsprune.choices import DTYPES
from tsprune.deployment.program_operators import OPERATORS
from tsprune.files import parse_json

PROGRAM_SUFFIX = ".json"
WEIGHTS_SUFFIX = ".safetensors"  # of the file beside it
PROGRAM_FORMAT = "tsprune-program-1"

MOST_NODES = 200_000
MOST_LENGTH = 2**16  # of a list in an argument
MOST_AXES = 16
LONGEST_AXIS = 2**40  # of a tensor along an axis
MOST_NUMBERS = 2**30  # of a tensor in all
_INTEGER = 2**63  # of an argument, such as the end of a slice

STORED_TYPES = (*DTYPES, "float64", "bool", "uint8", "int8", "int16", "int32", "int64")
LAYOUTS = ("strided",)
MEMORY_FORMATS = ("contiguous_format", "preserve_format")
DEVICE = "device"  # the one that the reader chooses
# of the approximation of GELU, of the rounding of quotients, and of padding
WORDS = ("none", "tanh", "floor", "trunc", "constant")
_TERM = r"(\.\.\.)?[a-zA-Z]*"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*->{_TERM}")  # of einsum


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of the program, by its number."""

    number: int


@dataclasses.dataclass(frozen=True)
class Name:
    """A type, a layout, a memory format, or the chosen device.

    kind : "dtype", "layout", "memory_format" or "device"
    name : one of those of its kind; of a device: ""
    """

    kind: str
    name: str = ""


Argument = Value | Name | int | float | bool | str | None | tuple[Any, ...]
_NAMES = {"dtype": STORED_TYPES, "layout": LAYOUTS, "memory_format": MEMORY_FORMATS}
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclasses.dataclass(frozen=True)
class Node:
    """A call: the name of an operator, and its arguments."""

    operator: str
    arguments: tuple[Argument, ...]
    keywords: Mapping[str, Argument] = dataclasses.field(default_factory=dict)

    def values(self) -> Iterator[int]:
        """Numbers of the values that it takes."""
        for argument in (*self.arguments, *self.keywords.values()):
            for one in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(one, Value):
                    yield one.number

    def renumbered(self, numbers: Mapping[int, int]) -> Node:
        """The call with other numbers of the values that it takes."""
        keywords = {name: _renumbered(one, numbers) for name, one in self.keywords.items()}
        return Node(self.operator, tuple(_renumbered(one, numbers) for one in self.arguments), keywords)


def _renumbered(argument: Argument, numbers: Mapping[int, int]) -> Argument:
    if isinstance(argument, Value):
        return Value(numbers[argument.number])
    if isinstance(argument, tuple):
        return tuple(_renumbered(one, numbers) for one in argument)
    return argument


@dataclasses.dataclass(frozen=True)
class Axis:
    """The size of a tensor along an axis that may change: `times` a size that the program names."""

    size: str
    times: int = 1


@dataclasses.dataclass(frozen=True)
class ProgramInput:
    """A tensor that the program takes; its shape has a number or an `Axis` for each axis."""

    name: str
    dtype: str
    shape: tuple[int | Axis, ...]


@dataclasses.dataclass(frozen=True)
class Weight:
    """A tensor of the file beside it; `stored` is its type there, and `dtype` the one it is computed with."""

    name: str
    dtype: str
    stored: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ProgramText:
    """A whole program but for the weights.

    sizes : the least and the largest of each size that may change, by name
    outputs : the number of each output's value, by its name, in order
    """

    sizes: Mapping[str, tuple[int, int]]
    inputs: tuple[ProgramInput, ...]
    weights: tuple[Weight, ...]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, int]

    @property
    def first_node(self) -> int:
        """The number of the first node's value."""
        return len(self.inputs) + len(self.weights)


def weights_of(program: Path) -> Path:
    """The file beside a program that holds its weights."""
    return program.with_suffix(WEIGHTS_SUFFIX)


def as_text(program: ProgramText) -> str:
    """A program as JSON, a line for each node."""
    head = {
        "format": PROGRAM_FORMAT,
        "sizes": {name: list(limits) for name, limits in program.sizes.items()},
        "inputs": [
            {"name": one.name, "dtype": one.dtype, "shape": [_axis_object(axis) for axis in one.shape]}
            for one in program.inputs
        ],
        "weights": [dataclasses.asdict(one) for one in program.weights],
        "outputs": dict(program.outputs),
    }
    lines = [f" {_dumped(name)}: {_dumped(part)}" for name, part in head.items()]
    nodes = ",\n".join(f"  {_dumped(_node_object(node))}" for node in program.nodes)
    return "{\n" + ",\n".join([*lines, f' "nodes": [\n{nodes}\n ]']) + "\n}\n"


def _dumped(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _axis_object(axis: int | Axis) -> object:
    return axis if isinstance(axis, int) else dataclasses.asdict(axis)


def _node_object(node: Node) -> list[Any]:
    keywords = {name: _argument_object(one) for name, one in node.keywords.items()}
    arguments = [_argument_object(one) for one in node.arguments]
    return [node.operator, arguments, keywords] if keywords else [node.operator, arguments]


def _argument_object(argument: Argument) -> object:
    if isinstance(argument, Value):
        return {"value": argument.number}
    if isinstance(argument, Name):
        return {argument.kind: argument.name}
    if isinstance(argument, tuple):
        return [_argument_object(one) for one in argument]
    if isinstance(argument, float) and not math.isfinite(argument):
        return {"float": str(argument)}
    return argument


def from_text(text: str) -> ProgramText:
    """Reads what `as_text` writes; ValueError, with the reason, for anything else."""
    whole = _fields(parse_json(text), "program", "format", "sizes", "inputs", "weights", "outputs", "nodes")
    if whole["format"] != PROGRAM_FORMAT:
        raise ValueError(f"its format is not {PROGRAM_FORMAT}")
    sizes = {_word(name, "a size"): _limits(one) for name, one in _object(whole["sizes"], "sizes").items()}
    program = ProgramText(
        sizes=sizes,
        inputs=tuple(_input(one, sizes) for one in _list(whole["inputs"], "inputs")),
        weights=tuple(_weight(one) for one in _list(whole["weights"], "weights")),
        nodes=tuple(
            _node(one, number) for number, one in enumerate(_list(whole["nodes"], "nodes", MOST_NODES))
        ),
        outputs={
            _word(name, "an output"): _whole(number, "an output")
            for name, number in _object(whole["outputs"], "outputs").items()
        },
    )
    for kind, names in (("input", program.inputs), ("weight", program.weights)):
        if len({one.name for one in names}) < len(names):  # type: ignore[attr-defined]
            raise ValueError(f"two of kind {kind} have one name")
    _require_order(program)
    return program


def _require_order(program: ProgramText) -> None:
    """ValueError unless every node takes values before its own, and outputs are values."""
    first = program.first_node
    for place, node in enumerate(program.nodes):
        late = [number for number in node.values() if number >= first + place]
        if late:
            raise ValueError(f"node {place} takes value {late[0]}, which is not before it")
    last = first + len(program.nodes)
    if not program.outputs or any(number >= last for number in program.outputs.values()):
        raise ValueError("its outputs are not values of it")


def _fields(value: object, what: str, *names: str) -> dict[str, Any]:
    found = _object(value, what)
    if set(found) != set(names):
        odd = sorted(set(found) ^ set(names))
        raise ValueError(
            f"{what}: the field {odd[0][:60]!r} is {'unknown' if odd[0] in found else 'missing'}"
        )
    return found


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: no JSON object")
    return value


def _list(value: object, what: str, most: int = MOST_LENGTH) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{what}: no list of at most {most:,} entries")
    return value


def _word(value: object, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 500:
        raise ValueError(f"the name of {what} is none")
    return value


def _whole(value: object, what: str, least: int = 0, most: int = LONGEST_AXIS) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what}: no whole number from {least} to {most}")
    return value


def _one_of(value: object, names: Sequence[str], what: str) -> str:
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{what}: {str(value)[:60]!r} is not one of {', '.join(names)}")
    return value


def _limits(value: object) -> tuple[int, int]:
    least, most = (_whole(one, "limits of a size") for one in _pair(value))
    if least > most:
        raise ValueError("limits of a size: the least one is above the largest")
    return least, most


def _pair(value: object) -> list[Any]:
    found = _list(value, "limits of a size")
    if len(found) != 2:
        raise ValueError("limits of a size: not two numbers")
    return found


def _shape(value: object, what: str, axis: Callable[[object], Any]) -> tuple[Any, ...]:
    return tuple(axis(one) for one in _list(value, f"the shape of {what}", MOST_AXES))


def _input(value: object, sizes: Mapping[str, object]) -> ProgramInput:
    stated = _fields(value, "an input", "name", "dtype", "shape")
    name = _word(stated["name"], "an input")

    def axis(one: object) -> int | Axis:
        if not isinstance(one, dict):
            return _whole(one, f"the shape of {name}")
        fields = _fields(one, f"the shape of {name}", "size", "times")
        size = _one_of(fields["size"], tuple(sizes), f"the shape of {name}")
        return Axis(size, _whole(fields["times"], f"the shape of {name}", 1))

    dtype = _one_of(stated["dtype"], STORED_TYPES, name)
    return ProgramInput(name, dtype, _shape(stated["shape"], name, axis))


def _weight(value: object) -> Weight:
    stated = _fields(value, "a weight", "name", "dtype", "stored", "shape")
    name = _word(stated["name"], "a weight")
    shape = _shape(stated["shape"], name, lambda one: _whole(one, f"the shape of {name}"))
    if math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"{name}: more than {MOST_NUMBERS:,} numbers")
    dtype, stored = (_one_of(stated[field], STORED_TYPES, name) for field in ("dtype", "stored"))
    return Weight(name, dtype, stored, shape)


def _node(value: object, place: int) -> Node:
    what = f"node {place}"
    parts = _list(value, what)
    if len(parts) not in (2, 3):
        raise ValueError(f"{what}: not an operator with its arguments")
    operator = _word(parts[0], f"the operator of {what}")
    if operator not in OPERATORS:
        raise ValueError(f"{what}: {operator[:60]!r} is not an operator of such programs")
    arguments = tuple(_argument(one, what) for one in _list(parts[1], what))
    keywords = _object(parts[2], what) if len(parts) == 3 else {}
    return Node(operator, arguments, {name: _argument(one, what) for name, one in keywords.items()})


def _argument(value: object, what: str, *, within: bool = False) -> Argument:
    if isinstance(value, list) and not within:
        return tuple(_argument(one, what, within=True) for one in _list(value, what))
    if isinstance(value, dict) and len(value) == 1:
        ((kind, one),) = value.items()
        return _marked(kind, one, what)
    if isinstance(value, str):
        return value if _EQUATION.fullmatch(value) else _one_of(value, WORDS, what)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -_INTEGER <= value < _INTEGER:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(f"{what}: {str(value)[:60]!r} cannot be an argument")


def _marked(kind: object, value: object, what: str) -> Argument:
    """An argument that JSON has no form for: a value, a type, a float that is not finite."""
    if kind == "value":
        return Value(_whole(value, what))
    if kind == "float":
        return _FLOATS[_one_of(value, tuple(_FLOATS), what)]
    if kind == DEVICE:
        return Name(DEVICE, _one_of(value, ("",), what))
    if kind in _NAMES:
        return Name(str(kind), _one_of(value, _NAMES[str(kind)], what))
    raise ValueError(f"{what}: {str(kind)[:60]!r} is no kind of argument")
