"""Stand-ins for removed modules; they contribute nothing and compute nothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Nothing(nn.Module):
    """In place of a sublayer whose output is one tensor that is added to the residual stream."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """A zero that broadcasts to the shape of `x`."""
        return x.new_zeros(())


class AbsentAttention(nn.Module):
    """In place of an attention module without heads; families override `forward` where upstream's
    returns more than one tensor.

    output : the output projection if it has a bias, which is all that is left of the sublayer (its
        weight has no columns); it keeps its upstream name `name`. None: nothing is left
    """

    def __init__(self, output: nn.Linear | None = None, name: str = "") -> None:
        super().__init__()
        self._name = name
        if output is not None:
            # not of upstream's class, which may divide by the number of columns
            plain = nn.Linear(1, output.out_features, device="meta")
            plain.in_features, plain.weight, plain.bias = 0, output.weight, output.bias
            self.add_module(name, plain)

    def contribution(self, x: Tensor) -> Tensor:
        """The sublayer's contribution to the residual stream for its input `x` [..., d_model]."""
        if not self._name:
            return x.new_zeros(())
        output: Tensor = self.get_submodule(self._name)(x.new_zeros(*x.shape[:-1], 0))
        return output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.contribution(args[0])
