"""The network itself, in torch on the CPU: the reference that every other backend is judged by."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, BundleError
from . import RawOutput, check_images, raw_output

if TYPE_CHECKING:
    from ..bundle import Bundle

REQUIRES = "torch"
EXTRA = "torch"
RANK = 100

_one_run = threading.Lock()


def create(bundle: Bundle, threads: int) -> TorchBackend:
    return TorchBackend(bundle, threads)


class TorchBackend:
    """The bundle's weights in `handmesh.nn`. See `handmesh.backends.Backend`."""

    name = "torch"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import torch

        from ..nn import build, load_weights, read_config

        self.threads = threads
        self.description = (
            f"torch {torch.__version__}, CPU, {threads} thread{'s' if threads > 1 else ''}"
        )
        self._size = bundle.image_size
        self._vertex_count = bundle.topology.vertex_count
        path = bundle.artifact(self.name)
        config = read_config(path)
        try:
            network = build(config, bundle.topology)
        except Exception as cause:  # layers refuse impossible sizes in whatever way
            raise BundleError(f"{path} describes no network that can be built: {cause}") from cause
        load_weights(network, path, config, bundle.topology)
        # Crops come with their channels last: convolutions that expect it need no copy.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network.eval()

    def run(self, images: NDArray[np.uint8]) -> RawOutput:
        import torch

        check_images(images, self._size)
        try:
            with torch.inference_mode(), _threads(self.threads):
                batch = torch.from_numpy(np.ascontiguousarray(images))
                batch = batch.permute(0, 3, 1, 2).float() / 255 - 0.5  # (N, 3, S, S)
                output = self._network(batch)
        except RuntimeError as cause:
            raise BackendError(
                f"{self.description} failed on {images.shape[0]} crops: {cause}"
            ) from cause
        right = output.handedness_logit
        named = {
            "vertices": output.vertices.numpy(),
            "joints": output.joints.numpy(),
            "confidence": output.confidence_logits.sigmoid().numpy(),
            "presence": output.presence_logit.sigmoid().numpy(),
            # A network without that head takes every hand for a right one.
            "handedness": np.ones(len(images)) if right is None else right.sigmoid().numpy(),
        }
        return raw_output(named, len(images), self._vertex_count, self.description)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch's number of threads belongs to the process: one run at a time has it, and puts it back.

    Runs of several threads wait for each other; together they would only share the same cores.
    """
    import torch

    with _one_run:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
