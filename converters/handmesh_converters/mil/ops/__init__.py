"""What each MIL operation computes, in torch.

An operation is a function with the parameters of MIL's: its tensors are float32 or int64, whatever
the program calls them. Attributes are tensors too, or text. Several values are a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from . import constexpr, elementwise, products, shapes, spatial

__all__ = ["OPERATIONS"]

# As "conv". `const` has nothing to compute: the executor takes its value.
OPERATIONS: Mapping[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    **constexpr.OPERATIONS,
    **elementwise.OPERATIONS,
    **products.OPERATIONS,
    **shapes.OPERATIONS,
    **spatial.OPERATIONS,
}
