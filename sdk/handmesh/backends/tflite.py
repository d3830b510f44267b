"""LiteRT, the runtime of .tflite files on phones and boards, on the CPU.

`tflite_runtime`, its predecessor, has the same interpreter and serves where it is what a device
has. It is no longer made, and was built against NumPy 1.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from . import RawOutput, check_images, raw_output

if TYPE_CHECKING:
    from ..bundle import Bundle

REQUIRES = ("ai_edge_litert", "tflite_runtime")
EXTRA = "tflite"
RANK = 10


def create(bundle: Bundle, threads: int) -> TfliteBackend:
    return TfliteBackend(bundle, threads)


class TfliteBackend:
    """The bundle's `tflite` artifact in LiteRT. See `handmesh.backends.Backend`.

    The file takes one crop, so a batch runs crop by crop. An interpreter runs for one thread at a
    time: others wait.
    """

    name = "tflite"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        package = next(name for name in REQUIRES if importlib.util.find_spec(name) is not None)
        runtime = importlib.import_module(package)
        interpreters = importlib.import_module(f"{package}.interpreter")
        self.threads = threads
        self._size = bundle.image_size
        self._bundle = bundle
        self._one_run = threading.Lock()
        path = bundle.artifact(self.name)
        try:
            interpreter = interpreters.Interpreter(model_path=str(path), num_threads=threads)
            # Delegates take their operators when tensors are allocated.
            interpreter.allocate_tensors()
            delegate = _delegate(interpreter)
            self._run = interpreter.get_signature_runner()
        except Exception as cause:  # ValueError or RuntimeError, as each step likes
            raise BackendError(f"{package} cannot load {path}: {cause}") from cause
        self.description = (
            f"{package} {runtime.__version__}, CPU{delegate}, "
            f"{threads} thread{'s' if threads > 1 else ''}"
        )

    def run(self, images: NDArray[np.uint8]) -> RawOutput:
        named = self.outputs(images)
        return raw_output(named, len(images), self._bundle.topology.vertex_count, self.description)

    def outputs(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        check_images(images, self._size)
        with self._one_run:
            try:
                outputs = [self._run(image=image[None]) for image in np.ascontiguousarray(images)]
                return {
                    name: np.concatenate([output[name] for output in outputs])
                    for name in outputs[0]
                }
            except Exception as cause:
                raise BackendError(
                    f"{self.description} failed on {images.shape[0]} crops: {cause}"
                ) from cause


def _delegate(interpreter: Any) -> str:
    """ ", XNNPACK" where it took a part of the graph, "" where it did not or that is not known.

    It is the only delegate that an interpreter applies unasked, and nothing public tells.
    """
    details = getattr(interpreter, "_get_ops_details", None)
    if details is None:
        return ""
    taken = any(operator["op_name"] == "DELEGATE" for operator in details())
    return ", XNNPACK" if taken else ""
