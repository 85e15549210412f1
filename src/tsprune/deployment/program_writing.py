"""A `torch.export.ExportedProgram` written as a program of `program_format`."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
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
from tsprune.deployment.program_operators import ITEM, OPERATORS

_SIZES: dict[Any, str] = {
    operator.add: "size.add",
    operator.sub: "size.sub",
    operator.mul: "size.mul",
    operator.floordiv: "size.floordiv",
    operator.mod: "size.mod",
    operator.neg: "size.neg",
    operator.getitem: ITEM,
}
_KEPT = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
# what they return is their first argument, as nothing in a program changes a tensor
_SAME = tuple(f"aten.{name}.default" for name in ("alias", "detach", "detach_", "lift_fresh_copy"))
_DROPOUT = "aten.dropout.default"


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
    if not _functional(exported):
        exported = exported.run_decompositions({})  # which takes as long as tracing
    used = _used(exported)
    numbers: dict[str, int] = {}
    sizes: dict[str, tuple[int, int]] = {}
    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    taken = [one.arg.name for one in exported.graph_signature.input_specs if one.kind == InputKind.USER_INPUT]
    found = []
    for number, (name, node) in enumerate(zip(inputs, taken, strict=True)):
        numbers[node] = number
        found.append(_input(name, placeholders[node].meta["val"], exported, sizes))
    weights, tensors = _weights(exported, used, numbers)
    nodes: list[Node] = []
    for node in exported.graph.nodes:
        if node.op != "call_function" or node.name not in used:
            continue
        if _is_same(node):
            numbers[node.name] = numbers[node.args[0].name]
            continue
        numbers[node.name] = len(found) + len(weights) + len(nodes)
        nodes.append(_node(node, numbers))
    results = [one.arg.name for one in exported.graph_signature.output_specs]
    if any(one.kind != OutputKind.USER_OUTPUT for one in exported.graph_signature.output_specs):
        raise ValueError("the program changes its weights")
    named = {name: numbers[result] for name, result in zip(outputs, results, strict=True)}
    return ProgramText(sizes, tuple(found), weights, tuple(nodes), named), tensors


def _functional(exported: ExportedProgram) -> bool:
    """Whether every node is an operator that leaves its arguments as they are."""
    calls = (node for node in exported.graph.nodes if node.op not in ("placeholder", "output"))
    return all(_is_same(node) or node.target in _SIZES or _leaves(node.target) for node in calls)


def _leaves(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and not target._schema.is_mutable


def _is_same(node: GraphNode) -> bool:
    """Whether a node returns its first argument."""
    return str(node.target) in _SAME or (str(node.target) == _DROPOUT and node.args[2] is False)


def _used(exported: ExportedProgram) -> set[str]:
    """Names of the nodes that outputs depend on; assertions and unused sizes are not among them."""
    used: set[str] = set()
    for node in reversed(exported.graph.nodes):
        if node.op == "output" or node.name in used:
            used.update(one.name for one in node.all_input_nodes)
            used.add(node.name)
    return used


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
    exported: ExportedProgram, used: set[str], numbers: dict[str, int]
) -> tuple[tuple[Weight, ...], dict[str, Tensor]]:
    """The weights that are used, each once: tensors that share memory alike are one."""
    first = len(numbers)
    weights: list[Weight] = []
    tensors: dict[str, Tensor] = {}
    known: dict[tuple[Any, ...], int] = {}
    for one in exported.graph_signature.input_specs:
        if one.kind == InputKind.USER_INPUT or one.arg.name not in used:
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
        numbers[one.arg.name] = known[identity]
    return tuple(weights), tensors


def _name_of(kind: object) -> str:
    return str(kind).removeprefix("torch.")


def _node(node: GraphNode, numbers: Mapping[str, int]) -> Node:
    name = _SIZES.get(node.target, str(node.target))
    if name not in OPERATORS and name not in _SIZES.values():
        raise ValueError(f"the program format has no operator {name}")
    # memory is pinned nowhere
    keywords = {key: _argument(one, numbers) for key, one in node.kwargs.items() if key != "pin_memory"}
    if name.startswith("aten.") and not node.all_input_nodes:
        takes = {one.name for one in node.target._schema.arguments if one.kwarg_only}  # type: ignore[union-attr]
        keywords |= {DEVICE: Name(DEVICE)} if DEVICE in takes else {}
    return Node(name, tuple(_argument(one, numbers) for one in node.args), keywords)


def _argument(argument: Any, numbers: Mapping[str, int]) -> Argument:
    if isinstance(argument, GraphNode):
        return Value(numbers[argument.name])
    if isinstance(argument, list | tuple):
        return tuple(_argument(one, numbers) for one in argument)
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
