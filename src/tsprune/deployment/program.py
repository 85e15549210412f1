"""A program of `program_format`, checked against the operators' signatures and ready to run with torch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsprune.deployment.program_format import (
    DEVICE,
    LONGEST_AXIS,
    MOST_NUMBERS,
    Argument,
    Axis,
    Name,
    Node,
    ProgramInput,
    ProgramText,
    Value,
)
from tsprune.deployment.program_operators import ITEM, SIZE_OPERATORS
from tsprune.errors import one_line

TENSOR, TENSORS, SIZE = "a tensor", "tensors", "a size"  # kinds of values
_RETURNED = {"Tensor": TENSOR, "int": SIZE, "List[Tensor]": TENSORS}
_Function = Callable[..., Any]


def _within(value: Any) -> Any:
    """A size, which is a whole number that some tensor may have, also while torch traces it."""
    if not isinstance(value, int | torch.SymInt) or (isinstance(value, int) and abs(value) > LONGEST_AXIS):
        raise ValueError(f"a size is {str(value)[:60]}")
    return value


def _of_sizes(function: _Function) -> _Function:
    return lambda *sizes: _within(function(*map(_within, sizes)))


class _Step(NamedTuple):
    """A node, ready to run.

    arguments : with None where a value goes, by `places`; `lists` has the same of arguments that are lists
    dead : numbers of values that no later step takes
    """

    function: _Function
    arguments: list[Any]
    places: tuple[tuple[int, int], ...]
    lists: tuple[tuple[int, list[Any], tuple[tuple[int, int], ...]], ...]
    keywords: dict[str, Any]
    named: tuple[tuple[str, int], ...]
    into: int
    dead: tuple[int, ...]


class Program(nn.Module):
    """A network as a list of operators; its inputs and outputs are those of the program, in order.

    Nodes that depend on no input are computed once, when it is made. `torch.export.export` takes it as any
    other module.

    tensors : by the names of the program's weights, of the types and shapes that it states
    device : on which it computes, whatever the exported one was on

    Raises ValueError for an operator that this torch lacks, for arguments that it does not take, and for
    values of shapes that do not fit each other or are too large. All of this is found out by shapes alone,
    before anything is computed.
    """

    def __init__(
        self, program: ProgramText, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.program = program
        self.device = torch.device(device)
        functions = _checked_functions(program)
        fixed, steps = _apart(program)
        _probe(program, tensors, functions, set(fixed))
        held: dict[int, Any] = {
            len(program.inputs) + place: tensors[weight.name].to(self.device)
            for place, weight in enumerate(program.weights)
        }
        for step in _steps(program, functions, fixed, self.device, ()):
            with torch.no_grad():
                held[step.into] = _run(step, held)
        used = {number for place in steps for number in program.nodes[place].values()}
        used |= set(program.outputs.values())
        held = {number: value for number, value in held.items() if number in used}
        self._held = [number for number, value in held.items() if _is_tensor(value)]
        self._plain = {number: value for number, value in held.items() if not _is_tensor(value)}
        for number in self._held:
            self.register_buffer(f"value_{number}", held[number], persistent=False)
        kept = {*self._held, *self._plain, *program.outputs.values()}
        self._steps = _steps(program, functions, steps, self.device, kept)
        self._outputs = tuple(program.outputs.values())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The program's outputs."""
        values: dict[int, Any] = dict(enumerate(inputs))
        values.update(zip(self._held, self._buffers.values(), strict=True))
        values.update(self._plain)
        for step in self._steps:
            values[step.into] = _run(step, values)
            for number in step.dead:
                del values[number]
        return tuple(values[number] for number in self._outputs)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _run(step: _Step, values: Mapping[int, Any]) -> Any:
    arguments, keywords = step.arguments.copy(), step.keywords
    for at, number in step.places:
        arguments[at] = values[number]
    for at, entries, places in step.lists:
        arguments[at] = entries = entries.copy()
        for place, number in places:
            entries[place] = values[number]
    if step.named:
        keywords = keywords | {name: values[number] for name, number in step.named}
    return step.function(*arguments, **keywords)


