"""The network itself, in torch: on the CPU the reference that every other backend is judged by."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, BackendUnavailable, BundleError
from . import BundleBackend, Device, RawOutput

if TYPE_CHECKING:
    from ..bundle import Bundle

REQUIRES = "torch"
BESIDES = ("safetensors",)  # reads the weights; torch does not bring it
EXTRA = "torch"
RANK = 100
DEVICES = ("cpu", "cuda", "mps")
ARGUMENTS = ("cuda",)

_one_run = threading.Lock()


def refuses(device: Device) -> str | None:
    """Why this torch cannot run there; None if it can."""
    import torch

    here = f"this torch {torch.__version__}"
    if device.kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device.number >= count:
            return (
                f"device {str(device)!r} is not there: {here} sees {count} CUDA GPUs; a torch "
                "built for CUDA and a driver that fits it are needed"
            )
    if device.kind == "mps" and not torch.backends.mps.is_available():
        return f"device 'mps' is not there: {here} sees no Metal, which macOS on Apple silicon has"
    return None


def create(bundle: Bundle, threads: int, device: Device) -> TorchBackend:
    return TorchBackend(bundle, threads, device)


class TorchBackend(BundleBackend):
    """The bundle's weights in `handmesh.nn`, in float32. See `handmesh.backends.Backend`."""

    name = "torch"

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        device: Device = Device("cpu"),  # noqa: B008  (immutable)
    ) -> None:
        import torch

        from ..nn import DetectorConfig, DetectorNetwork, build, load_weights, read_config

        reason = refuses(device)
        if reason is not None:
            raise BackendUnavailable(reason)
        super().__init__(bundle, threads)
        self._device = torch.device(str(device))
        where = device.kind.upper() + (f" {device.number}" if device.kind == "cuda" else "")
        self.description = (
            f"torch {torch.__version__}, {where}, {threads} thread{'s' if threads > 1 else ''}"
        )
        path = bundle.artifact(self.name)
        config = read_config(path)
        self._detects = isinstance(config, DetectorConfig)
        topology = None if self._detects else bundle.topology
        try:
            network: Any = (
                DetectorNetwork(config)
                if isinstance(config, DetectorConfig)
                else build(config, bundle.topology)
            )
        except Exception as cause:  # layers refuse impossible sizes in whatever way
            raise BundleError(f"{path} describes no network that can be built: {cause}") from cause
        load_weights(network, path, config, topology)
        # Crops come with their channels last: convolutions that expect it need no copy.
        network = network.to(memory_format=torch.channels_last)
        try:
            self._network = network.to(self._device).eval()
        except RuntimeError as cause:
            raise BackendError(f"{self.description} cannot load {path}: {cause}") from cause

    def _infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        import torch

        from ..nn.blocks import scores
        from ..nn.detector import decode

        with torch.inference_mode(), _threads(self.threads):
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
            batch = batch.permute(0, 3, 1, 2).float() / 255 - 0.5  # (N, 3, S, S)
            output = self._network(batch)
            if self._detects:
                hands = decode(output, self._network.config.candidates)
                return {"hands": hands.cpu().numpy()}
            named = zip(
                RawOutput._fields, (output.vertices, output.joints, *scores(output)), strict=True
            )
            return {name: tensor.cpu().numpy() for name, tensor in named}


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
