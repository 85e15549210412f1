"""A `torch.export.ExportedProgram` written as a program of `program_format`."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph
from torch.fx import Node as GraphNode

from tsprune.deployment.program_format import (
    DEVICE,
    Argument,
    Axis,
    Name,
    Node,
    ProgramInput,
    ProgramText,
    Value,
    Weight,
    as_text,
    weights_of,
)
from tsprune.deployment.program_operators import ITEM, OPERATORS, PRODUCTS, SIZE_OPERATORS

_SIZES: dict[Any, str] = {function: name for name, function in SIZE_OPERATORS.items()}
_SIZES[operator.getitem] = ITEM
_KEPT = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
# what they return is their first argument, as nothing in a program changes a tensor
_SAME = tuple(f"aten.{name}.default" for name in ("alias", "detach", "detach_", "lift_fresh_copy"))
_DROPOUT = "aten.dropout.default"
# kernels of another device may lay out their results in another way, which a view cannot always take
_RENAMED = dict.fromkeys(("aten.view.default", "aten._unsafe_view.default"), "aten.reshape.default")
_ADD_IN_PLACE = "aten.add_.Tensor"
_RENAMED[_ADD_IN_PLACE] = "aten.add.Tensor"
_FRESH = (*PRODUCTS, *(f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div")))


def write_program(
    exported: ExportedProgram, path: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Writes a program and, beside it, its weights.

    inputs, outputs : names of the program's, in their order

    Raises ValueError for a program with operators or arguments that the format has none for.
    """
    program, tensors = as_program(exported, inputs, outputs)
    path.write_text(as_text(program))
    save_file(tensors, weights_of(path))


