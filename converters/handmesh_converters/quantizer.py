"""Convolutions with 8-bit products for TFLite, by ai-edge-quantizer: all, or those that are named.

Which of them a network can bear is a matter of measurement, see `sensitivity`.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import flatbuffer
from .fold import INPUT

__all__ = ["Convolution", "Quantizer"]

_BITS = 8


@dataclass(frozen=True)
class Convolution:
    """A convolution of a .tflite file.

    Attributes:
        layer: name of the twin's layer, or that of its output's tensor where weights tell none.
        tensor: name of its output's tensor. weights: as bytes that the file holds.
        kind: the quantizer's name for the operator. macs: multiply-accumulates for one crop.
    """

    layer: str
    tensor: str
    weights: bytes
    kind: str
    macs: int


class Quantizer:
    """A float model that can be had with any of its convolutions in 8 bits.

    Weights have a scale for each output channel, activations one for each tensor. What follows the
    trunk stays in float32: a hand's distance is solved from sums over many values.

    Args:
        model: a .tflite file of one crop. signature: name of its signature.
        layers: names of the twin's convolutions by their weights, as bytes that the file holds.
        crops: (N, S, S, 3) uint8, N > 0; the ranges of activations are the least and greatest
            values that occur on them.
        static: ranges are fixed by the crops; else each run measures its own, and only weights are
            stored in 8 bits.
    """

    def __init__(
        self,
        model: bytes,
        signature: str,
        layers: Mapping[bytes, str],
        crops: NDArray[np.uint8],
        static: bool,
    ) -> None:
        self._model, self._static = model, static
        self.convolutions = tuple(
            Convolution(
                layers.get(found.weights, found.output),
                found.output,
                found.weights,
                found.kind,
                found.macs,
            )
            for found in flatbuffer.convolutions(flatbuffer.unpack(model))
        )
        self._ranges = self._measure(signature, crops) if static else None

    def quantize(self, chosen: Collection[Convolution]) -> bytes:
        """The model with these convolutions in 8 bits; all others compute in float32."""
        if not chosen:
            return self._model
        with _quiet():
            result = self._recipe(chosen).quantize(self._ranges, enable_progress_report=False)
        return bytes(result.quantized_model)

    def _recipe(self, chosen: Collection[Convolution]) -> Any:
        from ai_edge_quantizer.qtyping import TFLOperationName
        from ai_edge_quantizer.quantizer import Quantizer as Edge

        quantizer = Edge(self._model)
        for convolution in chosen:
            # Searched for in the names of an operator's outputs, each with a semicolon behind it.
            pattern = f"^{re.escape(convolution.tensor)};?$"
            kind = TFLOperationName(convolution.kind)
            if self._static:
                quantizer.add_static_config(pattern, kind, _BITS, _BITS)
            else:
                quantizer.add_dynamic_config(pattern, kind, _BITS)
        return quantizer

    def _measure(self, signature: str, crops: NDArray[np.uint8]) -> dict[str, Any]:
        """By tensor, the least and greatest value on any crop.

        The package itself takes a moving average over crops, beyond which half of them are
        clipped: even the range of pixels came out a fifth too narrow.
        """
        recipe = self._recipe(self.convolutions)
        ranges: dict[str, Any] = {}
        for crop in crops:
            with _quiet():
                found = recipe.calibrate({signature: [{INPUT: crop[None]}]}, num_threads=1)
            for name, value in found.items():
                if value and ranges.get(name):
                    value["min"] = np.minimum(value["min"], ranges[name]["min"])
                    value["max"] = np.maximum(value["max"], ranges[name]["max"])
                ranges[name] = value
        return ranges


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without its progress bars and reports."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
