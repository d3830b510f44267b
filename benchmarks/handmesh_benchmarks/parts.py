"""A network in the three parts that the paper times: hourglass, residual network with graph CNN,
pose regressor.

In torch a clock is read where a forward pass enters a part, on a GPU by CUDA's events. In exported
form the network is cut into three ONNX files that run one after the other; on a GPU what one hands
to the next passes through the host, which is in its time. Of the paper's network:

- "trunk": stem and both hourglasses (12.6 ms on the paper's GTX 1080);
- "mesh": residual encoder, fully connected layers and graph CNN (4.7 ms);
- "pose": the pose regressor (2.6 ms): in torch the graph CNN that the paper describes, in exported
  form the one affine map that it amounts to.

`light` has its backbone, heat-maps and latent vector as "trunk"; the other two are the same.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handmesh import Bundle, backends
from handmesh.atomic import write_atomic
from handmesh.backends import Device
from handmesh.errors import BackendError, ExportError, ParityError
from handmesh.nn import PaperNetwork
from handmesh.verification import read_reference
from handmesh_converters.export import load_bundle
from handmesh_converters.fold import INPUT, ExportTwin, FoldedHead, Network, fold
from handmesh_converters.formats.onnx import quiet

from .protocol import Candidate, Run
from .report import PARTS
from .runtimes import chain, onnx_file, operators

__all__ = ["clocked", "onnx_parts", "parts_candidate", "torch_candidate", "write_parts"]

OPSET = 18
# Crops that the files are proven on, and how far they may be off, of the largest coordinate.
PROVEN_ON, ALLOWED = 2, 1e-3
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class _Seconds:
    """The CPU's clock, read at borders."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def begin(self) -> None:
        self.marks.clear()

    def mark(self, *_: object) -> None:
        self.marks.append(time.perf_counter())

    def between(self) -> list[float]:
        """Milliseconds from each border to the next."""
        return [(after - before) * 1e3 for before, after in itertools.pairwise(self.marks)]


class _Events:
    """The same by a GPU's own events, in the order of its stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[torch.cuda.Event] = []

    def begin(self) -> None:
        self.marks.clear()

    def mark(self, *_: object) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        self.marks.append(event)

    def between(self) -> list[float]:
        torch.cuda.synchronize(self.device)
        return [before.elapsed_time(after) for before, after in itertools.pairwise(self.marks)]


@contextlib.contextmanager
def clocked(network: Network) -> Iterator[Callable[[], dict[str, float]]]:
    """Clocks at the parts' borders, while the block lasts.

    Yields a function that gives the milliseconds of the last forward pass by part. On a GPU it
    waits until all that was launched is done; the borders themselves do not.
    """
    device = next(network.parameters()).device
    clock = _Events(device) if device.type == "cuda" else _Seconds()
    mark = clock.mark

    def begin(*_: object) -> None:
        clock.begin()
        mark()

    mesh: nn.Module = network.encoder if isinstance(network, PaperNetwork) else network.head
    hooks = [
        network.register_forward_pre_hook(begin),
        mesh.register_forward_pre_hook(mark),
        network.head.pose_regressor.register_forward_pre_hook(mark),
        network.register_forward_hook(mark),
    ]
    try:
        yield lambda: dict(zip(PARTS, clock.between(), strict=True))
    finally:
        for hook in hooks:
            hook.remove()


def torch_candidate(
    bundle: Bundle, threads: int, facts: Mapping[str, Any], device: str = "cpu"
) -> Candidate:
    """The network in torch, eagerly, whose stages are its parts.

    Args:
        bundle, threads, facts: of the row. device: "cpu", "cuda" or "cuda:1".
    """
    known = dict(facts)

    def load() -> Run:
        with _mapped(f"torch on {device}"):
            network = load_bundle(bundle).to(device)
            if device == "cpu":
                network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            size = bundle.image_size
            image = torch.zeros(1, 3, size, size, device=device)
            image = image.contiguous(memory_format=torch.channels_last)
            gpu = "" if device == "cpu" else f"{torch.cuda.get_device_name(device)}, "
        where = f"{gpu or 'CPU, '}{threads} thread{'s' if threads > 1 else ''}"
        known["provider"] = f"torch {torch.__version__}, {where}"

        def run() -> Mapping[str, float]:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                with (
                    _mapped(f"torch on {device}"),
                    torch.inference_mode(),
                    clocked(network) as parts,
                ):
                    network(image)
                    return parts()
            finally:
                torch.set_num_threads(before)

        return run

    return Candidate(f"parts {bundle.name} torch{_suffix(device)} {threads}", load, known)


@contextlib.contextmanager
def _mapped(where: str) -> Iterator[None]:
    """Torch's own errors, as of memory that is full, as ours."""
    try:
        yield
    except RuntimeError as cause:
        raise BackendError(f"{where} failed: {cause}") from cause


def _suffix(device: str) -> str:
    return "" if device == "cpu" else f" {device}"


class _Trunk(nn.Module):
    """uint8 crops (N, S, S, 3) to what the mesh is made of."""

    def __init__(self, twin: ExportTwin) -> None:
        super().__init__()
        self.network = twin.network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = image.permute(0, 3, 1, 2).float() / 255.0 - 0.5
        if isinstance(self.network, PaperNetwork):
            x = self.network.stem(x)
            for stack in self.network.stacks:
                x, maps = stack(x, None)
            return x, maps
        latent = self.network.latent(x)
        right = latent.handedness_logit
        made = [latent.features, latent.anchors, latent.confidence_logits, latent.presence_logit]
        return tuple(m for m in [*made, right] if m is not None)


