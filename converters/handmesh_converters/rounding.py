"""Weights rounded to int8 so that what a layer computes changes least, not what each weight is.

Column by column, the error of rounding is made up for by the columns that are still to be rounded,
as far as the layer's inputs on the calibration crops go together (GPTQ, Frantar et al. 2023). The
bias takes part as a column that is not rounded, so a layer's mean stays where it was: a mean error
of the joints is a wrong distance of the whole hand.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh.errors import ExportError
from handmesh.nn.weights import LARGE

__all__ = ["HALVED_FROM", "round_to_int8"]

# Elements from which on a weight is halved: an artifact's are those of the weights it is made of.
HALVED_FROM = LARGE

_INT8_MAX = 127
_BATCH = 16
# Positions of a picture that a convolution's inputs are taken from, at most: neighbours say much
# the same, and a large network has 4,096 of them.
_POSITIONS = 64
# Added to the diagonal, as a share of its mean: few crops say nothing of many directions. On crops
# that it was not calibrated on a point of `light` is off by up to 1.1 px with 0.01, by 0.63 and
# 0.77 in TFLite and Core ML with 0.1 (`handmesh compare-exports`); with 0.3 it is more again.
_DAMPING = 0.1


def round_to_int8(
    network: nn.Module,
    crops: NDArray[np.uint8],
    size: int,
    keep: Collection[str] = (),
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d),
) -> dict[str, Tensor]:
    """Round large weights to multiples of a scale for each output channel; in place.

    The scale is the channel's largest magnitude over 127. Depthwise convolutions are left alone:
    they are small.

    Args:
        network: takes (N, S, S, 3) uint8.
        crops: such ones. Their turned and mirrored copies are calibrated on as well.
        size: least number of weights of a layer that is rounded.
        keep: names of layers that are not. kinds: of layers that are.

    Returns:
        By the name of a layer, its scales (O,), float32.

    Raises:
        ExportError: there are no crops.
    """
    if len(crops) == 0:
        raise ExportError("int8 weights are calibrated on the reference crops; got none")
    layers = {
        name: _Layer(module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and isinstance(module, kinds)
        and module.weight.numel() >= size
        and (isinstance(module, nn.Linear) or module.groups == 1)
        and name not in keep
    }
    hooks = [layer.module.register_forward_pre_hook(layer.see) for layer in layers.values()]
    try:
        with torch.no_grad():
            for start in range(0, len(crops), _BATCH):
                batch = torch.from_numpy(crops[start : start + _BATCH].copy())
                for turns in range(4):
                    turned = batch.rot90(turns, (1, 2))
                    network(turned)
                    network(turned.flip(2))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: layer.round() for name, layer in layers.items()}


class _Layer:
    """A layer and the second moments of its inputs, the constant 1 of the bias among them."""

    def __init__(self, module: nn.Linear | nn.Conv2d) -> None:
        self.module = module
        inputs = module.weight[0].numel() + 1
        self.moments = torch.zeros(inputs, inputs, dtype=torch.float64)
        self.rows = 0

    def see(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A hook before the layer runs."""
        x = F.pad(_columns(self.module, inputs[0]), (0, 1), value=1.0)  # (M, I + 1)
        self.moments += (x.T @ x).double()
        self.rows += len(x)

    def round(self) -> Tensor:
        """Round the weights in place, and move the bias. Returns the scales (O,)."""
        weight, bias = self.module.weight, self.module.bias
        flat = weight.detach().flatten(1).double()  # (O, I)
        count = flat.shape[1]
        moments = self.moments / self.rows
        if bias is None:
            moments = moments[:count, :count]
        else:
            flat = torch.cat([flat, bias.detach().double()[:, None]], dim=1)
        scale = (flat[:, :count].abs().amax(1) / _INT8_MAX).float().double()
        scale[scale == 0] = 1.0  # of a channel without weights
        rounded = _round_columns(flat, scale, moments, count)
        weight.data = rounded[:, :count].to(weight.dtype).view_as(weight)
        if bias is not None:
            bias.data = rounded[:, count].to(bias.dtype)
        return scale.float()


def _columns(module: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """What a layer multiplies its weights (O, I) with, at `_POSITIONS` evenly spread: (M, I)."""
    if isinstance(module, nn.Linear):
        return x.flatten(0, -2)
    padding = cast(tuple[int, ...], module.padding)  # these networks give no mode by name
    patches = F.unfold(x, module.kernel_size, module.dilation, padding, module.stride)
    count = patches.shape[2]
    if count > _POSITIONS:
        patches = patches[:, :, torch.linspace(0, count - 1, _POSITIONS).round().long()]
    return patches.transpose(1, 2).flatten(0, 1)


def _round_columns(weight: Tensor, scale: Tensor, moments: Tensor, count: int) -> Tensor:
    """Weights (O, I'), the first `count` columns of which are rounded; what follows is the bias."""
    diagonal = moments.diagonal().clone()
    moments = moments + torch.diag(_DAMPING * diagonal[:count].mean() * torch.ones_like(diagonal))
    # Strong inputs first, while there is much left that can make up for them; the bias last.
    order = diagonal[:count].argsort(descending=True)
    order = torch.cat([order, torch.arange(count, len(moments))])
    inverse = torch.linalg.inv(moments[order][:, order])
    factor = torch.linalg.cholesky(inverse, upper=True)  # (I', I')
    result = weight[:, order].clone()
    for column in range(count):
        exact = result[:, column]
        rounded = (exact / scale).round().clamp(-_INT8_MAX, _INT8_MAX) * scale
        error = (exact - rounded) / factor[column, column]
        result[:, column] = rounded
        result[:, column + 1 :] -= error[:, None] * factor[column, column + 1 :]
    restored = torch.empty_like(result)
    restored[:, order] = result
    return restored
