"""Layers, parameters and multiply-accumulates of a network, counted by running it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handmesh.nn.graph_head import GraphHead, PoseRegressor
from handmesh.nn.graph_layers import ChebConv
from handmesh.nn.light import LightNetwork
from handmesh.nn.paper import PaperNetwork


@dataclass(frozen=True)
class LayerRow:
    """One layer: its own parameters and multiply-accumulates, those of its children not included.

    Attributes:
        name: dotted path in the network; empty for the network itself.
        kind: class name.
        output: shape of its output for one crop, batch axis first (second in graph layers).
        parameters: trainable or frozen numbers; no buffers.
        macs: multiply-accumulates for one crop.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """All layers that have parameters or multiply-accumulates, in order of execution."""

    network: str
    input_size: int
    rows: tuple[LayerRow, ...]

    @property
    def parameters(self) -> int:
        """Total number of parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        """Total multiply-accumulates for one crop."""
        return sum(row.macs for row in self.rows)

    def grouped(self, depth: int) -> tuple[LayerRow, ...]:
        """Rows summed up over the first `depth` parts of their names; last output of each."""
        groups: dict[str, LayerRow] = {}
        for row in self.rows:
            name = ".".join(row.name.split(".")[:depth])
            earlier = groups.get(name)
            kind = row.kind if name == row.name else ""
            groups[name] = LayerRow(
                name,
                kind if earlier is None else "",
                row.output or (earlier.output if earlier else ()),
                row.parameters + (earlier.parameters if earlier else 0),
                row.macs + (earlier.macs if earlier else 0),
            )
        return tuple(groups.values())

    def render(self, depth: int | None = None) -> str:
        """Text table; with `depth`, of groups of layers instead of single ones."""
        rows = self.rows if depth is None else self.grouped(depth)
        header = ("layer", "type", "output", "parameters", "MACs")
        lines = [
            (
                row.name or "(network)",
                row.kind,
                "x".join(map(str, row.output)),
                f"{row.parameters:,}",
                f"{row.macs:,}",
            )
            for row in rows
        ]
        lines.append(("total", "", "", f"{self.parameters:,}", f"{self.macs:,}"))
        widths = [max(len(line[i]) for line in [header, *lines]) for i in range(5)]
        rule = "-" * (sum(widths) + 8)
        text = [
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [header, *lines]
        ]
        title = f"{self.network}, input {self.input_size} x {self.input_size} x 3"
        return "\n".join([title, rule, text[0], rule, *text[1:-1], rule, text[-1]])


def describe(network: LightNetwork | PaperNetwork, input_size: int | None = None) -> Summary:
    """Run a network on one blank crop and count.

    Counted: convolutions, linear maps, Chebyshev convolutions (by the non-zeros of their
    Laplacians), the pose regressor's affine map when it is frozen, soft-argmax, gathering of
    joint features, and anchors. Not counted: norms, activations, pooling, additions.

    Args:
        network: built by `build`; left in the mode it was in.
        input_size: pixels; None for the one in its configuration. `light` takes no other.
    """
    size = network.config.input_size if input_size is None else input_size
    rows: list[LayerRow] = []
    names = {module: name for name, module in network.named_modules()}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        counter = _COUNTERS.get(type(module))
        macs = counter(module, inputs, output) if counter else 0
        if parameters or macs:
            main: Tensor = output if isinstance(output, Tensor) else output[0]
            row = LayerRow(
                names[module], type(module).__name__, tuple(main.shape), parameters, macs
            )
            rows.append(row)

    hooks = [module.register_forward_hook(record) for module in network.modules()]
    training = network.training
    try:
        network.eval()
        device = next(network.parameters()).device
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size, device=device))
        rows += _unused(network, {row.name for row in rows})
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return Summary(network.config.name, size, tuple(rows))


def _unused(network: nn.Module, seen: set[str]) -> list[LayerRow]:
    """Layers with parameters that did not run: those of a frozen pose regressor."""
    return [
        LayerRow(name, type(module).__name__, (), count, 0)
        for name, module in network.named_modules()
        if name not in seen and (count := sum(p.numel() for p in module.parameters(recurse=False)))
    ]


def _conv(module: nn.Conv2d, inputs: tuple[Any, ...], output: Tensor) -> int:
    return output.numel() * module.weight[0].numel()


def _linear(module: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> int:
    return output.numel() * module.in_features


def _cheb(module: ChebConv, inputs: tuple[Any, ...], output: Tensor) -> int:
    signal, level = inputs[0], inputs[1]
    # Which side of theta the sparse products act on follows from the widths; see ChebConv.
    theta_first = signal.shape[0] != output.shape[0] or module.channels_out <= module.channels_in
    width = module.channels_out if theta_first else module.channels_in
    sparse = len(level.values) * width * (module.order - 1)
    return sparse + int(signal.shape[0]) * module.weight.numel()


def _regressor(module: PoseRegressor, inputs: tuple[Any, ...], output: Tensor) -> int:
    if module.collapsed_weight is not None:
        return module.collapsed_weight.numel()
    return 0 if module.prior is None else module.prior.numel() * 3


def _head(module: GraphHead, inputs: tuple[Any, ...], output: Any) -> int:
    anchored = len(inputs) > 1 and inputs[1] is not None
    return module.blend.numel() * 2 if anchored else 0


def _light(module: LightNetwork, inputs: tuple[Any, ...], output: Any) -> int:
    maps = output.heatmaps[0]
    expectation = 2 * maps.numel() // maps.shape[-1]  # of row and column sums
    gather = maps.numel() * module.config.joint_channels
    confidence = module.confidence.numel()
    return int(expectation + gather + confidence)


_COUNTERS: dict[type[nn.Module], Callable[[Any, tuple[Any, ...], Any], int]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    ChebConv: _cheb,
    PoseRegressor: _regressor,
    GraphHead: _head,
    LightNetwork: _light,
}
