"""ONNX Runtime on the CPU: what `pip install handmesh` brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from . import RawOutput, check_images, raw_output

if TYPE_CHECKING:
    from ..bundle import Bundle

REQUIRES = "onnxruntime"
EXTRA = "onnx"
RANK = 0

_PROVIDER = "CPUExecutionProvider"


def create(bundle: Bundle, threads: int) -> OnnxBackend:
    return OnnxBackend(bundle, threads)


class OnnxBackend:
    """The bundle's `onnx` artifact in ONNX Runtime. See `handmesh.backends.Backend`."""

    name = "onnx"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime

        self.threads = threads
        self.description = (
            f"onnxruntime {onnxruntime.__version__}, CPU, "
            f"{threads} thread{'s' if threads > 1 else ''}"
        )
        self._size = bundle.image_size
        self._bundle = bundle
        path = bundle.artifact(self.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait for the next operator by spinning take CPU time from whatever else the
        # device does.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, [_PROVIDER])
        except Exception as cause:  # ONNX Runtime's own errors share no base class
            raise BackendError(f"ONNX Runtime cannot load {path}: {cause}") from cause
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, images: NDArray[np.uint8]) -> RawOutput:
        named = self.outputs(images)
        return raw_output(named, len(images), self._bundle.topology.vertex_count, self.description)

    def outputs(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        check_images(images, self._size)
        try:
            values = self._session.run(self._outputs, {"image": images})
        except Exception as cause:
            raise BackendError(
                f"{self.description} failed on {images.shape[0]} crops: {cause}"
            ) from cause
        return dict(zip(self._outputs, values, strict=True))
