"""Rewriting of ONNX graphs into forms that runtimes have fast kernels for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def divide_by_roots(model: ir.Model) -> int:
    """Writes products with 1 / sqrt(x) as quotients by sqrt(x), in place; returns their number.

    Torch's exporter writes the norm by root mean squares as a product. ONNX Runtime computes it by one kernel
    in place of seven, and only recognises the quotient (its SimplifiedLayerNormFusion).
    """
    import onnx_ir as ir

    found = 0
    for product in [node for node in model.graph if node.op_type == "Mul"]:
        for place in (0, 1):
            inverse = _source(product, place, "Reciprocal")
            root = None if inverse is None else _source(inverse, 0, "Sqrt")
            if inverse is None or root is None:
                continue
            quotient = ir.node("Div", [product.inputs[1 - place], root.outputs[0]], name=product.name)
            before, after = product.outputs[0], quotient.outputs[0]
            after.name, after.type, after.shape = before.name, before.type, before.shape
            model.graph.insert_before(product, quotient)
            ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
            model.graph.remove(product, safe=True)
            if not inverse.outputs[0].uses() and not inverse.outputs[0].is_graph_output():
                model.graph.remove(inverse, safe=True)
            found += 1
            break
    return found


def _source(node: ir.Node, place: int, kind: str) -> ir.Node | None:
    """The node that makes an input of `node`, if it is of this kind."""
    value = node.inputs[place]
    source = None if value is None else value.producer()
    return source if source is not None and source.op_type == kind and source.domain == "" else None