def _apart(program: ProgramText) -> tuple[list[int], list[int]]:
    """The places of nodes that depend on no input, and of the others."""
    known = set(range(len(program.inputs), program.first_node))
    fixed, others = [], []
    for place, node in enumerate(program.nodes):
        if all(number in known for number in node.values()):
            known.add(program.first_node + place)
            fixed.append(place)
        else:
            others.append(place)
    return fixed, others


def _steps(
    program: ProgramText,
    functions: Sequence[_Function],
    places: Sequence[int],
    device: torch.device,
    kept: Collection[int],
) -> list[_Step]:
    """Some of the nodes, in order; values of `kept` are never dead, and if it is empty none is."""
    living, steps = set(kept), []
    for place in reversed(places):
        node, into = program.nodes[place], program.first_node + place
        dead = {number for number in node.values() if number not in living} if kept else set()
        living |= dead
        steps.append(_step(node, functions[place], into, tuple(dead), device))
    return steps[::-1]


def _step(node: Node, function: _Function, into: int, dead: tuple[int, ...], device: torch.device) -> _Step:
    arguments, places, lists = [], [], []
    for at, argument in enumerate(node.arguments):
        entry, inner = _entry(argument, device)
        arguments.append(entry)
        if isinstance(argument, Value):
            places.append((at, argument.number))
        elif inner:
            lists.append((at, entry, inner))
    keywords: dict[str, Any] = {}
    named = []
    for name, argument in node.keywords.items():
        keywords[name], inner = _entry(argument, device)
        if isinstance(argument, Value):
            named.append((name, argument.number))
        elif inner:
            raise ValueError(f"{node.operator}: the list {name} holds values")
    return _Step(function, arguments, tuple(places), tuple(lists), keywords, tuple(named), into, dead)


def _entry(argument: Argument, device: torch.device) -> tuple[Any, tuple[tuple[int, int], ...]]:
    """An argument for torch, with None for values, and for a list the places and numbers of its values."""
    if isinstance(argument, tuple):
        inner = tuple((at, one.number) for at, one in enumerate(argument) if isinstance(one, Value))
        return [_entry(one, device)[0] for one in argument], inner
    if isinstance(argument, Name):
        return (device if argument.kind == DEVICE else getattr(torch, argument.name)), ()
    return (None if isinstance(argument, Value) else argument), ()


def _checked_functions(program: ProgramText) -> list[_Function]:
    """The functions of the nodes; ValueError if a node's arguments are none of its operator's."""
    kinds = [TENSOR] * program.first_node
    functions: list[_Function] = []
    for place, node in enumerate(program.nodes):
        try:
            function, kind = _function(node, kinds)
        except ValueError as error:
            raise ValueError(f"node {place}, {node.operator}: {error}") from None
        functions.append(function)
        kinds.append(kind)
    if any(kinds[number] != TENSOR for number in program.outputs.values()):
        raise ValueError("an output is no tensor")
    return functions


def _function(node: Node, kinds: Sequence[str]) -> tuple[_Function, str]:
    """The function of a node, and what it returns, for values of these kinds before it."""
    given = [kinds[one.number] if isinstance(one, Value) else type(one) for one in node.arguments]
    if node.operator == ITEM:
        if given != [TENSORS, int] or node.keywords:
            raise ValueError("it takes tensors and a number")
        return operator.getitem, TENSOR
    if node.operator in SIZE_OPERATORS:
        function = SIZE_OPERATORS[node.operator]
        count = 1 if function is operator.neg else 2
        if len(given) != count or node.keywords or not all(kind in (SIZE, int) for kind in given):
            raise ValueError(f"it takes {count} sizes")
        return _of_sizes(function), SIZE
    return _aten(node, kinds)


