"""Graphs rewritten after their export: weights in 16 bits, and OpenVINO's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tsprune.deployment.graph_sessions import OPENVINO_SUFFIX, require_openvino

_LEAST_VALUES = 1024  # smaller tensors, such as those of norms and scaling, stay in fp32
_LARGEST = float(np.finfo(np.float16).max)


def store_weights_in_half(path: Path) -> None:
    """Stores the weights of an ONNX graph in 16 bits; the graph computes in fp32 as before.

    A tensor with a value beyond the range of fp16 stays in fp32.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    loaded = onnx.load(path)
    graph, casts = loaded.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST_VALUES:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > _LARGEST:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}.cast", to=TensorProto.FLOAT))
    for place, node in enumerate(casts):
        graph.node.insert(place, node)
    del graph.value_info[:]  # it may state types of the weights
    external = path.with_name(f"{path.name}.data")
    external.unlink(missing_ok=True)
    large = sum(len(tensor.raw_data) for tensor in graph.initializer) > 2**31 - 2**24
    onnx.save(loaded, path, save_as_external_data=large, location=external.name)


def in_openvino_format(path: Path, *, half: bool) -> Path:
    """Rewrites an ONNX graph as OpenVINO's .xml and .bin; the path of the first.

    half : weights are stored in 16 bits; the graph computes in fp32
    """
    openvino = require_openvino()
    target = path.with_suffix(OPENVINO_SUFFIX)
    # the reader of ONNX itself, as openvino.convert_model would report its use to the makers
    openvino.save_model(openvino.Core().read_model(str(path)), str(target), compress_to_fp16=half)
    path.unlink()
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    return target
