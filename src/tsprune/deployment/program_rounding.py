"""Programs rewritten after their export: weights in 16 bits, and products in bfloat16."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tsprune.deployment.program_format import Name, Node, ProgramText, Value, as_text, weights_of
from tsprune.deployment.program_operators import PRODUCTS
from tsprune.deployment.program_reading import read_program_text, read_weights

_LEAST_VALUES = 1024  # smaller tensors, such as those of norms and scaling, stay in fp32
_LARGEST = torch.finfo(torch.float16).max
_FULL, _HALF, _BRAIN = "float32", "float16", "bfloat16"
_CAST = "aten._to_copy.default"


def program_in_half(path: Path) -> None:
    """Stores the weights of a program in 16 bits; it computes in fp32 as before.

    A tensor with a value beyond the range of fp16 stays in fp32.
    """
    program = read_program_text(path)
    tensors = read_weights(path, program)
    weights = list(program.weights)
    for place, weight in enumerate(weights):
        tensor = tensors[weight.name]
        large = tensor.numel() >= _LEAST_VALUES and tensor.dtype == torch.float32
        if large and tensor.abs().max() <= _LARGEST:
            weights[place] = dataclasses.replace(weight, stored=_HALF)
            tensors[weight.name] = tensor.half()
    _write(path, dataclasses.replace(program, weights=tuple(weights)), tensors)


def program_in_bf16(path: Path) -> None:
    """Computes the products of a program in bfloat16, and everything else, such as scaling, in fp32.

    Weights that only linear layers take are stored in bfloat16.
    """
    program = read_program_text(path)
    tensors = read_weights(path, program)
    half = _only_in_products(program)
    weights = list(program.weights)
    for place, weight in enumerate(weights):
        number = len(program.inputs) + place
        if number in half and tensors[weight.name].dtype == torch.float32:
            weights[place] = dataclasses.replace(weight, stored=_BRAIN, dtype=_BRAIN)
            tensors[weight.name] = tensors[weight.name].to(torch.bfloat16)
    rounded = dataclasses.replace(program, weights=tuple(weights))
    _write(path, _with_casts(rounded, half), tensors)


def _only_in_products(program: ProgramText) -> set[int]:
    """Numbers of the weights that nothing but linear layers take."""
    taken = {number for node in program.nodes for number in node.values() if node.operator not in PRODUCTS}
    multiplied = {
        number for node in program.nodes if node.operator == "aten.linear.default" for number in node.values()
    }
    first, last = len(program.inputs), program.first_node
    return {number for number in multiplied - taken if first <= number < last}


def _with_casts(program: ProgramText, rounded: set[int]) -> ProgramText:
    """Products with their inputs cast to bfloat16, but for `rounded` ones, and their outputs cast back."""
    numbers = dict(enumerate(range(program.first_node)))
    nodes: list[Node] = []

    def added(node: Node) -> int:
        nodes.append(node)
        return program.first_node + len(nodes) - 1

    def cast(value: Value, kind: str) -> Value:
        return Value(added(Node(_CAST, (value,), {"dtype": Name("dtype", kind)})))

    for place, node in enumerate(program.nodes):
        products = PRODUCTS.get(node.operator, ())
        called = node.renumbered(numbers)
        arguments = list(called.arguments)
        for at in products[: len(arguments)]:
            one, before = arguments[at], node.arguments[at]
            if isinstance(one, Value) and isinstance(before, Value) and before.number not in rounded:
                arguments[at] = cast(one, _BRAIN)
        number = added(dataclasses.replace(called, arguments=tuple(arguments)))
        if products:
            number = cast(Value(number), _FULL).number
        numbers[program.first_node + place] = number
    outputs = {name: numbers[number] for name, number in program.outputs.items()}
    return dataclasses.replace(program, nodes=tuple(nodes), outputs=outputs)


def _write(path: Path, program: ProgramText, tensors: dict[str, Tensor]) -> None:
    path.write_text(as_text(program))
    save_file(tensors, weights_of(path))
