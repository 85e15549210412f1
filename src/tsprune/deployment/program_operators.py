"""The operators that a program may name. A name is looked up in torch only after it was found here.

Those of ATen neither change their arguments nor draw random numbers nor touch files, and compare indices
with sizes. So it has no `from_file`, which opens a file, and no `as_strided` or `empty`, which show memory as
it is.
A family of another package may need one that is missing here: it may be added if it is of this kind.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

# of sizes, which are whole numbers: functions of Python, none of which is looked up by a name in a file
SIZE_OPERATORS: Mapping[str, Callable[..., int]] = {
    "size.add": operator.add,
    "size.sub": operator.sub,
    "size.mul": operator.mul,
    "size.floordiv": operator.floordiv,
    "size.mod": operator.mod,
    "size.neg": operator.neg,
}
ITEM = "item"  # one of the tensors that an operator returns

# names and, if it is not "default", overload: "add.Tensor"
_ATEN = """
abs acos add.Scalar add.Tensor alias all all.dim amax amin __and__.Scalar __and__.Tensor any any.dim arange
arange.start arange.start_step arcsinh argmax argmin argsort asin asinh atan atan2 atanh bitwise_and.Tensor
bitwise_not bitwise_or.Tensor bitwise_xor.Tensor broadcast_to cat ceil chunk clamp clamp.Tensor clamp_max
clamp_min clone constant_pad_nd contiguous copy cos cosh cumprod cumsum div.Scalar div.Tensor
div.Tensor_mode einsum elu embedding eq.Scalar eq.Tensor erf erfinv exp expand expand_as expm1 eye
flatten.using_ints flip floor floor_divide floor_divide.Scalar fmod.Scalar fmod.Tensor full full_like gather
ge.Scalar ge.Tensor gelu gt.Scalar gt.Tensor hardtanh index.Tensor index_select isfinite isinf isnan
layer_norm le.Scalar le.Tensor leaky_relu lerp.Scalar lerp.Tensor linspace log log10 log1p log2
log_softmax.int logical_and logical_not logical_or logical_xor logsumexp lt.Scalar lt.Tensor
masked_fill.Scalar masked_fill.Tensor max max.dim max.other maximum mean mean.dim min min.dim min.other
minimum movedim.int mul.Scalar mul.Tensor nan_to_num nanmean narrow ne.Scalar ne.Tensor neg new_full
new_ones new_zeros ones ones_like __or__.Scalar __or__.Tensor pad permute pow.Scalar pow.Tensor_Scalar
pow.Tensor_Tensor prod prod.dim_int reciprocal relu remainder.Scalar remainder.Tensor repeat
repeat_interleave.self_int reshape rms_norm roll round rsqrt rsub.Scalar rsub.Tensor scalar_tensor
scaled_dot_product_attention select.int sigmoid sign silu sin sinh slice.Tensor slice_scatter softmax.int
softplus sort split.Tensor split_with_sizes sqrt square squeeze squeeze.dim squeeze.dims stack
std.correction std.dim sub.Scalar sub.Tensor sum sum.dim_IntList sym_size.int tan tanh to.device to.dtype
to.dtype_layout _to_copy topk transpose.int tril triu trunc type_as unbind.int unflatten.int unfold
_unsafe_view unsqueeze var.correction var.dim view where.Scalar where.ScalarOther where.ScalarSelf
where.self xlogy.Tensor zeros zeros_like
"""
# those that multiply matrices, by the places of the tensors that they multiply and add
PRODUCTS = {
    "aten.linear.default": (0, 1, 2),
    "aten.matmul.default": (0, 1),
    "aten.mm.default": (0, 1),
    "aten.bmm.default": (0, 1),
    "aten.addmm.default": (0, 1, 2),
    "aten.baddbmm.default": (0, 1, 2),
    "aten.convolution.default": (0, 1, 2),
}

OPERATORS = frozenset(
    {
        *(f"aten.{name}" if "." in name else f"aten.{name}.default" for name in _ATEN.split()),
        *PRODUCTS,
        *SIZE_OPERATORS,
        ITEM,
    }
)
