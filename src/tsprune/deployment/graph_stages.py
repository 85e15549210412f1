"""A graph for OpenVINO in two stages, so that the network can be rounded and its scaling cannot."""

from __future__ import annotations

from typing import Any

_Output = tuple[str, int]  # of a node: its name, and the number of the output


def scaling_and_network(model: Any) -> tuple[Any, Any]:
    """Takes an `openvino.Model` apart before its first products with weights.

    The first stage computes scaling, patches and masks; its outputs, in order, are the inputs of the second
    one, which begins with products with weights and ends with the outputs of `model`. A graph without such
    products has no second stage: ValueError.
    """
    import openvino

    crossing: dict[_Output, tuple[Any, list[Any]]] = {}
    varying, network = _varying_and_network(model)
    if not network:
        raise ValueError("the graph multiplies by no weights")
    for node in model.get_ordered_ops():
        for into in node.inputs() if node.get_name() in network else ():
            source = into.get_source_output()
            name = source.get_node().get_name()
            if name in varying and name not in network:
                crossing.setdefault((name, source.get_index()), (source, []))[1].append(into)
    inputs: list[Any] = []
    for source, uses in crossing.values():
        kind, shape = source.get_element_type(), source.get_partial_shape()
        inputs.append(openvino.opset13.parameter(shape, kind, name=f"stage_input_{len(inputs)}"))
        for into in uses:
            into.replace_source_output(inputs[-1].output(0))
    ends = [openvino.opset13.result(source) for source, _ in crossing.values()]
    first = openvino.Model(ends, model.get_parameters(), "scaling")
    return first, openvino.Model(model.get_results(), inputs, "network")


def _varying_and_network(model: Any) -> tuple[set[str], set[str]]:
    """Names of the nodes that depend on an input, and of those that depend on a product with a weight."""
    varying: set[str] = set()
    network: set[str] = set()
    for node in model.get_ordered_ops():
        name, kind = node.get_name(), node.get_type_name()
        sources = {into.get_source_output().get_node().get_name() for into in node.inputs()}
        if kind == "Parameter" or sources & varying:
            varying.add(name)
        if sources & network or (kind == "MatMul" and len(sources & varying) == 1 and sources - varying):
            network.add(name)
    return varying, network
