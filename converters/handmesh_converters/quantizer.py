"""Convolutions with 8-bit products for TFLite, by ai-edge-quantizer.

Faster than any other artifact, and another network: after training alone it is off by centimetres,
which the proof of an export refuses. `handmesh compare-exports` shows both.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .fold import INPUT

__all__ = ["quantize_convolutions"]

_BITS = 8


def quantize_convolutions(
    model: bytes, crops: NDArray[np.uint8], signature: str, static: bool
) -> bytes:
    """Weights and inputs of all convolutions in 8 bits, scales of the weights by channel.

    What follows the trunk stays in float32: a hand's distance is solved from sums over many values.

    Args:
        model: a .tflite file of one crop. signature: name of its signature.
        crops: (N, S, S, 3) uint8; the ranges of activations are the least and greatest values that
            occur on them.
        static: ranges are fixed by the crops; else each run measures its own, and only weights are
            stored in 8 bits.
    """
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(model)
    for operation in (TFLOperationName.CONV_2D, TFLOperationName.DEPTHWISE_CONV_2D):
        if static:
            quantizer.add_static_config(".*", operation, _BITS, _BITS)
        else:
            quantizer.add_dynamic_config(".*", operation, _BITS)
    with _quiet():
        ranges = None
        if static:
            samples = [{INPUT: crop[None]} for crop in crops]
            ranges = quantizer.calibrate({signature: samples}, num_threads=1)
        result = quantizer.quantize(ranges, enable_progress_report=False)
    return bytes(result.quantized_model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without its progress bars and reports."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
