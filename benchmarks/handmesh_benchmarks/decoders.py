"""The graph decoder alone, by form: latency in ONNX Runtime, and bytes of the T_k constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from handmesh import Bundle
from handmesh.errors import ExportError
from handmesh.ort import CPU
from handmesh_converters.explain import graph_constants
from handmesh_converters.export import load_bundle
from handmesh_converters.fold import FoldedHead, fold
from handmesh_converters.formats.onnx import quiet
from handmesh_converters.forms import Dense, GraphForm, Polynomials, Recurrence

from .protocol import Candidate, Percentiles, Protocol, Run, measure

__all__ = ["FORMS", "Decoder", "compare_decoders", "exported", "loader", "to_markdown"]

FORMS: tuple[GraphForm, ...] = (
    Recurrence(),
    Recurrence(1),
    Polynomials(),
    Polynomials(merge_unpooling=False),
    Dense(),
    Dense(merge_unpooling=False),
)
OPSET = 18


@dataclass(frozen=True)
class Decoder:
    """One form of the decoder.

    Attributes:
        form: in words.
        weight_bytes, index_bytes: see `handmesh_converters.explain.graph_constants`.
        latency: milliseconds of one latent vector to vertices and joints, one thread.
    """

    form: str
    weight_bytes: int
    index_bytes: int
    latency: Percentiles


class _Head(nn.Module):
    """A folded head by itself: latent (B, F) and joints (B, 21, 2), or the latent alone."""

    def __init__(self, head: FoldedHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vertices, joints = self.head(*inputs)
        return vertices, joints


def compare_decoders(bundle: Bundle, protocol: Protocol) -> list[Decoder]:
    """Every form of a bundle's decoder, timed in one interleaved run at batch 1 and one thread."""
    network = load_bundle(bundle)
    heads = [fold(network, form).head for form in FORMS]
    anchored = bool(getattr(network.config, "anchor_to_heatmaps", False))
    loaders = [loader(head, anchored) for head in heads]
    candidates = [Candidate(str(i), load) for i, load in enumerate(loaders)]
    measured = measure(candidates, protocol)
    return [
        Decoder(form.describe(), *graph_constants(head), found.total)
        for form, head, found in zip(FORMS, heads, measured, strict=True)
    ]


def exported(head: FoldedHead, anchored: bool) -> bytes:
    """A head by itself as an ONNX file: `latent`, and `joints_uv` where it is anchored, to vertices
    and joints.

    Raises:
        ExportError: the exporter failed.
    """
    inputs = _inputs(head, anchored)
    with quiet():
        program = torch.onnx.export(
            _Head(head).eval(), tuple(inputs.values()), input_names=list(inputs),
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    if program is None:
        raise ExportError("torch's exporter returned nothing; install the pinned torch")
    model: bytes = program.model_proto.SerializeToString()
    return model


def _inputs(head: FoldedHead, anchored: bool) -> dict[str, torch.Tensor]:
    width = head.expand.in_features
    inputs = {"latent": torch.randn(1, width, generator=torch.Generator().manual_seed(0))}
    if anchored:
        inputs["joints_uv"] = torch.full((1, 21, 2), 0.5)
    return inputs


def loader(head: FoldedHead, anchored: bool) -> Callable[[], Run]:
    """Exports a head by itself, and returns what loads it into ONNX Runtime at one thread.

    Args:
        head: folded. anchored: whether it takes joints beside the latent vector.

    Raises:
        ExportError: the exporter failed.
    """
    model = exported(head, anchored)
    feed = {name: value.numpy() for name, value in _inputs(head, anchored).items()}

    def load() -> Run:
        import onnxruntime  # here, behind `handmesh.ort`, which tells it not to report

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, [CPU])

        def run() -> None:
            session.run(None, feed)

        return run

    return load


def to_markdown(decoders: Sequence[Decoder]) -> str:
    """A table; ratios are to the first row."""
    lines = [
        "| form | weights, KB | indices, KB | p50 ms | p90 ms | to the first |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    first = decoders[0].latency.p50
    for d in decoders:
        bytes_ = f"{d.weight_bytes / 1024:.0f} | {d.index_bytes / 1024:.0f}"
        p50, p90 = d.latency.p50, d.latency.p90
        lines.append(f"| {d.form} | {bytes_} | {p50:.2f} | {p90:.2f} | {p50 / first:.2f} |")
    return "\n".join(lines) + "\n"