def _aten(node: Node, kinds: Sequence[str]) -> tuple[_Function, str]:
    """An operator of ATen, whose name `program_format` found in its list."""
    _, packet, overload = node.operator.split(".")
    try:
        function = getattr(getattr(torch.ops.aten, packet), overload)
    except AttributeError:
        raise ValueError(f"torch {torch.__version__} has no such operator") from None
    schema = function._schema
    positional = [one for one in schema.arguments if not one.kwarg_only]
    named = {one.name: one for one in schema.arguments}
    if len(node.arguments) > len(positional):
        raise ValueError(f"it takes {len(positional)} arguments, not {len(node.arguments)}")
    given = dict(zip((one.name for one in positional), node.arguments, strict=False))
    twice = [name for name in node.keywords if name in given or name not in named]
    if twice:
        raise ValueError(f"it takes no further argument {twice[0][:60]!r}")
    given |= node.keywords
    # one that makes a tensor would else make it on the CPU, in the probe as well
    makes = not any("Tensor" in str(one.real_type) for one in schema.arguments)
    for name, one in named.items():
        if name not in given:
            if not one.has_default_value() or (makes and name == DEVICE):
                raise ValueError(f"its argument {name} is missing")
        elif not _fits(str(one.real_type), given[name], kinds):
            raise ValueError(f"its argument {name} is not of type {one.real_type}")
    returned = [_RETURNED.get(str(one.real_type), "") for one in schema.returns]
    if not returned or not all(returned):
        raise ValueError("it returns something else than tensors and sizes")
    return function, returned[0] if len(returned) == 1 else TENSORS


def _fits(kind: str, argument: Argument, kinds: Sequence[str]) -> bool:
    """Whether an argument is of a type of the operator's signature, such as "Optional[List[int]]"."""
    if kind.startswith("Optional["):
        return argument is None or _fits(kind[len("Optional[") : -1], argument, kinds)
    if kind.startswith("List["):
        inner = kind[len("List[") : -1]
        if isinstance(argument, Value):
            return inner == "Tensor" and kinds[argument.number] == TENSORS
        return isinstance(argument, tuple) and all(_fits(inner, one, kinds) for one in argument)
    if isinstance(argument, Value):
        return kinds[argument.number] in {"Tensor": (TENSOR, SIZE), "int": (SIZE,), "number": (SIZE,)}.get(
            kind, ()
        )
    if isinstance(argument, Name):
        return kind == {
            "dtype": "ScalarType", "layout": "Layout", "memory_format": "MemoryFormat", "device": "Device"
        }[argument.kind]  # fmt: skip
    # a number in place of a tensor is one without axes; in a list of sizes one number stands for itself
    return type(argument) in {
        "Tensor": (int, float, bool),
        "number": (int, float, bool),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "str": (str,),
    }.get(kind, ())


def _probe(
    program: ProgramText, tensors: Mapping[str, Tensor], functions: Sequence[_Function], fixed: set[int]
) -> None:
    """Runs a program with small sizes on the meta device, whose tensors are shapes; ValueError if it cannot.

    So no memory is taken before the size of every value is known, but for those that grow with the inputs.
    fixed : places of nodes that depend on no input, whose values are kept
    """
    meta = torch.device("meta")
    sizes = {name: min(max(least, 3), most) for name, (least, most) in program.sizes.items()}
    values: dict[int, Any] = {
        number: torch.empty(input_shape(one, sizes), dtype=getattr(torch, one.dtype), device=meta)
        for number, one in enumerate(program.inputs)
    }
    for place, weight in enumerate(program.weights):
        values[len(program.inputs) + place] = tensors[weight.name].to(meta)
    kept, most = 0, 2 * MOST_NUMBERS + 4 * sum(tensor.numel() for tensor in tensors.values())
    everything = range(len(program.nodes))
    for step in _steps(program, functions, everything, meta, program.outputs.values()):
        place = step.into - program.first_node
        name = program.nodes[place].operator
        try:
            with torch.no_grad():
                values[step.into] = found = _run(step, values)
        except Exception as error:  # of many classes of torch's own
            raise ValueError(f"{name} cannot take its arguments ({one_line(error, 200)})") from None
        made = sum(one.numel() for one in _tensors(found))
        kept += made if place in fixed else 0
        if made > MOST_NUMBERS:
            raise ValueError(f"{name} returns more than {MOST_NUMBERS:,} numbers")
        if kept > most:
            raise ValueError(f"values that depend on no input have more than {most:,} numbers")
        for number in step.dead:
            del values[number]


def _tensors(found: object) -> list[Tensor]:
    several = found if isinstance(found, tuple | list) else (found,)
    return [one for one in several if isinstance(one, Tensor)]


def input_shape(one: ProgramInput, sizes: Mapping[str, int]) -> list[int]:
    """The shape of an input for sizes that may change, by name."""
    return [sizes[axis.size] * axis.times if isinstance(axis, Axis) else axis for axis in one.shape]
