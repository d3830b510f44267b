"""TFLite through litert-torch: one file for phones and boards, of one crop, with a signature.

`docs/exporting.md` has what each way costs (`handmesh compare-exports`). int8 stores weights in 8
bits and computes in float32; see `rounding`. 8-bit products are for the convolutions that bear
them, see `sensitivity`: rounding what all of them take in, after training, moves hands by a
centimetre.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh import backends
from handmesh.backends import NamedBackend, RawOutput
from handmesh.bundle import Bundle
from handmesh.errors import ExportError, InputError

from ..fold import INPUT, OUTPUTS, ExportTwin, Twin
from ..parity import network_outputs
from ..request import Abilities, Job
from ..rounding import round_to_int8

if TYPE_CHECKING:
    from ..quantizer import Quantizer
    from ..sensitivity import Sensitivity

REQUIRES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
EXTRA = "converters"
FILE = "model.tflite"
DYNAMIC, STATIC = "dynamic", "static"
ABLE = Abilities(
    ("sparse", "polynomials", "dense"),
    ("fp16", "fp32", "int8"),
    {
        DYNAMIC: (("int8",), "8-bit products where they are borne, ranges measured in each run"),
        STATIC: (("int8",), "8-bit products where they are borne, ranges fixed by the crops"),
    },
    alternatives=(DYNAMIC, STATIC),
)

# Layers of at least as many weights are rounded to int8. Smaller ones save little.
ROUNDED = 100_000
# The vertices' map to joints stays float16: the hand's distance is solved from the joints, so it
# costs as much as all other layers together.
KEPT = ("network.head.joints",)

# Of the one signature, as litert-torch calls it.
_SIGNATURE = "serving_default"
_PACKAGES = ("torch", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")


def export(twin: Twin, path: Path, job: Job) -> dict[str, Any]:
    """See `handmesh_converters.formats.Format`. The same weights give the same bytes.

    All precisions compute in float32; they differ in how large weights are stored. Optimized
    "dynamic" or "static", convolutions that bear it compute in 8 bits, see `sensitivity`.

    Raises:
        InputError: both of these, or either for a network without a mesh.
    """
    from .. import flatbuffer

    facts: dict[str, Any] = {"precision": "fp32"}
    products = _products(twin, job)
    try:
        data, scales, quantizer = _prepared(twin, job)
        if quantizer is not None:
            found = _find(twin, job, quantizer)
            if not found.chosen:
                raise ExportError(
                    f"no convolution bears 8-bit products; export without --optimize {products}"
                )
            data = quantizer.quantize(found.chosen)
            for convolution in found.chosen:
                scales.pop(convolution.weights, None)
            facts = {
                "precision": "int8",
                "int8_products": {
                    "share_of_convolutions": round(found.share, 3),
                    "layers": [convolution.layer for convolution in found.chosen],
                },
            }
        model = flatbuffer.unpack(data)
        flatbuffer.round_weights(model, scales)
        if job.precision != "fp32":
            flatbuffer.halve_weights(model)
        flatbuffer.describe(model, job.metadata)
        data = flatbuffer.pack(model)
    except ExportError:
        raise
    except Exception as cause:  # torch, JAX and MLIR share no base class of errors
        raise ExportError(
            f"the network does not convert to TFLite ({type(cause).__name__}: {cause}); install "
            "the versions of constraints.txt"
        ) from cause
    path.write_bytes(data)
    return {
        **facts,
        "weights": job.precision,
        "nodes": flatbuffer.operators(model),
        "tools": {package: version(package) for package in _PACKAGES},
    }


def sensitivity(twin: Twin, job: Job) -> Sensitivity:
    """What `export` chooses its 8-bit products by, for a job that is optimized for them.

    Raises:
        InputError: it is not, or for both kinds.
    """
    _, _, quantizer = _prepared(twin, job)
    if quantizer is None:
        raise InputError(f"sensitivity is to 8-bit products: optimize for {DYNAMIC} or {STATIC}")
    return _find(twin, job, quantizer)


def open(bundle: Bundle) -> NamedBackend:
    """See `handmesh_converters.formats.Format`."""
    return backends.create("tflite", bundle, threads=1)


class _Named(nn.Module):
    """A twin whose outputs have names, which become those of the signature."""

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.twin.outputs, self.twin(image), strict=True))


def _products(twin: Twin, job: Job) -> str | None:
    """Which 8-bit products are wanted."""
    wanted = sorted(job.optimize & {DYNAMIC, STATIC})
    if len(wanted) > 1:
        raise InputError(f"8-bit products are either {DYNAMIC} or {STATIC}; optimize for one")
    if wanted and (job.bone_ratios is None or not isinstance(twin, ExportTwin)):
        raise InputError(
            "8-bit products are chosen by what they cost in millimetres, which a network without a "
            "mesh does not have: leave out --optimize"
        )
    return wanted[0] if wanted else None


def _prepared(
    twin: Twin, job: Job
) -> tuple[bytes, dict[bytes, NDArray[np.float32]], Quantizer | None]:
    """The float file, the scales of the weights in it that are rounded, by their bytes, and what
    puts its convolutions into 8 bits, if that is wanted."""
    from ..quantizer import Quantizer

    products = _products(twin, job)
    scales = {}
    if job.precision == "int8":
        twin = copy.deepcopy(twin)
        rounded = round_to_int8(twin, job.crops, ROUNDED, KEPT)
        scales = {
            _stored(twin.get_submodule(name)): scale.numpy() for name, scale in rounded.items()
        }
    image = torch.zeros(1, twin.image_size, twin.image_size, 3, dtype=torch.uint8)
    data = _convert(_Named(twin).eval(), image)
    if products is None:
        return data, scales, None
    layers = {
        _stored(module): name
        for name, module in twin.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    return data, scales, Quantizer(data, _SIGNATURE, layers, job.crops, products == STATIC)


def _find(twin: Twin, job: Job, quantizer: Quantizer) -> Sensitivity:
    from ..sensitivity import find

    assert isinstance(twin, ExportTwin), "of no other is a quantizer prepared"
    assert job.bone_ratios is not None
    expected = network_outputs(twin.network, job.crops)
    return find(quantizer, _runner, job.crops, expected, job.bone_ratios)


def _runner(model: bytes) -> Callable[[NDArray[np.uint8]], RawOutput]:
    """What runs a file's bytes on crops (N, S, S, 3)."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=model, num_threads=1).get_signature_runner()

    def outputs(crops: NDArray[np.uint8]) -> RawOutput:
        found = [run(**{INPUT: crop[None]}) for crop in crops]
        return RawOutput(*(np.concatenate([each[name] for each in found]) for name in OUTPUTS))

    return outputs


def _stored(module: nn.Module) -> bytes:
    """A layer's weights as the file holds them: OHWI, depthwise ones 1HWO."""
    weight = cast(Tensor, module.weight).detach()
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups > 1
        weight = weight.permute(1, 2, 3, 0) if depthwise else weight.permute(0, 2, 3, 1)
    return weight.contiguous().numpy().tobytes()


def _convert(module: nn.Module, image: Tensor) -> bytes:
    with _quiet():
        import litert_torch
        from litert_torch._config import config

        shown, config.show_progress = config.show_progress, False
        try:
            return bytes(litert_torch.convert(module, sample_kwargs={INPUT: image}).model_content())
        finally:
            config.show_progress = shown


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of the many packages that the converter is made of."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
