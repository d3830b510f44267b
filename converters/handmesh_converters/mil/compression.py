"""Smaller storage for a package's constants; what computes with them gets them expanded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MANY", "compress_layers", "compress_zeros", "palette"]

# Weights of at least so many elements are compressed. The layers between have few of the bytes, and
# all that comes after them reads what rounding does to them: of `light` a point is off by 1.1 px at
# worst with its two of 65,536, by 0.8 without.
MANY = 1 << 17
_PALETTE = 256
_ROUNDS = 30


def compress_zeros(model: Any) -> Any:
    """Constants that are mostly zeros as a bit for each element and what is not zero.

    Nothing is lost. A runtime may expand them when it loads the model: this is storage, no speed.
    """
    import coremltools.optimize.coreml as cto

    zeros = cto.OpThresholdPrunerConfig(threshold=1e-12, minimum_sparsity_percentile=0.5)
    return cto.prune_weights(model, cto.OptimizationConfig(global_config=zeros))


def compress_layers(model: Any, palettes: bool) -> Any:
    """Weights of large fully-connected layers in 8 bits: half of all weights of `light`.

    Not those of convolutions: their channels differ too much in size once batch norm is folded
    in. What the two ways cost: `handmesh compare-exports --format coreml`.

    Args:
        model: coremltools'.
        palettes: the 256 best values for each weight, instead of an even grid for each row.
    """
    import coremltools.optimize.coreml as cto

    if palettes:
        config = cto.OpPalettizerConfig(mode="custom", lut_function=palette)
    else:
        config = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
    chosen = {
        name: config
        for name, weight in cto.get_weights_metadata(model, weight_threshold=MANY).items()
        # What is float32 in a program of float16 is so because rounding it shows.
        if weight.val.dtype == np.float16
        and all(child.op_type == "linear" for child in weight.child_ops)
    }
    apply = cto.palettize_weights if palettes else cto.linear_quantize_weights
    return apply(model, cto.OptimizationConfig(op_name_configs=chosen))


def palette(weight: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.uint8]]:
    """256 values, and for each element of a weight the place of the nearest: k-means on a line.

    It starts from half an even grid, which holds the largest weights, and half quantiles.
    """
    values = np.sort(weight.ravel().astype(np.float64))
    even = np.linspace(values[0], values[-1], _PALETTE // 2)
    shares = (np.arange(_PALETTE // 2) + 0.5) / (_PALETTE // 2)
    centres = np.sort(np.concatenate([even, np.quantile(values, shares)]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    for _ in range(_ROUNDS):
        edges = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(values)]])
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        centres = np.sort(np.where(counts > 0, means, centres))
    table = centres.astype(weight.dtype)
    middles = (table[1:].astype(np.float64) + table[:-1]) / 2
    return table, np.searchsorted(middles, weight.astype(np.float64)).astype(np.uint8)