class _Mesh(nn.Module):
    """Of those the first, or the first two, to vertices (N, V, 3)."""

    def __init__(self, twin: ExportTwin) -> None:
        super().__init__()
        self.network = twin.network
        self.head: FoldedHead = twin.head

    def forward(self, features: Tensor, anchors: Tensor | None = None) -> Tensor:
        if isinstance(self.network, PaperNetwork):
            features = self.network.encode(self.network.encoder(features)).relu()
        return self.head.surface(features, anchors)


class _Pose(nn.Module):
    """Vertices (N, V, 3) to vertices and joints (N, 21, 3), the wrist's depth 0."""

    def __init__(self, twin: ExportTwin) -> None:
        super().__init__()
        self.head: FoldedHead = twin.head

    def forward(self, surface: Tensor) -> tuple[Tensor, Tensor]:
        return self.head.pose(surface)


def write_parts(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """A bundle's network as three ONNX files, ``PART.onnx``, each taking what those before it made.

    Args:
        bundle: with its weights. folder: exists; files of before are replaced.

    Raises:
        BundleError: the bundle is damaged. ExportError: the exporter failed.
        ParityError: run in a row they compute something else than the network.
    """
    network = load_bundle(bundle)
    twin = fold(network)
    size = bundle.image_size
    image = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    trunk, mesh = _Trunk(twin).eval(), _Mesh(twin).eval()
    with torch.inference_mode():
        made = trunk(image)
    # The paper's network takes its features alone; light also the joints that anchor its mesh.
    used = made[: 1 if isinstance(network, PaperNetwork) or not _anchored(network) else 2]
    names = ["features", "anchors", "confidence", "presence", "handedness"]
    with torch.inference_mode():
        surface = mesh(*used)
    files = {
        "trunk": _export(trunk, (image,), [INPUT], names[: len(made)], folder / "trunk.onnx"),
        "mesh": _export(mesh, used, names[: len(used)], ["surface"], folder / "mesh.onnx"),
        "pose": _export(
            _Pose(twin).eval(),
            (surface,),
            ["surface"],
            ["vertices", "joints"],
            folder / "pose.onnx",
        ),
    }
    _prove(bundle, files)
    return files


def onnx_parts(
    files: Mapping[str, Path], threads: int, device: str = "cpu"
) -> tuple[Run, str, dict[str, int]]:
    """Those files in ONNX Runtime, one after the other.

    Args:
        files: by part. threads: of the CPU. device: "cpu", "cuda", "cuda:1", "tensorrt", ...

    Returns:
        What runs them, what it is in words, and operators by provider, {} on the CPU.

    Raises:
        BackendUnavailable: the provider is not there, or ran none of the operators.
    """
    wanted = Device.parse(device)
    provider = PROVIDERS[wanted.kind]
    details = {} if wanted.kind == "cpu" else {"device_id": wanted.number}
    placed: dict[str, int] = {}
    took = ""
    if wanted.kind != "cpu":
        placed, share = operators(files.values(), provider, details)
        took = f", {share}"
    opened = {part: onnx_file(path, threads, provider, details) for part, path in files.items()}
    steps = [(part, step, tuple(inputs)) for part, (step, _, inputs) in opened.items()]
    _, words, first = opened["trunk"]
    return chain(steps, first), words + took, placed


def parts_candidate(
    bundle: Bundle,
    files: Mapping[str, Path],
    threads: int,
    facts: Mapping[str, Any],
    device: str = "cpu",
) -> Candidate:
    """The network cut into three files, whose stages are its parts."""
    known = dict(facts)

    def load() -> Run:
        run, known["provider"], placed = onnx_parts(files, threads, device)
        if placed:
            known["nodes_by_provider"] = placed
        return run

    return Candidate(f"parts {bundle.name} onnx{_suffix(device)} {threads}", load, known)


def _prove(bundle: Bundle, files: Mapping[str, Path]) -> None:
    """Raise `ParityError` unless the files in a row compute what the network computes."""
    images = read_reference(bundle)[0][:PROVEN_ON]
    whole = backends.create("torch", bundle, 1).run(images)
    steps = [onnx_file(path, 1) for path in files.values()]
    for i, image in enumerate(images):
        known: dict[str, Any] = {INPUT: image[None]}
        for step, _, inputs in steps:
            known.update(step({name: known[name] for name in inputs}))
        for name in ("vertices", "joints"):
            wanted = getattr(whole, name)[i]
            off = float(np.abs(known[name][0] - wanted).max() / np.abs(wanted).max())
            if not off <= ALLOWED:
                raise ParityError(
                    f"the parts of {bundle.name} compute other {name} than the network: off by "
                    f"{off:.1e} of the largest coordinate, at most {ALLOWED:.0e} was expected"
                )


def _anchored(network: Network) -> bool:
    return bool(getattr(network.config, "anchor_to_heatmaps", False))


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], path: Path
) -> Path:
    with quiet():
        program = torch.onnx.export(
            module, tuple(i.clone() for i in inputs), input_names=names, output_names=outputs,
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    if program is None:
        raise ExportError("torch's exporter returned nothing; install the pinned torch")
    return write_atomic(path, program.model_proto.SerializeToString())