def as_program(
    exported: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[ProgramText, dict[str, Tensor]]:
    """A program, and its weights by name; ValueError as in `write_program`."""
    if not all(_readable(node) for node in exported.graph.nodes):
        exported = exported.run_decompositions({})  # which takes as long as tracing
    signature = exported.graph_signature
    if any(one.kind != OutputKind.USER_OUTPUT for one in signature.output_specs):
        raise ValueError("the program changes its weights")
    sizes: dict[str, tuple[int, int]] = {}
    nodes = {node.name: node for node in exported.graph.nodes}
    taken = [nodes[one.arg.name] for one in signature.input_specs if one.kind == InputKind.USER_INPUT]
    found = tuple(
        _input(name, node.meta["val"], exported, sizes) for name, node in zip(inputs, taken, strict=True)
    )
    writing = _Writing({node: number for number, node in enumerate(taken)})
    weights, tensors = _weights(exported, nodes, writing.numbers)
    writing.graph(exported.graph.nodes, len(found) + len(weights))
    results = [writing.numbers[nodes[one.arg.name]] for one in signature.output_specs]
    whole = ProgramText(sizes, found, weights, tuple(writing.nodes), dict(zip(outputs, results, strict=True)))
    program = _needed(whole)
    unknown = [node.operator for node in program.nodes if node.operator not in OPERATORS]
    if unknown:
        raise ValueError(f"the program format has no operator {unknown[0]}")
    return program, {weight.name: tensors[weight.name] for weight in program.weights}


@dataclasses.dataclass
class _Writing:
    """Nodes of a graph of torch, written as nodes of a program.

    numbers : of the value that each node of the graph returns; of a graph within it, of each of its outputs
    """

    numbers: dict[GraphNode, Any]
    nodes: list[Node] = dataclasses.field(default_factory=list)
    first: int = 0

    def graph(self, nodes: Iterable[GraphNode], first: int) -> None:
        """Writes a whole graph, whose first node has the number `first`."""
        self.first = first
        for node in nodes:
            if node.op == "call_function":
                self.numbers[node] = self._called(node)

    def _called(self, node: GraphNode) -> Any:
        """The number of the value that a node returns."""
        source = node.args[0] if node.args and isinstance(node.args[0], GraphNode) else None
        if _is_same(node):
            return self.numbers[source]  # type: ignore[index]
        if node.target is operator.getitem and isinstance(self.numbers[source], tuple):  # type: ignore[index]
            return self.numbers[source][node.args[1]]  # type: ignore[index]
        if _is_plain_block(node):
            return self._within(node)
        name = _SIZES.get(node.target, str(node.target))
        name = _RENAMED.get(name, name)
        # memory is pinned nowhere
        keywords = {key: self._argument(one) for key, one in node.kwargs.items() if key != "pin_memory"}
        if isinstance(node.target, torch._ops.OpOverload) and not node.all_input_nodes:
            takes = {one.name for one in node.target._schema.arguments if one.kwarg_only}
            keywords |= {DEVICE: Name(DEVICE)} if DEVICE in takes else {}
        self.nodes.append(Node(name, tuple(self._argument(one) for one in node.args), keywords))
        number = self.first + len(self.nodes) - 1
        if _is_fresh_sum(node):
            self.numbers[source] = number  # type: ignore[index]
        return number

    def _within(self, node: GraphNode) -> tuple[int, ...]:
        """Writes the graph within a node in its place."""
        block = _block(node)
        places = [one for one in block.nodes if one.op == "placeholder"]
        for place, given in zip(places, node.args[_BLOCK_ARGUMENTS:], strict=True):
            self.numbers[place] = self.numbers[given]  # type: ignore[index]
        self.graph(block.nodes, self.first)
        (output,) = (one for one in block.nodes if one.op == "output")
        return tuple(self.numbers[one] for one in output.args[0])  # type: ignore[union-attr]

    def _argument(self, argument: Any) -> Argument:
        if isinstance(argument, GraphNode):
            number = self.numbers.get(argument)
            if not isinstance(number, int):
                raise ValueError("the program has a graph within it")
            return Value(number)
        if isinstance(argument, list | tuple):
            return tuple(self._argument(one) for one in argument)
        if isinstance(argument, torch.device):
            return Name(DEVICE)
        for kind in (torch.dtype, torch.layout, torch.memory_format):
            if isinstance(argument, kind):
                return Name(kind.__name__, _name_of(argument))
        if isinstance(argument, str):
            return argument.replace(" ", "")  # of an equation
        if argument is None or isinstance(argument, bool | int | float):
            return argument
        raise ValueError(f"the program format has no argument of type {type(argument).__name__}")


def _needed(program: ProgramText) -> ProgramText:
    """A program without the weights and nodes that no output depends on, such as assertions."""
    used = set(program.outputs.values())
    for place, node in reversed(list(enumerate(program.nodes))):
        if program.first_node + place in used:
            used.update(node.values())
    inputs = len(program.inputs)
    kept = [
        number
        for number in range(program.first_node + len(program.nodes))
        if number < inputs or number in used
    ]
    numbers = {number: place for place, number in enumerate(kept)}
    weights = [weight for place, weight in enumerate(program.weights) if inputs + place in used]
    nodes = [
        node.renumbered(numbers)
        for place, node in enumerate(program.nodes)
        if program.first_node + place in used
    ]
    outputs = {name: numbers[number] for name, number in program.outputs.items()}
    return ProgramText(program.sizes, program.inputs, tuple(weights), tuple(nodes), outputs)


def _readable(node: GraphNode) -> bool:
    """Whether `_Writing` takes a node as torch traced it: nothing but fresh sums is changed in place."""
    if node.op != "call_function" or node.target in _SIZES or _is_same(node) or _is_fresh_sum(node):
        return True
    if _is_plain_block(node):
        return all(_readable(one) for one in _block(node).nodes)
    return isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.is_mutable


def _is_same(node: GraphNode) -> bool:
    """Whether a node returns its first argument."""
    return str(node.target) in _SAME or (str(node.target) == _DROPOUT and node.args[2] is False)


def _is_fresh_sum(node: GraphNode) -> bool:
    """Whether a node adds to what an arithmetic operator has just made, and what nothing else has taken."""
    if str(node.target) != _ADD_IN_PLACE:
        return False
    source, other = node.args[0], node.args[1]
    if not isinstance(source, GraphNode) or str(source.target) not in _FRESH:
        return False
    places = {one: place for place, one in enumerate(node.graph.nodes)}
    kinds = {one.meta["val"].dtype for one in (source, other) if isinstance(one, GraphNode)}
    return len(kinds) == 1 and all(places[one] >= places[node] for one in source.users)


def _is_plain_block(node: GraphNode) -> bool:
    """Whether a node is a graph to be computed without autocast, as a program is anyway."""
    return str(node.target) == "wrap_with_autocast" and node.args[2] is False


_BLOCK_ARGUMENTS = 5  # of the arguments of such a node, those of the graph are behind so many


def _block(node: GraphNode) -> Graph:
    held: Any = node.args[_BLOCK_ARGUMENTS - 1]
    found: Graph = getattr(node.graph.owning_module, held.target).graph
    return found


def _input(
    name: str, example: Tensor, exported: ExportedProgram, sizes: dict[str, tuple[int, int]]
) -> ProgramInput:
    """An input by the tensor that it was traced with; its sizes that may change are added to `sizes`."""
    shape: list[int | Axis] = []
    for size in example.shape:
        if isinstance(size, int):
            shape.append(size)
            continue
        times, symbol = size.node.expr.as_coeff_Mul()
        limits = exported.range_constraints.get(symbol)
        if limits is None:
            raise ValueError(f"the size {size} of {name} is no multiple of one that may change")
        sizes[str(symbol)] = int(limits.lower), int(limits.upper)
        shape.append(Axis(str(symbol), int(times)))
    return ProgramInput(name, _name_of(example.dtype), tuple(shape))


def _weights(
    exported: ExportedProgram, nodes: Mapping[str, GraphNode], numbers: dict[GraphNode, Any]
) -> tuple[tuple[Weight, ...], dict[str, Tensor]]:
    """The weights, each once: tensors that share memory alike are one."""
    first = len(numbers)
    weights: list[Weight] = []
    tensors: dict[str, Tensor] = {}
    known: dict[tuple[Any, ...], int] = {}
    for one in exported.graph_signature.input_specs:
        if one.kind == InputKind.USER_INPUT:
            continue
        if one.kind not in _KEPT or one.target is None:
            raise ValueError(f"an input of kind {one.kind.name} cannot be kept")
        held: Mapping[str, Any] = (
            exported.state_dict if one.target in exported.state_dict else exported.constants
        )
        tensor = held[one.target].detach()
        identity = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if identity not in known or not tensor.numel():
            known[identity] = first + len(weights)
            kind = _name_of(tensor.dtype)
            weights.append(Weight(one.target, kind, kind, tuple(tensor.shape)))
            tensors[one.target] = tensor.clone(memory_format=torch.contiguous_format)
        numbers[nodes[one.arg.name]] = known[identity]
    return tuple(weights), tensors


def _name_of(kind: object) -> str:
    return str(kind).removeprefix("torch.")
